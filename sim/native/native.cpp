// Two ends of the verilated link, a faulty fibre each way, a client at each end; prints what became of the packets.
//
// A cycle of an end: its fibre takes what its transmitter shows, the other one drives its receiver, the client drives its
// streams, the clock falls and all settles, the client looks at the handshakes, the clock rises. Both ends have one together,
// but for those by which the clock of end b is faster or slower. native_shape.h is by sim/native/link.py.

#include <algorithm>
#include <array>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "native_client.h"
#include "native_fibre.h"
#include "native_reset.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace lightfabric {
namespace {

constexpr size_t RESET_CYCLES = 16;
constexpr size_t READ_CYCLES = 12;  // more than the answers to two reads take

// Options are pairs of a name and a number; every name must be used.
class Options {
public:
    Options(int count, char** words) {
        if (count % 2 == 0) fail("options must be pairs of a name and a number");
        for (int at = 1; at < count; at += 2) values_[words[at]] = words[at + 1];
    }
    double number(const std::string& name) { return parsed<double>(name, std::strtod); }
    uint64_t count(const std::string& name) {
        return parsed<uint64_t>(name, [](const char* text, char** end) { return std::strtoull(text, end, 10); });
    }
    std::string text(const std::string& name) { return taken(name); }
    void require_none_left() const {
        if (!values_.empty()) fail("there is no option " + values_.begin()->first);
    }

private:
    [[noreturn]] static void fail(const std::string& message) {
        std::fprintf(stderr, "%s\n", message.c_str());
        std::exit(2);
    }
    std::string taken(const std::string& name) {
        auto found = values_.extract(name);
        if (found.empty()) fail("the option " + name + " is missing");
        return found.mapped();
    }
    template <class Number, class Parse>
    Number parsed(const std::string& name, Parse parse) {
        const std::string text = taken(name);
        char* end = nullptr;
        const Number value = parse(text.c_str(), &end);
        if (text.empty() || *end) fail("the option " + name + " must be a number, not " + text);
        return value;
    }
    std::map<std::string, std::string> values_;
};

struct Settings {
    explicit Settings(Options& options)
        : seed(options.count("seed")),
          packets{options.count("packets"), options.count("packets_back")},
          ber{options.number("ber"), options.number("ber_back")},
          faults{0, options.number("bursts"), options.number("drops"), options.number("duplicates"),
                 options.count("delay_cycles")},
          losses{options.number("darks"), options.number("kills"), options.count("noise_cycles")},
          ppm(options.number("ppm")),
          channel{options.text("channel"), options.text("channel_back")},
          stalls(options.number("stalls")),
          saturated(options.count("saturated") != 0),
          resets(options.number("resets")),
          warm_up_bytes(options.count("warm_up_flits") * PAYLOAD_BYTES),
          window_bytes(options.count("window_flits") * PAYLOAD_BYTES),
          settle_cycles(options.count("settle_cycles")),
          patience_cycles(options.count("patience_cycles")),
          bound_cycles(options.count("bound_cycles")),
          waves(VM_TRACE ? options.text("waves") : "") {
        options.require_none_left();
    }

    uint64_t seed;
    std::array<uint64_t, 2> packets;
    std::array<double, 2> ber;
    Faults faults;
    Losses losses;
    double ppm;
    std::array<std::string, 2> channel;
    double stalls;
    bool saturated;
    double resets;
    uint64_t warm_up_bytes, window_bytes, settle_cycles, patience_cycles, bound_cycles;
    std::string waves;
};

// From one end to the other: the line, and the packets that should have crossed it.
struct Direction {
    Direction(const Settings& settings, size_t number)
        : fibre(with_ber(settings.faults, settings.ber[number]), settings.losses, settings.channel[number], settings.seed,
                2 * number, 12 + number) {}

    static Faults with_ber(Faults faults, double ber) {
        faults.ber = ber;
        return faults;
    }

    Fibre fibre;
    Ledger ledger;
};

struct End {
    End(const Settings& settings, VerilatedContext& context, size_t number, Ledger& sent, Ledger& received)
        : top(&context, number ? "b" : "a"),
          source({settings.packets[number], settings.stalls, settings.saturated, settings.resets > 0}, sent,
                 settings.seed, 4 + 3 * number),
          sink(settings.stalls, received, settings.seed, 6 + 3 * number),
          resets(settings.resets, settings.seed, 10 + number),
          packets(settings.packets[number]) {
        top.tx_ready = 1;
    }

    // Resets and losses of light end early enough for the last packets to show that all is well after them.
    bool may_lose() const { return source.begun() < packets - packets / 8; }

    Vlink top;
    Source source;
    Sink sink;
    Resets resets;
    Status status;
    bool harmed = false;  // from a reset of the link on, until that is up again
    uint64_t packets;
};

// Of the packets from a to b: the cycles and the slots of the line in which so many bytes were delivered.
struct Window {
    uint64_t cycles = 0, slots = 0, payload_bytes = 0;
};

class Bench {
public:
    explicit Bench(Settings settings) : settings_(std::move(settings)) {
#if VM_TRACE
        context_.traceEverOn(true);
        for (End* end : ends_) end->top.trace(&trace_, 99);
        trace_.open(settings_.waves.c_str());
#endif
    }

