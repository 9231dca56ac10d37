// Links whose circuits change at random under full traffic: every packet must come whole, once, in order, where its circuit
// leads. Prints one JSON object; ends with 1 if anything was lost or a change's dark time is not the sum of its parts.

#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "Vlink.h"
#include "native_port.h"
#include "verilated.h"

using namespace lightfabric;

namespace {

constexpr uint32_t NOWHERE = ~0u;
constexpr uint64_t DELAY_CYCLES = 5;
constexpr uint128_t BLOCK_MASK = (static_cast<uint128_t>(1) << BLOCK_BITS) - 1;
using FlitBytes = std::array<uint8_t, (FLIT_BITS + 31) / 32 * 4>;

// All fields are read and written bit by bit: there are few of them.
void set_field(FlitBytes& bytes, size_t offset, size_t width, uint64_t value) {
    for (size_t n = 0; n < width; ++n)
        if (value >> n & 1) bytes[(offset + n) / 8] |= 1u << (offset + n) % 8;
}
uint64_t field(const FlitBytes& bytes, size_t offset, size_t width) {
    uint64_t value = 0;
    for (size_t n = 0; n < width; ++n) value |= static_cast<uint64_t>(bytes[(offset + n) / 8] >> (offset + n) % 8 & 1) << n;
    return value;
}

struct Mark {  // what a flit says of itself in its payload
    uint32_t source, channel, packet, place;
    bool last;
};

FlitBytes flit_of(const Mark& mark) {
    FlitBytes bytes{};
    set_field(bytes, FLIT_LAST, 1, mark.last);
    set_field(bytes, FLIT_VIRTUAL_CHANNEL, CHANNEL_BITS, mark.channel);
    set_field(bytes, FLIT_LENGTH_BYTES, LENGTH_BITS, PAYLOAD_BYTES);
    set_field(bytes, FLIT_PAYLOAD, 8, mark.source);
    set_field(bytes, FLIT_PAYLOAD + 8, 32, mark.packet);
    set_field(bytes, FLIT_PAYLOAD + 40, 8, mark.place);
    return bytes;
}
Mark mark_of(const FlitBytes& bytes) {
    return {static_cast<uint32_t>(field(bytes, FLIT_PAYLOAD, 8)), static_cast<uint32_t>(field(bytes, FLIT_VIRTUAL_CHANNEL, CHANNEL_BITS)),
            static_cast<uint32_t>(field(bytes, FLIT_PAYLOAD + 8, 32)), static_cast<uint32_t>(field(bytes, FLIT_PAYLOAD + 40, 8)),
            field(bytes, FLIT_LAST, 1) != 0};
}

// Sends packets of random lengths in both channels, always one more if there is a credit.
struct Source {
    std::array<uint64_t, CHANNELS> credits{};
    std::array<uint32_t, CHANNELS> packet{}, place{}, length{};
    uint64_t sent = 0;

    bool next(uint32_t port, Random& random, bool may_begin, Mark& mark) {
        const auto channel = static_cast<uint32_t>(random.below(CHANNELS));
        if (!credits[channel] || (place[channel] == 0 && !may_begin)) return false;
        if (place[channel] == 0) length[channel] = 1 + static_cast<uint32_t>(random.below(6));
        mark = {port, channel, packet[channel], place[channel], place[channel] + 1 == length[channel]};
        --credits[channel];
        ++sent;
        place[channel] = mark.last ? 0 : place[channel] + 1;
        packet[channel] += mark.last;
        return true;
    }
};

// Holds flits for random times and gives their credits back.
struct Sink {
    std::array<uint64_t, CHANNELS> held{};
    uint64_t mask(Random& random) {
        uint64_t given = 0;
        for (size_t channel = 0; channel < CHANNELS; ++channel)
            if (held[channel] && random.chance(0.3)) {
                --held[channel];
                given |= uint64_t{1} << channel;
            }
        return given;
    }
    uint64_t shown() const {
        uint64_t bits = 0;
        for (size_t channel = 0; channel < CHANNELS; ++channel) bits |= static_cast<uint64_t>(held[channel] != 0) << channel;
        return bits;
    }
};

// A mirror has a circuit that it was told of, takes it up at a turn, and carries nothing until it has settled.
struct Mirror {
    uint32_t told = NOWHERE, taken = NOWHERE;
    uint64_t dark_until = 0, locked_from = 0;
};

// The way from the mirrors to a receiver, where blocks begin at any bit after a turn; in the dark there is noise or nothing.
struct Way {
    std::deque<std::array<uint128_t, LANES>> blocks;
    std::deque<bool> valid;
    std::array<uint128_t, LANES> before{};
    std::array<size_t, LANES> offset{};
    bool noisy = false;
};

class Soak {
public:
    Soak(uint64_t changes, uint64_t seed, double ber) : random_(seed, 1), changes_(changes), ber_(ber), gap_(random_.geometric(ber)) {
        for (auto& source : sources_) source.credits.fill(BUFFER_FLITS);
        for (auto& way : ways_) {
            way.offset.fill(BLOCK_BITS);
            way.blocks.assign(DELAY_CYCLES, {});
            way.valid.assign(DELAY_CYCLES, false);
        }
    }

