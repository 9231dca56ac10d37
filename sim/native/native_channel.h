// The channel of sim.channel on the lanes of a line: errors by chance, bursts, slips, skew, losses, polarity, order.

#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "native_beat.h"

namespace lightfabric {

// The fields of sim.channel.fault.LaneFaults in their order, as numbers, and the lane that was sent on.
struct LaneFaults {
    double ber, ber_bad, worsens, recovers, bursts, burst_bits, slips, skew_steps, max_skew_blocks, losses, loss_blocks, noise;
    double offset_bits, skew_blocks, inverted, source;
};
constexpr size_t LANE_FIELDS = sizeof(LaneFaults) / sizeof(double);

class LaneChannel {
public:
    LaneChannel(const LaneFaults& faults, uint64_t seed, uint64_t stream)
        : faults_(faults),
          random_(seed, stream),
          offset_(static_cast<size_t>(faults.offset_bits)),
          skew_(static_cast<size_t>(faults.skew_blocks)),
          gap_{random_.geometric(faults.ber), random_.geometric(faults.ber_bad)},
          left_(trials(faults.worsens)),
          burst_blocks_(trials(faults.bursts)) {}

    // Takes a block that was sent, and makes the one that comes of it; false before the first one.
    bool receive(uint128_t& block) {
        block ^= errors();
        change();
        if (faults_.inverted != 0) block ^= BLOCK_MASK;
        if (lost_) block = faults_.noise != 0 ? noise(random_) : 0;
        history_.push_back(block & BLOCK_MASK);
        if (history_.size() > MAX_HISTORY) history_.pop_front();
        // One block more than the skew: an offset cuts a block out of two neighbours, the newer of which must have come.
        const size_t late = 1 + skew_, size = history_.size();
        if (late >= size) return false;
        block = (history_[size - 1 - late] >> offset_ | history_[size - late] << (BLOCK_BITS - offset_)) & BLOCK_MASK;
        return true;
    }

    uint64_t bit_errors = 0;

private:
    static constexpr size_t MAX_HISTORY = 64;

    uint64_t trials(double rate) {
        constexpr uint64_t never = std::numeric_limits<uint64_t>::max() / 2;
        return rate > 0 ? 1 + random_.geometric(rate) : never;
    }
    uint128_t errors() {
        uint128_t flips = 0;
        for (size_t at = 0; at < BLOCK_BITS;) {
            const size_t span = std::min<uint64_t>(left_, BLOCK_BITS - at);
            uint64_t& gap = gap_[bad_];
            for (; gap < span; gap += 1 + random_.geometric(bad_ ? faults_.ber_bad : faults_.ber))
                flips ^= static_cast<uint128_t>(1) << (at + gap);
            gap -= span;
            at += span;
            left_ -= span;
            if (left_) continue;
            bad_ = !bad_;
            left_ = trials(bad_ ? faults_.recovers : faults_.worsens);
        }
        if (burst_left_ == 0 && --burst_blocks_ == 0) {
            burst_begin_ = random_.below(BLOCK_BITS);
            burst_left_ = static_cast<uint64_t>(faults_.burst_bits);
            burst_blocks_ = trials(faults_.bursts);
        }
        if (burst_left_) {
            const size_t span = std::min<uint64_t>(burst_left_, BLOCK_BITS - burst_begin_);
            flips ^= (noise(random_) & ((static_cast<uint128_t>(1) << span) - 1)) << burst_begin_;
            burst_left_ -= span;
            burst_begin_ = 0;
        }
        bit_errors += __builtin_popcountll(static_cast<uint64_t>(flips)) + __builtin_popcountll(static_cast<uint64_t>(flips >> 64));
        return flips;
    }
    void change() {
        if (random_.chance(faults_.slips)) offset_ = (offset_ + 1) % BLOCK_BITS;
        if (random_.chance(faults_.skew_steps)) {
            if (random_.chance(0.5)) skew_ += skew_ < static_cast<size_t>(faults_.max_skew_blocks);
            else skew_ -= skew_ > 0;
        }
        if (lost_) --lost_;
        else if (random_.chance(faults_.losses)) lost_ = trials(1 / faults_.loss_blocks);
    }

    LaneFaults faults_;
    Random random_;
    size_t offset_, skew_;
    std::array<uint64_t, 2> gap_;
    uint64_t left_, burst_blocks_, burst_left_ = 0, lost_ = 0;
    size_t burst_begin_ = 0;
    bool bad_ = false;
    std::deque<uint128_t> history_;
};

// All lanes of one direction; what a text of numbers says, LANE_FIELDS for each lane, apart by commas. An empty one is whole.
class Channel {
public:
    Channel(const std::string& text, uint64_t seed, uint64_t stream) {
        std::vector<double> numbers;
        for (const char* at = text.c_str(); *at;) {
            char* end = nullptr;
            numbers.push_back(std::strtod(at, &end));
            if (end == at || (*end && *end != ',')) fail();
            at = *end ? end + 1 : end;
        }
        if (!numbers.empty() && numbers.size() != LANE_FIELDS * LANES) fail();
        for (size_t lane = 0; LANE_FIELDS * (lane + 1) <= numbers.size(); ++lane) {
            LaneFaults faults;
            std::memcpy(&faults, &numbers[LANE_FIELDS * lane], sizeof faults);
            if (!(faults.offset_bits < BLOCK_BITS)) fail();
            lanes_.emplace_back(faults, seed, stream + lane);
            sources_.push_back(static_cast<size_t>(faults.source) % LANES);
        }
    }
    bool whole() const { return lanes_.empty(); }
    // Makes what arrives of the blocks sent on all lanes; false until the last lane has brought one.
    bool step(std::array<uint128_t, LANES>& blocks) {
        const std::array<uint128_t, LANES> sent = blocks;
        bool all = true;
        for (size_t lane = 0; lane < lanes_.size(); ++lane) {
            blocks[lane] = sent[sources_[lane]];
            all &= lanes_[lane].receive(blocks[lane]);
        }
        return all;
    }
    uint64_t bit_errors() const {
        uint64_t sum = 0;
        for (const LaneChannel& lane : lanes_) sum += lane.bit_errors;
        return sum;
    }

private:
    [[noreturn]] static void fail() {
        std::fprintf(stderr, "a channel must be %zu numbers for each of %zu lanes, its offset below %zu\n", LANE_FIELDS, LANES, BLOCK_BITS);
        std::exit(2);
    }
    std::vector<LaneChannel> lanes_;
    std::vector<size_t> sources_;
};

}  // namespace lightfabric
