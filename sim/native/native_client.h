// The clients of the link: packets at random, a source, a sink, and the ledger that compares what both saw.

#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <tuple>
#include <utility>
#include <vector>

#include "native_port.h"

namespace lightfabric {

constexpr size_t MAX_PACKET_BYTES = 1 << 16;
constexpr size_t SATURATED_FLITS = 64;     // of a packet of a saturated source, all on virtual channel 0
constexpr size_t REMEMBERED_PACKETS = 64;  // delivered ones of a virtual channel, to know a duplicate
constexpr size_t NUMBER_BYTES = 8;         // with resets a packet begins with its number, so that its beginning is known
constexpr uint64_t RECOVERY_CYCLES = 2048; // a packet begun so long after a reset must arrive, or until the next one

struct Packet {
    uint64_t number = 0, begun_cycle = 0;  // in the order of sending; not known of a packet that arrives
    std::vector<uint8_t> content;
    uint32_t channel = 0, destination = 0, source = ADDRESS;
    bool complete = false;  // its last word was taken from the source

    bool has_way_of(const Packet& other) const {
        return std::tie(channel, destination, source) == std::tie(other.channel, other.destination, other.source);
    }
    bool is(const Packet& other) const { return has_way_of(other) && content == other.content; }
    bool begins_with(const Packet& other, size_t bytes) const {
        return content.size() >= bytes && other.content.size() >= bytes
            && std::equal(other.content.begin(), other.content.begin() + bytes, content.begin());
    }
};

// The packets from one end to the other: what was accepted, what arrived, and how the two differ.
class Ledger {
public:
    void begin(const Packet& packet) { outstanding_[packet.channel].push_back(packet); }
    void accept(const Packet& packet) {
        ++accepted;
        flits += (packet.content.size() + PAYLOAD_BYTES - 1) / PAYLOAD_BYTES;
        // Its beginning may have arrived with an error before its end was sent: then it is waited for no more.
        for (Packet& waiting : outstanding_[packet.channel])
            if (waiting.number == packet.number) waiting.complete = true;
    }
    void reset(uint64_t cycle) { last_reset_cycle_ = cycle, resets_ = true; }
    // A packet that ends with an error: what has come must be the beginning of one that was sent and has not arrived.
    void arrive_broken(const Packet& packet) {
        ++broken;
        if (packet.channel >= CHANNELS) {
            ++corrupted;
            return;
        }
        auto& waiting = outstanding_[packet.channel];
        const size_t bytes = packet.content.size();
        const auto found = std::find_if(waiting.begin(), waiting.end(), [&](const Packet& other) {
            return other.has_way_of(packet) && other.begins_with(packet, bytes);
        });
        corrupted += found == waiting.end();
        if (found != waiting.end() && bytes >= NUMBER_BYTES) waiting.erase(found);
    }
    // Packets that have not arrived, which no reset excuses.
    uint64_t lost_unharmed() const {
        uint64_t count = lost_unharmed_;
        for (const auto& waiting : outstanding_)
            for (const Packet& packet : waiting) count += is_unharmed(packet);
        return count;
    }
    void arrive(const Packet& packet) {
        ++arrived;
        if (packet.channel >= CHANNELS) {
            ++corrupted;
            return;
        }
        auto& waiting = outstanding_[packet.channel];
        auto& known = known_[packet.channel];
        const auto same = [&](const Packet& other) { return other.complete && other.is(packet); };
        auto found = std::find_if(waiting.begin(), waiting.end(), same);
        if (found == waiting.end()) {
            ++(std::any_of(known.begin(), known.end(), same) ? duplicated : corrupted);
            const bool begins = find_beginning(waiting, packet, NUMBER_BYTES) || find_beginning(known, packet, NUMBER_BYTES);
            ++(find_beginning(waiting, packet, packet.content.size()) ? truncated : begins ? merged : headless);
            return;
        }
        if (resets_) {
            for (auto skipped = waiting.begin(); skipped != found; ++skipped) lost_unharmed_ += is_unharmed(*skipped);
            waiting.erase(waiting.begin(), found);
            found = waiting.begin();
        }
        ++delivered;
        reordered += found->number < latest_[packet.channel];
        latest_[packet.channel] = std::max(latest_[packet.channel], found->number);
        known.push_back(std::move(*found));
        waiting.erase(found);
        if (known.size() > REMEMBERED_PACKETS) known.pop_front();
    }