    int run(uint64_t bound_cycles) {
        top_->rst = 1;
        for (int n = 0; n < 2; ++n) clock();
        top_->rst = 0;
        while (cycle_ < bound_cycles && !ended()) step();
        report();
        return lost_ || wrong_sums_ || !ended();
    }

private:
    bool ended() const { return done() >= changes_ && quiet_cycles_ > QUIET_CYCLES; }
    uint64_t done() const { return top_->changes + abandoned_; }
    void clock() {
        top_->clk = 0;
        top_->eval();
        top_->clk = 1;
        top_->eval();
    }
    void step() {
        drive_clients();
        drive_light();
        drive_operator();
        top_->clk = 0;
        top_->eval();
        sample_clients();
        sample_light();
        sample_operator();
        top_->clk = 1;
        top_->eval();
        ++cycle_;
    }

    void drive_clients() {
        for (uint32_t port = 0; port < PORTS; ++port) {
            Mark mark;
            const bool sends = sources_[port].next(port, random_, done() < changes_, mark);
            i_valid(*top_, port) = sends;
            if (sends) {
                const FlitBytes bytes = flit_of(mark);
                put(i_flit(*top_, port), bytes.data(), bytes.size());
            }
            o_held(*top_, port) = static_cast<uint8_t>(sinks_[port].shown());
            o_credit(*top_, port) = static_cast<uint8_t>(sinks_[port].mask(random_));
        }
    }
    void sample_clients() {
        ++quiet_cycles_;
        for (uint32_t port = 0; port < PORTS; ++port) {
            for (size_t channel = 0; channel < CHANNELS; ++channel) sources_[port].credits[channel] += i_credit(*top_, port) >> channel & 1;
            if (!o_valid(*top_, port)) continue;
            FlitBytes bytes;
            get(o_flit(*top_, port), bytes.data(), bytes.size());
            receive(port, mark_of(bytes), field(bytes, FLIT_ERROR, 1) != 0);
        }
    }
    void receive(uint32_t port, const Mark& mark, bool error) {
        quiet_cycles_ = 0;
        ++received_;
        ++sinks_[port].held[mark.channel];
        if (mark.source >= PORTS) {
            ++lost_;
            return;
        }
        auto& [packet, place] = expected_[mark.source][mark.channel];
        const bool right = !error && mark.packet == packet && mark.place == place && mirrors_[mark.source].taken == port;
        lost_ += !right;
        packet = mark.packet + mark.last;
        place = mark.last ? 0 : mark.place + 1;
    }

