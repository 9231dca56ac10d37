// A fibre from one end of the link to the other: delay, dropped and repeated flits, bit errors, bursts, loss of light.

#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "native_beat.h"
#include "native_channel.h"
#include "native_light.h"

namespace lightfabric {

constexpr size_t MAX_BEHIND_FLITS = 8;  // that a fibre holds back because it repeated flits

struct Faults {
    double ber, bursts, drops, duplicates;  // per bit, per beat, per flit, per flit
    uint64_t delay_cycles;
};

struct FaultCounts {
    uint64_t bits = 0, slots = 0, bit_errors = 0, bursts = 0, dropped_flits = 0, duplicated_flits = 0;
};

// 1 + x^39 + x^58 [IEEE 802.3 49.2.6]; the state is the line's last 58 bits, the oldest in bit 0.
class Scrambler {
public:
    uint64_t descrambled(uint64_t block) {
        const uint128_t line = state_ | static_cast<uint128_t>(block) << 58;
        state_ = static_cast<uint64_t>(line >> 64);
        return block ^ static_cast<uint64_t>(line >> 19) ^ static_cast<uint64_t>(line);
    }
    uint64_t scrambled(uint64_t block) {
        uint128_t line = state_;
        for (size_t done = 0; done < 64; done += 39) {  // as many bits at once as the nearer tap allows
            const size_t bits = std::min<size_t>(39, 64 - done);
            const auto part = (block >> done) ^ static_cast<uint64_t>(line >> (done + 19) ^ line >> done);
            line |= static_cast<uint128_t>(part & ((uint64_t{1} << bits) - 1)) << (58 + done);
        }
        state_ = static_cast<uint64_t>(line >> 64);
        return static_cast<uint64_t>(line >> 58);
    }

private:
    uint64_t state_ = 0;
};

// Drops and repeats whole flits at the far end of the fibre, on a line that stays scrambled as if nothing had happened.
//
// The beats that arrive are queued, and one leaves in each cycle in which there is one. The beats of a dropped flit are
// not queued: the line has nothing to say for as long as the queue is empty. Those of a repeated flit are queued twice,
// and what follows is late until the transmitter leaves cycles out or a flit is dropped; when more than
// MAX_BEHIND_FLITS wait, a repeated flit takes the place of the next one, which counts as dropped. Flits are counted
// from the first data block after reset or after a control block; control blocks are neither dropped nor repeated. On fewer
// lanes than wavelengths as many beats are a part of a flit, and a lane that carries nothing has control blocks all the time.
// With a code nothing tells the flits: no block has a sync header.
class FlitFaults {
public:
    FlitFaults(const Faults& faults, Random random) : faults_(faults), random_(random) {}

    Beat step(Beat beat, FaultCounts& counts) {
        if constexpr (CODED != 0) return beat;
        if (beat.valid) arrive(plain(beat), counts);
        if (queue_.empty()) return {};
        Beat leaving = queue_.front();
        queue_.pop_front();
        for (size_t lane = 0; lane < LANES; ++lane) set_bits(leaving.blocks[lane], out_[lane].scrambled(bits_of(leaving.blocks[lane])));
        return leaving;
    }

private:
    Beat plain(Beat beat) {
        for (size_t lane = 0; lane < LANES; ++lane) set_bits(beat.blocks[lane], in_[lane].descrambled(bits_of(beat.blocks[lane])));
        return beat;
    }
    void arrive(const Beat& beat, FaultCounts& counts) {
        const auto is_data = [](uint128_t block) { return sync_of(block) == SYNC_DATA; };
        if (std::none_of(beat.blocks.begin(), beat.blocks.end(), is_data)) {
            place_ = 0;
            queue_.push_back(beat);
            return;
        }
        if (place_ == 0) begin_flit(counts);
        flit_[place_++] = beat;
        if (!dropping_) queue_.push_back(beat);
        if (place_ == BEATS_PER_FLIT) end_flit();
    }
    void begin_flit(FaultCounts& counts) {
        ++counts.slots;
        dropping_ = std::exchange(replaced_, false) || random_.chance(faults_.drops);
        repeating_ = !dropping_ && random_.chance(faults_.duplicates);
        counts.dropped_flits += dropping_;
        counts.duplicated_flits += repeating_;
    }
    void end_flit() {
        place_ = 0;
        if (!repeating_) return;
        queue_.insert(queue_.end(), flit_.begin(), flit_.end());
        replaced_ = queue_.size() > MAX_BEHIND_FLITS * BEATS_PER_FLIT;
    }

