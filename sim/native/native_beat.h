// What a line carries in a cycle, and how it lies in the ports of the verilated link.

#pragma once

#include <array>
#include <utility>

#include "native_port.h"

namespace lightfabric {

constexpr size_t LINE_BITS = BLOCK_BITS * LANES, LINE_BYTES = (LINE_BITS + 7) / 8;
constexpr uint128_t BLOCK_MASK = (static_cast<uint128_t>(1) << BLOCK_BITS) - 1;
constexpr size_t SYNC_BITS = 2;
constexpr uint8_t SYNC_DATA = 0b10;

// What a line carries in one cycle: a block per wavelength, spare ones too, or nothing. The two bits of the sync header are the lowest ones of
// a block, then come 64 bits that are scrambled, and above them those that codewords add.
struct Beat {
    bool valid = false;
    std::array<uint128_t, LANES> blocks{};
};

inline uint8_t sync_of(uint128_t block) { return block & 3; }
inline uint64_t bits_of(uint128_t block) { return static_cast<uint64_t>(block >> SYNC_BITS); }
inline void set_bits(uint128_t& block, uint64_t bits) { block ^= static_cast<uint128_t>(bits ^ bits_of(block)) << SYNC_BITS; }

inline uint128_t noise(Random& random) { return (static_cast<uint128_t>(random.next()) << 64 | random.next()) & BLOCK_MASK; }

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
        beat.blocks[lane] = block >> lane * BLOCK_BITS % 8 & BLOCK_MASK;
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
        around |= beat.blocks[lane] << lane * BLOCK_BITS % 8;
        std::memcpy(place, &around, sizeof around);
    }
    put(port, line.data(), LINE_BYTES);
}

}  // namespace lightfabric
