// The clients of a fabric: packets whose content tells who sent them, sources, sinks, and the judge of what arrives.

#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "native_port.h"

namespace lightfabric {

constexpr size_t CLIENTS = CHIPLETS * PORTS;
constexpr size_t LABEL_BYTES = 8;     // a packet begins with its number, its source and its length
constexpr double ASTRAY_SHARE = 0.04;  // of packets that nobody can carry

struct Packet {
    uint32_t destination, channel, bytes;
    bool must_arrive, arrived;
};

inline bool is_carried(const Packet& packet) { return packet.destination < CLIENTS && packet.channel < CHANNELS; }

inline uint8_t content(uint32_t source, uint32_t number, uint32_t bytes, size_t at) {
    if (at < 4) return number >> 8 * at & 0xFF;
    if (at < 6) return source >> 8 * (at - 4) & 0xFF;
    if (at < LABEL_BYTES) return bytes >> 8 * (at - 6) & 0xFF;
    const uint64_t mixed = (uint64_t{number} << 24 ^ uint64_t{source} << 56 ^ at) * 0x9E3779B97F4A7C15u;
    return mixed >> 56;
}

// Knows every packet that was begun. What arrives without an error must be one of them, whole; with one, its beginning.
class Judge {
public:
    uint32_t begin(size_t source, const Packet& packet) {
        sent_[source].push_back(packet);
        return sent_[source].size() - 1;
    }
    void arrive(size_t sink, uint32_t source, uint32_t channel, const std::vector<uint8_t>& bytes, bool error) {
        ++(error ? broken : whole);
        if (bytes.size() < LABEL_BYTES) {
            headless += !error;
            return;
        }
        const uint32_t number = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t{bytes[3]} << 24;
        if (source >= CLIENTS || number >= sent_[source].size() || (bytes[4] | bytes[5] << 8) != int(source)) {
            ++headless;
            return;
        }
        Packet& packet = sent_[source][number];
        astray += !is_carried(packet) || packet.destination != sink || packet.channel != channel;
        bool same = bytes.size() <= packet.bytes;
        for (size_t at = 0; same && at < bytes.size(); ++at) same = bytes[at] == content(source, number, packet.bytes, at);
        glued += !same;
        truncated += same && !error && bytes.size() < packet.bytes;
        // Of a source, destination and channel, every packet is later than the one before.
        int64_t& latest = latest_[source][sink][channel];
        disordered += number <= latest;
        latest = number;
        packet.arrived |= same && !error;
    }
    uint64_t lost() const {
        uint64_t count = 0;
        for (const auto& packets : sent_)
            for (const Packet& packet : packets) count += packet.must_arrive && !packet.arrived;
        return count;
    }
    uint64_t begun() const {
        uint64_t count = 0;
        for (const auto& packets : sent_) count += packets.size();
        return count;
    }

    uint64_t whole = 0, broken = 0, headless = 0, glued = 0, truncated = 0, astray = 0, disordered = 0;

private:
    using ByChannel = std::array<int64_t, CHANNELS>;

    static std::array<std::array<ByChannel, CLIENTS>, CLIENTS> none() {
        std::array<std::array<ByChannel, CLIENTS>, CLIENTS> latest;
        for (auto& by_sink : latest)
            for (auto& by_channel : by_sink) by_channel.fill(-1);
        return latest;
    }
    std::array<std::vector<Packet>, CLIENTS> sent_;
    std::array<std::array<ByChannel, CLIENTS>, CLIENTS> latest_ = none();
};

// Offers random packets word by word; a word that is offered stays until it is taken. Bytes outside keep are ones.
class Source {
public:
    Source(size_t address, Judge& judge, double stalls, uint64_t seed)
        : address_(address), judge_(judge), stalls_(stalls), random_(seed, 100 + address) {}

    // The packet that was being sent is never finished.
    void reset() { inside_ = offering_ = false; }
    // Offers nothing more for so many cycles, also in a packet.
    void pause(uint64_t cycles) { paused_ = cycles; }
    bool inside() const { return inside_; }

