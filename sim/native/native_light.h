// The light on the way to one end: it goes for random times, on the whole fibre or on single wavelengths, and comes back
// with blocks that begin at any bit.

#pragma once

#include <algorithm>
#include <array>

#include "native_beat.h"

namespace lightfabric {

struct Losses {
    double darks, kills;    // of the whole fibre and of one wavelength, per cycle
    uint64_t noise_cycles;  // from reset on, in which there is nothing but noise
};

struct LossCounts {
    uint64_t darks = 0, kills = 0;
};

// What a receiver sees without light. TURNS are blocks that all look like good data, but say nothing.
enum class Dark { SILENCE, NOISE, LOW, TURNS };
constexpr size_t DARKS = 4;
constexpr size_t MAX_DARK_BITS = 14;  // losses last for up to as many cycles as so many bits count, long and short ones

class Light {
public:
    Light(const Losses& losses, uint64_t seed, uint64_t stream) : losses_(losses), random_(seed, stream) {
        offset_.fill(BLOCK_BITS);
        left_ = losses.noise_cycles;
        kind_ = Dark::NOISE;
    }

    // What arrives in a cycle of the receiver, whose slips of the cycle before are the bits of ``slips``.
    void step(Beat& beat, uint32_t slips, bool may_begin) {
        for (size_t lane = 0; lane < LANES; ++lane)
            if (slips >> lane & 1) offset_[lane] = offset_[lane] % BLOCK_BITS + 1;
        if (may_begin) begin();
        dark_cycles_ = left_ ? dark_cycles_ + 1 : 0;
        const bool silent = left_ && kind_ == Dark::SILENCE;
        for (size_t lane = 0; lane < LANES; ++lane) {
            if (left_) replace(beat, lane, kind_);
            else if (lane_left_[lane]) replace(beat, lane, lane_kind_[lane]);
            if (lane_left_[lane] && --lane_left_[lane] == 0) offset_[lane] = 1 + random_.below(BLOCK_BITS);
            if (beat.valid) cut(beat, lane);
        }
        if (left_ && --left_ == 0)
            for (auto& offset : offset_) offset = 1 + random_.below(BLOCK_BITS);
        beat.valid &= !silent;
    }
    // For so long there has been no light at all.
    uint64_t dark_cycles() const { return dark_cycles_; }

    LossCounts counts;

private:
    void begin() {
        if (!left_ && random_.chance(losses_.darks)) {
            ++counts.darks;
            kind_ = static_cast<Dark>(random_.below(DARKS));
            left_ = duration();
        }
        if (random_.chance(losses_.kills)) {
            const size_t lane = random_.below(LANES);
            counts.kills += !lane_left_[lane];
            // A SerDes gives blocks of all wavelengths or of none, so that no single one is silent.
            lane_kind_[lane] = static_cast<Dark>(1 + random_.below(DARKS - 1));
            lane_left_[lane] = duration();
        }
    }
    uint64_t duration() { return 1 + random_.below(uint64_t{1} << random_.below(MAX_DARK_BITS + 1)); }
    void replace(Beat& beat, size_t lane, Dark kind) {
        constexpr uint64_t TURNS = 0xAAAAAAAAAAAAAAAA;
        constexpr uint128_t turns = (static_cast<uint128_t>(TURNS) << 64 | TURNS) & BLOCK_MASK;
        beat.blocks[lane] = kind == Dark::NOISE ? noise(random_) : kind == Dark::LOW ? 0 : turns;
    }
    // Cuts the lane's bits into blocks where the SerDes does: BLOCK_BITS is the right place.
    void cut(Beat& beat, size_t lane) {
        const uint128_t now = beat.blocks[lane], before = std::exchange(before_[lane], now);
        if (offset_[lane] == BLOCK_BITS) return;
        beat.blocks[lane] = (before >> offset_[lane] | now << (BLOCK_BITS - offset_[lane])) & BLOCK_MASK;
    }

    Losses losses_;
    Random random_;
    Dark kind_ = Dark::SILENCE;
    uint64_t left_ = 0, dark_cycles_ = 0;
    std::array<Dark, LANES> lane_kind_{};
    std::array<uint64_t, LANES> lane_left_{};
    std::array<size_t, LANES> offset_;
    std::array<uint128_t, LANES> before_{};
};

}  // namespace lightfabric