    // Simulate from reset to the end; true if every packet arrived once, in order and unchanged.
    bool run() {
        const auto begin = std::chrono::steady_clock::now();
        reset();
        while (cycles_ < settings_.bound_cycles && !ended()) step();
        seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        read_registers();
        const bool all = settings_.window_bytes ? window_.payload_bytes >= settings_.window_bytes
                         : settings_.resets       ? lost_unharmed() == 0 && sent()
                                                  : total(&Ledger::delivered) == packets();
        return all && total(&Ledger::corrupted) + total(&Ledger::duplicated) + total(&Ledger::reordered) == 0
            && total(&Sink::protocol_errors) == 0;
    }

    void print() const {
        std::printf("{");
        for (const auto& [name, value] : counts()) std::printf("\"%s\": %" PRIu64 ", ", name, value);
        for (size_t n = 0; n < REPORTED.size(); ++n)
            std::printf("\"register_%s\": [%" PRIu32 ", %" PRIu32 "], ", REPORTED[n].name, read_[0][n], read_[1][n]);
        std::printf("\"cycles_per_s\": %.1f}\n", static_cast<double>(cycles_) / seconds_);
    }

private:
    using Ends = std::vector<End*>;

    std::vector<std::pair<const char*, uint64_t>> counts() const {
        return {
            {"packets", packets()},
            {"delivered", total(&Ledger::delivered)},
            {"lost", packets() - total(&Ledger::delivered)},
            {"corrupted", total(&Ledger::corrupted)},
            {"duplicated", total(&Ledger::duplicated)},
            {"reordered", total(&Ledger::reordered)},
            {"protocol_errors", total(&Sink::protocol_errors)},
            {"resets", a_.resets.count + b_.resets.count},
            {"darks", total(&LossCounts::darks)},
            {"kills", total(&LossCounts::kills)},
            {"drop_cycles", drop_cycles_},
            {"narrow_cycles", narrow_cycles_},
            {"waiting_beats", std::max(there_.fibre.waiting, back_.fibre.waiting)},
            {"broken", total(&Ledger::broken)},
            {"truncated", total(&Ledger::truncated)},
            {"merged", total(&Ledger::merged)},
            {"headless", total(&Ledger::headless)},
            {"lost_unharmed", lost_unharmed()},
            {"seed", settings_.seed},
            {"accepted", total(&Ledger::accepted)},
            {"replays", a_.top.replays + b_.top.replays},
            {"crc_errors", a_.top.crc_errors + b_.top.crc_errors},
            {"bit_errors", total(&FaultCounts::bit_errors)},
            {"bursts", total(&FaultCounts::bursts)},
            {"dropped_flits", total(&FaultCounts::dropped_flits)},
            {"duplicated_flits", total(&FaultCounts::duplicated_flits)},
            {"source_stall_cycles", a_.source.stall_cycles + b_.source.stall_cycles},
            {"sink_stall_cycles", total(&Sink::stall_cycles)},
            {"flits", total(&Ledger::flits)},
            {"slots", total(&FaultCounts::slots)},
            {"bits", total(&FaultCounts::bits)},
            {"payload_bytes", total(&Sink::bytes)},
            {"window_cycles", window_.cycles},
            {"window_slots", window_.slots},
            {"window_payload_bytes", window_.payload_bytes},
            {"cycles", cycles_},
        };
    }
    bool sent() const { return a_.source.begun() + b_.source.begun() == packets(); }
    uint64_t lost_unharmed() const { return there_.ledger.lost_unharmed() + back_.ledger.lost_unharmed(); }
    uint64_t packets() const { return settings_.packets[0] + settings_.packets[1]; }
    uint64_t total(uint64_t Ledger::*count) const { return there_.ledger.*count + back_.ledger.*count; }
    uint64_t total(uint64_t Sink::*count) const { return a_.sink.*count + b_.sink.*count; }
    uint64_t total(uint64_t FaultCounts::*count) const {
        return there_.fibre.counts().*count + back_.fibre.counts().*count;
    }

    uint64_t total(uint64_t LossCounts::*count) const {
        return there_.fibre.light.counts.*count + back_.fibre.light.counts.*count;
    }