    uint64_t accepted = 0, arrived = 0, delivered = 0, corrupted = 0, duplicated = 0, reordered = 0, flits = 0;
    uint64_t broken = 0, truncated = 0, merged = 0, headless = 0;  // the last three tell how packets are corrupted

private:
    static bool find_beginning(const std::deque<Packet>& packets, const Packet& packet, size_t bytes) {
        return std::any_of(packets.begin(), packets.end(), [&](const Packet& other) { return other.begins_with(packet, bytes); });
    }
    bool is_unharmed(const Packet& packet) const {
        return packet.complete && (!resets_ || packet.begun_cycle > last_reset_cycle_ + RECOVERY_CYCLES);
    }

    uint64_t lost_unharmed_ = 0, last_reset_cycle_ = 0;
    bool resets_ = false;
    std::array<std::deque<Packet>, CHANNELS> outstanding_, known_;
    std::array<uint64_t, CHANNELS> latest_{};
};

// Runs of stalled cycles, short and long, which make up `share` of all cycles.
class Stalls {
public:
    Stalls(double share, Random random) : share_(share), random_(random) {}

    bool step() {
        if (share_ <= 0) return false;
        while (left_ == 0) {
            stalled_ = !stalled_;
            if (stalled_) mean_cycles_ = std::array{1.0, 8.0, 64.0}[random_.below(3)];
            const double mean_cycles = stalled_ ? mean_cycles_ : mean_cycles_ * (1 - share_) / share_;
            left_ = random_.geometric(1 / (1 + mean_cycles));
        }
        --left_;
        return stalled_;
    }

private:
    double share_;
    Random random_;
    double mean_cycles_ = 1;
    uint64_t left_ = 0;
    bool stalled_ = false;
};

struct Word {
    std::array<uint8_t, CLIENT_BYTES> data{};
    std::array<uint8_t, (CLIENT_BYTES + 7) / 8> keep{};
    uint32_t destination = 0, channel = 0, source = 0;
    bool last = false, error = false;

    bool operator==(const Word& other) const {
        return std::tie(data, keep, destination, channel, source, last, error)
            == std::tie(other.data, other.keep, other.destination, other.channel, other.source, other.last, other.error);
    }
    bool keeps(size_t byte) const { return keep[byte / 8] >> byte % 8 & 1; }
    size_t kept_bytes() const {
        size_t count = 0;
        while (count < CLIENT_BYTES && keeps(count)) ++count;
        return count;
    }
};

struct Traffic {
    uint64_t packets;
    double stalls;
    bool saturated, numbered;
};

// Offers random packets word by word; a word that is offered stays until it is taken. Bytes outside keep are garbage.
class Source {
public:
    Source(const Traffic& traffic, Ledger& ledger, uint64_t seed, uint64_t stream)
        : traffic_(traffic), ledger_(ledger), random_(seed, stream), stalls_(traffic.stalls, {seed, stream + 1}) {}

    // The packet that was being sent is never finished.
    void reset() {
        packet_ = {};
        at_ = 0;
        offering_ = false;
    }
    uint64_t begun() const { return begun_; }
    void drive(Vlink& top, uint64_t cycle) {
        cycle_ = cycle;
        const bool stalled = stalls_.step();
        if (!offering_ && (at_ < packet_.content.size() || begun_ < traffic_.packets)) {
            stall_cycles += stalled;
            if (!stalled) offer(top);
        }
        top.s_axis_tvalid = offering_;
    }
    void look(const Vlink& top) {
        if (!offering_ || !top.s_axis_tready) return;
        offering_ = false;
        at_ += CLIENT_BYTES;
        if (at_ >= packet_.content.size()) ledger_.accept(std::exchange(packet_, {}));
    }