    Faults faults_;
    Random random_;
    std::array<Scrambler, LANES> in_, out_;
    std::deque<Beat> queue_;
    std::array<Beat, BEATS_PER_FLIT> flit_;
    size_t place_ = 0;
    bool dropping_ = false, repeating_ = false, replaced_ = false;
};

// Inverts bits at the rate ber, and replaces all bits of 1 to 2 flits' beats in a burst.
class BitFaults {
public:
    BitFaults(const Faults& faults, Random random)
        : faults_(faults), random_(random), gap_bits_(random_.geometric(faults.ber)) {}

    void step(Beat& beat, FaultCounts& counts) {
        if (!beat.valid) return;
        counts.bits += LINE_BITS;
        while (gap_bits_ < LINE_BITS) {
            flip(beat, gap_bits_);
            gap_bits_ += 1 + random_.geometric(faults_.ber);
            ++counts.bit_errors;
        }
        gap_bits_ -= LINE_BITS;
        if (burst_beats_ == 0 && random_.chance(faults_.bursts)) {
            burst_beats_ = 1 + random_.below(2 * BEATS_PER_FLIT);
            ++counts.bursts;
        }
        if (burst_beats_ == 0) return;
        --burst_beats_;
        for (auto& block : beat.blocks) block = noise(random_);
    }

private:
    static void flip(Beat& beat, size_t bit) {
        beat.blocks[bit / BLOCK_BITS] ^= static_cast<uint128_t>(1) << bit % BLOCK_BITS;
    }
    Faults faults_;
    Random random_;
    uint64_t gap_bits_, burst_beats_ = 0;
};

// The ends have clocks of their own: a beat waits until its time has come and the receiver has a cycle for it.
class Fibre {
public:
    Fibre(const Faults& faults, const Losses& losses, const std::string& channel, uint64_t seed, uint64_t stream,
          uint64_t light_stream)
        : light(losses, seed, light_stream),
          delay_cycles_(faults.delay_cycles),
          flits_(faults, {seed, stream}),
          bits_(faults, {seed, stream + 1}),
          channel_(channel, seed, CHANNEL_STREAM + LANES * stream) {}

    void send(const Vlink& from, uint64_t now) {
        if (from.tx_valid) in_flight_.emplace_back(now + delay_cycles_, beat_of(true, from.tx_data));
    }
    void receive(Vlink& to, uint64_t now, bool may_lose) {
        Beat beat;
        if (is_due(now)) {
            beat = in_flight_.front().second;
            in_flight_.pop_front();
        }
        while (in_flight_.size() > waiting && in_flight_[waiting].first <= now) ++waiting;
        beat = flits_.step(beat, counts_);
        bits_.step(beat, counts_);
        if (beat.valid && !channel_.whole()) pass_channel(beat);
        light.step(beat, to.rx_slip, may_lose);
        to.rx_valid = beat.valid;
        if (beat.valid) put_beat(to.rx_data, beat);
    }
    const FaultCounts& counts() const { return counts_; }

    Light light;
    uint64_t waiting = 0;  // beats, at most, that had come and found no cycle of the receiver: what a SerDes must buffer

private:
    static constexpr uint64_t CHANNEL_STREAM = 1000;  // apart from those of all clients, resets and fibres

    void pass_channel(Beat& beat) {
        const uint64_t before = channel_.bit_errors();
        beat.valid = channel_.step(beat.blocks);
        counts_.bit_errors += channel_.bit_errors() - before;
    }

    bool is_due(uint64_t now) const { return !in_flight_.empty() && in_flight_.front().first <= now; }

    std::deque<std::pair<uint64_t, Beat>> in_flight_;
    uint64_t delay_cycles_;
    FlitFaults flits_;
    BitFaults bits_;
    Channel channel_;
    FaultCounts counts_;
};

}  // namespace lightfabric
