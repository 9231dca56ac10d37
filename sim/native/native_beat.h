// What a line carries in a cycle, and how it lies in the ports of the verilated link.

#pragma once

#include <array>
#include <utility>

#include "native_port.h"

namespace lightfabric {

constexpr size_t BLOCK_BITS = 66, LINE_BITS = BLOCK_BITS * LANES, LINE_BYTES = (LINE_BITS + 7) / 8;
constexpr uint8_t SYNC_DATA = 0b10;

// What a line carries in one cycle: a block per wavelength, or nothing.
struct Beat {
    bool valid = false;
    std::array<uint64_t, LANES> bits{};
    std::array<uint8_t, LANES> sync{};
};

using LineBytes = std::array<uint8_t, LINE_BYTES + 16>;  // so that the last block, too, is reached by 16 bytes

template <class Port>
Beat beat_of(bool valid, const Port& port) {
    Beat beat;
    beat.valid = valid;
    if (!valid) return beat;
    LineBytes line{};
    get(port, line.data(), LINE_BYTES);
    for (size_t lane = 0; lane < LANES; ++lane) {
        uint128_t block;
        std::memcpy(&block, &line[lane * BLOCK_BITS / 8], sizeof block);
        block >>= lane * BLOCK_BITS % 8;
        beat.sync[lane] = block & 3;
        beat.bits[lane] = static_cast<uint64_t>(block >> 2);
    }
    return beat;
}

template <class Port>
void put_beat(Port& port, const Beat& beat) {
    LineBytes line{};
    for (size_t lane = 0; lane < LANES; ++lane) {
        uint128_t around;
        uint8_t* const place = &line[lane * BLOCK_BITS / 8];
        std::memcpy(&around, place, sizeof around);
        around |= (static_cast<uint128_t>(beat.bits[lane]) << 2 | beat.sync[lane]) << lane * BLOCK_BITS % 8;
        std::memcpy(place, &around, sizeof around);
    }
    put(port, line.data(), LINE_BYTES);
}

}  // namespace lightfabric