    void drive(Vsoak& top, bool may_begin, bool must_arrive) {
        if (!offering_ && paused_) --paused_;
        else if (!offering_ && (inside_ || may_begin) && !random_.chance(stalls_)) offer(top, must_arrive);
        s_tvalid(top, address_) = offering_;
    }
    void look(Vsoak& top) {
        if (!offering_ || !s_tready(top, address_)) return;
        offering_ = false;
        at_ += CLIENT_BYTES;
        inside_ = at_ < packet_.bytes;
    }

private:
    void offer(Vsoak& top, bool must_arrive) {
        if (!inside_) begin(must_arrive);
        std::array<uint8_t, CLIENT_BYTES> data;
        std::array<uint8_t, (CLIENT_BYTES + 7) / 8> keep{};
        data.fill(0xFF);
        const size_t count = std::min<size_t>(CLIENT_BYTES, packet_.bytes - at_);
        for (size_t byte = 0; byte < count; ++byte) {
            data[byte] = content(address_, number_, packet_.bytes, at_ + byte);
            keep[byte / 8] |= 1 << byte % 8;
        }
        put(s_tdata(top, address_), data.data(), data.size());
        put(s_tkeep(top, address_), keep.data(), keep.size());
        s_tlast(top, address_) = at_ + count == packet_.bytes;
        s_tdest(top, address_) = packet_.destination;
        s_tuser(top, address_) = packet_.channel;
        offering_ = true;
    }
    void begin(bool must_arrive) {
        const double kind = random_.unit();
        const size_t most_flits = kind < 0.6 ? 1 : kind < 0.9 ? 3 : 16;
        packet_.bytes = LABEL_BYTES + random_.below(most_flits * PAYLOAD_BYTES);
        packet_.destination = random_.below(CLIENTS);
        packet_.channel = random_.below(CHANNELS);
        if (random_.chance(ASTRAY_SHARE)) packet_.destination = CLIENTS + random_.below((1 << ADDRESS_BITS) - CLIENTS);
        if (random_.chance(ASTRAY_SHARE)) packet_.channel = random_.below(1 << USER_BITS);
        packet_.must_arrive = must_arrive && is_carried(packet_);
        packet_.arrived = false;
        number_ = judge_.begin(address_, packet_);
        at_ = 0;
        inside_ = true;
    }

    size_t address_;
    Judge& judge_;
    double stalls_;
    Random random_;
    Packet packet_{};
    uint64_t paused_ = 0;
    uint32_t number_ = 0;
    size_t at_ = 0;
    bool offering_ = false, inside_ = false;
};

// Takes words and puts packets together; a word that waits must stay as it is.
class Sink {
public:
    Sink(size_t address, Judge& judge, double stalls, uint64_t seed)
        : address_(address), judge_(judge), stalls_(stalls), random_(seed, 200 + address) {}

    // The packet that was being received is forgotten.
    void reset() {
        bytes_.clear();
        held_ = begun_ = false;
    }
    void drive(Vsoak& top) { m_tready(top, address_) = ready_ = !random_.chance(stalls_); }

    void look(Vsoak& top, uint64_t cycle) {
        if (!m_tvalid(top, address_)) {
            protocol_errors += held_;
            held_ = false;
            return;
        }
        const Word word = word_of(top);
        protocol_errors += held_ && word != offered_;
        held_ = !ready_;
        offered_ = word;
        if (ready_) take(word, cycle);
    }

    std::array<uint64_t, CHANNELS> moved{};  // the cycle in which a word of each virtual channel was taken last
    uint64_t words = 0, protocol_errors = 0;

private:
    struct Word {
        std::array<uint8_t, CLIENT_BYTES> data{};
        std::array<uint8_t, (CLIENT_BYTES + 7) / 8> keep{};
        uint32_t destination, user, source;
        bool last;

        bool operator!=(const Word& other) const {
            return data != other.data || keep != other.keep || destination != other.destination || user != other.user
                || source != other.source || last != other.last;
        }
    };

    Word word_of(Vsoak& top) const {
        Word word;
        get(m_tdata(top, address_), word.data.data(), word.data.size());
        get(m_tkeep(top, address_), word.keep.data(), word.keep.size());
        word.destination = m_tdest(top, address_);
        word.user = m_tuser(top, address_);
        word.source = m_tid(top, address_);
        word.last = m_tlast(top, address_);
        return word;
    }
    void take(const Word& word, uint64_t cycle) {
        const uint32_t channel = word.user & ((1u << USER_BITS) - 1);
        const bool error = word.user >> USER_BITS;
        // Words of a packet agree, and only its last one may have an error or be less than full.
        if (begun_) protocol_errors += word.destination != first_.destination || word.source != first_.source;
        if (begun_) protocol_errors += channel != first_channel_;
        protocol_errors += (error && !word.last) || channel >= CHANNELS;
        for (size_t byte = 0; byte < CLIENT_BYTES; ++byte) {
            if (word.keep[byte / 8] >> byte % 8 & 1) bytes_.push_back(word.data[byte]);
            else protocol_errors += !word.last;
        }
        first_ = word;
        first_channel_ = channel;
        begun_ = !word.last;
        ++words;
        if (channel < CHANNELS) moved[channel] = cycle;
        if (!word.last) return;
        if (channel < CHANNELS) judge_.arrive(address_, word.source, channel, bytes_, error);
        bytes_.clear();
    }

    size_t address_;
    Judge& judge_;
    double stalls_;
    Random random_;
    std::vector<uint8_t> bytes_;
    Word offered_{}, first_{};
    uint32_t first_channel_ = 0;
    bool ready_ = false, held_ = false, begun_ = false;
};

}  // namespace lightfabric