    bool carries(uint32_t port) const { return cycle_ >= mirrors_[port].dark_until; }
    void drive_light() {
        uint32_t settled = 0, locked = 0;
        for (uint32_t port = 0; port < PORTS; ++port) {
            settled |= static_cast<uint32_t>(carries(port)) << port;
            locked |= static_cast<uint32_t>(cycle_ >= mirrors_[port].locked_from) << port;
            Way& way = ways_[port];
            const bool valid = way.valid.front();
            const std::array<uint128_t, LANES> now = way.blocks.front();
            way.valid.pop_front();
            way.blocks.pop_front();
            rx_valid(*top_, port) = valid;
            if (!valid) continue;
            for (size_t lane = 0; lane < LANES; ++lane) {
                const uint128_t before = std::exchange(way.before[lane], now[lane]);
                const size_t offset = way.offset[lane];
                uint128_t block = offset == BLOCK_BITS ? now[lane] : (before >> offset | now[lane] << (BLOCK_BITS - offset)) & BLOCK_MASK;
                put(rx_block(*top_, port * LANES + lane), reinterpret_cast<const uint8_t*>(&block), BLOCK_BYTES);
            }
        }
        top_->settled = static_cast<uint8_t>(settled);
        top_->locked = static_cast<uint8_t>(locked);
    }
    void sample_light() {
        if (top_->mirror_valid) mirrors_[top_->mirror_port].told = told();
        for (uint32_t port = 0; port < PORTS; ++port) {
            if (top_->turn >> port & 1) turn(port);
            if (top_->relock >> port & 1) mirrors_[port].locked_from = cycle_ + random_.below(200);
            for (size_t lane = 0; lane < LANES; ++lane)
                if (slip(*top_, port) >> lane & 1) ways_[port].offset[lane] = ways_[port].offset[lane] % BLOCK_BITS + 1;
        }
        for (uint32_t port = 0; port < PORTS; ++port) pass(port);
    }
    uint32_t told() const {
        const uint32_t circuit = top_->mirror;
        return circuit >> CIRCUIT_LIT & 1 ? circuit >> CIRCUIT_OUTPUT & ((1u << OUTPUT_BITS) - 1) : NOWHERE;
    }
    void turn(uint32_t port) {
        mirrors_[port].taken = mirrors_[port].told;
        mirrors_[port].dark_until = cycle_ + 1 + random_.below(400);
        ways_[port].noisy = random_.chance(0.5);
        for (auto& offset : ways_[port].offset) offset = 1 + random_.below(BLOCK_BITS);
        ++turns_;
    }
    // What comes to a port in this cycle: the light of the port that its mirror points to, if that points back.
    void pass(uint32_t port) {
        const uint32_t from = mirrors_[port].taken;
        const bool lit = from != NOWHERE && carries(port) && carries(from) && mirrors_[from].taken == port;
        std::array<uint128_t, LANES> blocks{};
        bool valid = lit ? tx_valid(*top_, from) : ways_[port].noisy && tx_valid(*top_, port);
        for (size_t lane = 0; lane < LANES; ++lane) {
            if (lit) get(tx_block(*top_, from * LANES + lane), reinterpret_cast<uint8_t*>(&blocks[lane]), BLOCK_BYTES);
            else blocks[lane] = static_cast<uint128_t>(random_.next()) << 64 | random_.next();
            blocks[lane] &= BLOCK_MASK;
            if (lit && valid) flip(blocks[lane]);
        }
        ways_[port].blocks.push_back(blocks);
        ways_[port].valid.push_back(valid);
    }
    void flip(uint128_t& block) {
        for (; gap_ < BLOCK_BITS; gap_ += 1 + random_.geometric(ber_)) {
            block ^= static_cast<uint128_t>(1) << gap_;
            ++bit_errors_;
        }
        gap_ -= BLOCK_BITS;
    }

