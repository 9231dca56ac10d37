// Numbers at random, and the ports of a verilated module as bytes.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "native_shape.h"

namespace lightfabric {

using std::size_t, std::uint8_t, std::uint32_t, std::uint64_t;
__extension__ using uint128_t = unsigned __int128;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ports are read and written as bytes, the lowest first");

// Splitmix64 [Steele, Lea, Flood, OOPSLA 2014].
class Random {
public:
    Random(uint64_t seed, uint64_t stream) : state_(seed) { state_ = next() ^ stream * 0xD1342543DE82EF95u; }

    uint64_t next() {
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }
    uint64_t below(uint64_t bound) { return static_cast<uint64_t>(static_cast<uint128_t>(next()) * bound >> 64); }
    double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    bool chance(double probability) { return probability > 0 && unit() < probability; }
    // Failures before the next success.
    uint64_t geometric(double probability) {
        if (probability <= 0) return std::numeric_limits<uint64_t>::max() / 2;
        return static_cast<uint64_t>(std::log1p(-unit()) / std::log1p(-probability));
    }
    void fill(uint8_t* bytes, size_t count) {
        for (; count >= 8; bytes += 8, count -= 8) store(bytes, 8);
        if (count) store(bytes, count);
    }

private:
    void store(uint8_t* bytes, size_t count) {
        const uint64_t value = next();
        std::memcpy(bytes, &value, count);
    }
    uint64_t state_;
};

template <class Port>
void put(Port& port, const uint8_t* bytes, size_t count) {
    std::memcpy(static_cast<void*>(&port), bytes, count);
}

template <class Port>
void get(const Port& port, uint8_t* bytes, size_t count) {
    std::memcpy(bytes, static_cast<const void*>(&port), count);
}

}  // namespace lightfabric