    void reset() {
        for (End* end : ends_) set_reset(end->top, true);
        for (size_t cycle = 0; cycle < RESET_CYCLES; ++cycle) {
            settle(ends_, false);
            settle(ends_, true);
        }
        for (End* end : ends_) set_reset(end->top, false);
    }
    void step() {
        may_lose_ = a_.may_lose() && b_.may_lose();
        if (settings_.resets > 0) reset_some();
        b_ahead_ += settings_.ppm * 1e-6;
        if (b_ahead_ <= -1) {
            b_ahead_ += 1;
            cycle({&a_});
        } else {
            cycle(ends_);
        }
        if (b_ahead_ >= 1) {
            b_ahead_ -= 1;
            cycle({&b_});
        }
        narrow_cycles_ += a_.status.narrow || b_.status.narrow;
        for (const auto& [end, way] : {std::pair{&a_, &back_}, std::pair{&b_, &there_}})
            if (end->status.up) drop_cycles_ = std::max(drop_cycles_, way->fibre.light.dark_cycles());
        ++cycles_;
    }
    // One cycle of these ends.
    void cycle(const Ends& ends) {
        for (End* end : ends) (end == &a_ ? there_ : back_).fibre.send(end->top, cycles_);
        for (End* end : ends) {
            (end == &a_ ? back_ : there_).fibre.receive(end->top, cycles_, may_lose_);
            end->status.drive(end->top);
            if (end->resets.of_client()) {
                end->source.reset();
                end->sink.reset();
                end->top.s_axis_tvalid = end->top.m_axis_tready = 0;
                continue;
            }
            end->source.drive(end->top, cycles_);
            end->sink.drive(end->top);
        }
        settle(ends, false);
        for (End* end : ends) {
            end->status.look(end->top);
            if (end->resets.of_client()) continue;
            end->source.look(end->top);
            end->sink.look(end->top);
        }
        settle(ends, true);
    }
    void reset_some() {
        for (End* end : ends_) end->resets.step(may_lose_, (end == &a_ ? b_ : a_).resets);
        for (End* end : ends_) {
            end->resets.drive(end->top);
            end->harmed = end->resets.of_link() || (end->harmed && !end->status.up);
            if (!end->resets.of_client() && !end->harmed) continue;
            there_.ledger.reset(cycles_);
            back_.ledger.reset(cycles_);
        }
    }
    void settle(const Ends& ends, bool clock) {
        for (End* end : ends) {
            set_clock(end->top, clock);
            end->top.eval();
        }
#if VM_TRACE
        trace_.dump(context_.time());
#endif
        context_.timeInc(1);
    }

    // Nothing comes from the line meanwhile: the ends stay as they are.
    void read_registers() {
        for (size_t n = 0; n < REPORTED.size(); ++n) {
            for (size_t cycle = 0; cycle < READ_CYCLES; ++cycle) {
                for (End* end : ends_) {
                    end->top.rx_valid = 0;
                    end->top.s_axil_araddr = REPORTED[n].offset;
                    end->top.s_axil_arvalid = end->top.s_axil_rready = 1;
                }
                settle(ends_, false);
                // An answer to an earlier address may be under way: the last one counts.
                for (size_t end = 0; end < 2; ++end)
                    if (ends_[end]->top.s_axil_rvalid) read_[end][n] = ends_[end]->top.s_axil_rdata;
                settle(ends_, true);
            }
        }
    }

    // All packets have come and nothing after them, the window is over, or nothing comes any more.
    bool ended() {
        if (settings_.window_bytes && measured()) return true;
        const uint64_t words = total(&Sink::words);
        if (std::exchange(words_, words) != words) last_word_cycle_ = cycles_;
        const bool all = settings_.resets ? sent() : total(&Ledger::arrived) >= packets();
        return cycles_ - last_word_cycle_ >= (all ? settings_.settle_cycles : settings_.patience_cycles);
    }
    bool measured() {
        const Window now{cycles_, there_.fibre.counts().slots, b_.sink.bytes};
        if (now.payload_bytes < settings_.warm_up_bytes) return false;
        if (!std::exchange(warm_, true)) begin_ = now;
        window_ = {now.cycles - begin_.cycles, now.slots - begin_.slots, now.payload_bytes - begin_.payload_bytes};
        return window_.payload_bytes >= settings_.window_bytes;
    }

    Settings settings_;
    Direction there_{settings_, 0}, back_{settings_, 1};
    VerilatedContext context_;
    End a_{settings_, context_, 0, there_.ledger, back_.ledger};
    End b_{settings_, context_, 1, back_.ledger, there_.ledger};
    const Ends ends_{&a_, &b_};
#if VM_TRACE
    VerilatedVcdC trace_;
#endif
    uint64_t cycles_ = 0, words_ = 0, last_word_cycle_ = 0, drop_cycles_ = 0, narrow_cycles_ = 0;
    double b_ahead_ = 0;  // cycles by which the clock of end b is ahead, less those that it has had
    bool may_lose_ = true;
    Window begin_, window_;
    std::array<std::array<uint32_t, REPORTED.size()>, 2> read_{};
    bool warm_ = false;
    double seconds_ = 0;
};

}  // namespace
}  // namespace lightfabric

int main(int count, char** words) {
    lightfabric::Options options(count, words);
    lightfabric::Bench bench{lightfabric::Settings(options)};
    const bool clean = bench.run();
    bench.print();
    return clean ? 0 : 1;
}