    // Tells of one setting after the other: pairs at random, some of them partial, at once or by the clock.
    void drive_operator() {
        if (words_.empty() && done() == asked_ && asked_ < changes_ && cycle_ >= ask_at_) {
            ask();
            ++asked_;
        }
        top_->entry___05Fvalid = !words_.empty();
        if (!words_.empty()) put(top_->entry___05Fpayload, reinterpret_cast<const uint8_t*>(&words_.front()), ENTRY_BYTES);
    }
    void ask() {
        std::array<uint32_t, PORTS> order;
        std::iota(order.begin(), order.end(), 0u);
        for (size_t n = PORTS - 1; n; --n) std::swap(order[n], order[random_.below(n + 1)]);
        std::array<uint32_t, PORTS> to;
        to.fill(NOWHERE);
        const bool partial = random_.chance(0.2);
        for (size_t n = 0; n + 1 < PORTS; n += 2) {
            if (partial && random_.chance(0.5)) continue;
            to[order[n]] = order[n + 1];
            to[order[n + 1]] = order[n];
        }
        const bool at_once = random_.chance(0.5);
        const uint64_t guard = 4000, start = (top_->now + guard + 100 + random_.below(500)) & 0xFFFFFFFF;
        for (uint32_t output : to) {
            uint128_t word = 0;
            if (output != NOWHERE) word |= static_cast<uint128_t>(output) << ENTRY_CIRCUIT << CIRCUIT_OUTPUT | static_cast<uint128_t>(1) << ENTRY_CIRCUIT << CIRCUIT_LIT;
            word |= static_cast<uint128_t>(partial) << ENTRY_PARTIAL | static_cast<uint128_t>(at_once) << ENTRY_AT_ONCE;
            word |= static_cast<uint128_t>(start) << ENTRY_START | static_cast<uint128_t>(guard) << ENTRY_GUARD;
            words_.push_back(word);
        }
    }
    void sample_operator() {
        if (!words_.empty() && top_->entry___05Fready) words_.pop_front();
        if (top_->judged && top_->refusal != 0) ++refused_;
        const uint64_t before = done();
        abandoned_ = top_->abandoned;
        if (done() != before || done() != seen_) {
            seen_ = done();
            ask_at_ = cycle_ + random_.below(1500);
        }
        measure();
    }
    // From all in the light to all in the light again: the ports were held for as long as the parts of the changes between.
    void measure() {
        const uint64_t parts = top_->drain_cycles + top_->switching_cycles + top_->lock_cycles + top_->training_cycles;
        if (top_->hold) {
            ++held_cycles_;
            was_held_ = true;
            return;
        }
        // The count of the changes follows a cycle after the last port has resumed.
        if (std::exchange(was_held_, false)) return;
        if (held_cycles_ && started_ && done() == done_in_light_ + 1) {
            ++sums_;
            wrong_sums_ += parts - parts_in_light_ != held_cycles_;
            longest_ = std::max(longest_, held_cycles_);
        }
        started_ = true;
        held_cycles_ = 0;
        parts_in_light_ = parts;
        done_in_light_ = done();
    }

    void report() const {
        uint64_t sent = 0;
        for (const Source& source : sources_) sent += source.sent;
        std::printf("{\"cycles\": %llu, \"changes\": %llu, \"abandoned\": %llu, \"refused\": %llu, \"turns\": %llu, ", ull(cycle_), ull(top_->changes), ull(abandoned_), ull(refused_), ull(turns_));
        std::printf("\"sent\": %llu, \"received\": %llu, \"wrong\": %llu, \"bit_errors\": %llu, ", ull(sent), ull(received_), ull(lost_), ull(bit_errors_));
        std::printf("\"sums\": %llu, \"wrong_sums\": %llu, \"longest_dark_cycles\": %llu, ", ull(sums_), ull(wrong_sums_), ull(longest_));
        std::printf("\"failed\": %u, \"out_of_service\": %u, ", unsigned(top_->failed), unsigned(top_->out_of_service));
        std::printf("\"drain_cycles\": %llu, \"switching_cycles\": %llu, \"lock_cycles\": %llu, \"training_cycles\": %llu}\n", ull(top_->drain_cycles), ull(top_->switching_cycles), ull(top_->lock_cycles), ull(top_->training_cycles));
    }
    static unsigned long long ull(uint64_t value) { return value; }

    static constexpr uint64_t QUIET_CYCLES = 5000;
    std::unique_ptr<Vlink> top_ = std::make_unique<Vlink>();
    Random random_;
    uint64_t changes_;
    double ber_;
    uint64_t gap_, cycle_ = 0, quiet_cycles_ = 0, asked_ = 0, ask_at_ = 0, seen_ = 0, abandoned_ = 0, refused_ = 0, turns_ = 0;
    uint64_t received_ = 0, lost_ = 0, bit_errors_ = 0, sums_ = 0, wrong_sums_ = 0, held_cycles_ = 0, parts_in_light_ = 0, done_in_light_ = 0, longest_ = 0;
    bool started_ = false, was_held_ = false;
    std::array<Source, PORTS> sources_;
    std::array<Sink, PORTS> sinks_;
    std::array<Mirror, PORTS> mirrors_;
    std::array<Way, PORTS> ways_;
    std::array<std::array<std::pair<uint32_t, uint32_t>, CHANNELS>, PORTS> expected_{};
    std::deque<uint128_t> words_;
};

}  // namespace

double sc_time_stamp() { return 0; }

int main(int count, char** words) {
    if (count != 5) {
        std::fprintf(stderr, "arguments must be changes, seed, ber and bound_cycles\n");
        return 2;
    }
    Soak soak(std::strtoull(words[1], nullptr, 10), std::strtoull(words[2], nullptr, 10), std::strtod(words[3], nullptr));
    return soak.run(std::strtoull(words[4], nullptr, 10));
}