    uint64_t stall_cycles = 0;

private:
    void offer(Vlink& top) {
        if (at_ >= packet_.content.size()) begin();
        Word word;
        const size_t bytes = std::min(CLIENT_BYTES, packet_.content.size() - at_);
        random_.fill(word.data.data(), CLIENT_BYTES);
        std::copy_n(packet_.content.begin() + at_, bytes, word.data.begin());
        for (size_t byte = 0; byte < bytes; ++byte) word.keep[byte / 8] |= 1 << byte % 8;
        put(top.s_axis_tdata, word.data.data(), word.data.size());
        put(top.s_axis_tkeep, word.keep.data(), word.keep.size());
        top.s_axis_tlast = at_ + bytes == packet_.content.size();
        top.s_axis_tdest = packet_.destination;
        top.s_axis_tuser = packet_.channel;
        offering_ = true;
    }
    void begin() {
        at_ = 0;
        packet_.number = begun_++;
        packet_.content.resize(length_bytes());
        packet_.channel = traffic_.saturated ? 0 : random_.below(CHANNELS);
        packet_.destination = random_.below(ADDRESSES);
        random_.fill(packet_.content.data(), packet_.content.size());
        packet_.begun_cycle = cycle_;
        for (size_t byte = 0; traffic_.numbered && byte < NUMBER_BYTES; ++byte)
            packet_.content[byte] = packet_.number >> 8 * byte & 0xFF;
        ledger_.begin(packet_);
    }
    // One to three flits, now and then up to what a packet may have.
    size_t length_bytes() {
        if (traffic_.saturated) return SATURATED_FLITS * PAYLOAD_BYTES;
        const double kind = random_.unit();
        const size_t most_flits = kind < 0.6 ? 1 : kind < 0.9 ? 3 : 16;
        const size_t least = traffic_.numbered ? NUMBER_BYTES : 1;
        return least + random_.below(kind < 0.999 ? most_flits * PAYLOAD_BYTES : MAX_PACKET_BYTES);
    }

    Traffic traffic_;
    Ledger& ledger_;
    Random random_;
    Stalls stalls_;
    Packet packet_;
    uint64_t begun_ = 0, cycle_ = 0;
    size_t at_ = 0;
    bool offering_ = false;
};

// Takes words, holds them against the rules of AXI4-Stream and of the client port, and puts packets together.
class Sink {
public:
    Sink(double stalls, Ledger& ledger, uint64_t seed, uint64_t stream)
        : ledger_(ledger), stalls_(stalls, {seed, stream}) {}

    // The packet that was being received is forgotten.
    void reset() {
        packet_ = {};
        held_ = begun_ = false;
    }
    void drive(Vlink& top) { top.m_axis_tready = ready_ = !stalls_.step(); }

    void look(const Vlink& top) {
        const bool valid = top.m_axis_tvalid;
        if (!valid) {
            protocol_errors += held_;
            held_ = false;
            return;
        }
        const Word word = word_of(top);
        protocol_errors += held_ && !(word == offered_);
        held_ = !ready_;
        offered_ = word;
        stall_cycles += held_;
        if (ready_) take(word);
    }

    uint64_t stall_cycles = 0, protocol_errors = 0, words = 0, bytes = 0;

private:
    static Word word_of(const Vlink& top) {
        Word word;
        get(top.m_axis_tdata, word.data.data(), word.data.size());
        get(top.m_axis_tkeep, word.keep.data(), word.keep.size());
        word.destination = top.m_axis_tdest;
        word.channel = top.m_axis_tuser & ((1u << USER_BITS) - 1);
        word.source = top.m_axis_tid;
        word.last = top.m_axis_tlast;
        word.error = top.m_axis_tuser >> USER_BITS;
        return word;
    }
    void take(const Word& word) {
        const size_t kept = word.kept_bytes();
        const auto in_use = [&](size_t byte) { return word.keeps(byte) || word.data[byte]; };
        for (size_t byte = kept; byte < CLIENT_BYTES; ++byte) protocol_errors += in_use(byte);
        protocol_errors += (kept == 0 && !word.error) || (kept < CLIENT_BYTES && !word.last) || (word.error && !word.last);
        if (begun_) protocol_errors += std::tie(word.destination, word.channel, word.source)
                                    != std::tie(packet_.destination, packet_.channel, packet_.source);
        begun_ = !word.last;
        packet_.destination = word.destination;
        packet_.channel = word.channel;
        packet_.source = word.source;
        packet_.content.insert(packet_.content.end(), word.data.begin(), word.data.begin() + kept);
        ++words;
        bytes += kept;
        if (!word.last) return;
        word.error ? ledger_.arrive_broken(packet_) : ledger_.arrive(packet_);
        packet_ = {};
    }

    Ledger& ledger_;
    Stalls stalls_;
    Packet packet_;
    Word offered_;
    bool ready_ = false, held_ = false, begun_ = false;
};

}  // namespace lightfabric
