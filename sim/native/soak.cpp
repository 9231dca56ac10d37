// Chiplets joined by fibres, of which clients, chiplets and links are reset, fibres go dark and sources stall, at random.
//
// A round has a time of harm and a calm. In the calm all links come up, sources send, then stop, and all that was begun after
// the links came up must arrive whole. Whenever a packet arrives it must be whole, or say that it is not.

#include <algorithm>
#include <array>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "soak_bus.h"
#include "soak_client.h"

namespace lightfabric {
namespace {

constexpr uint64_t HARM_CYCLES = 2000, UP_BOUND_CYCLES = 20000, SETTLE_CYCLES = 64, CALM_CYCLES = 1200;
constexpr uint64_t MOVE_CYCLES = 1000;                     // within so many each virtual channel must move
constexpr uint64_t QUIET_CYCLES = 600, DRAIN_BOUND_CYCLES = 20000;
constexpr size_t MAX_DARK_BITS = 12;                       // darkness and disabling last up to as many cycles as so many bits count
constexpr uint64_t MAX_RESET_CYCLES = 8, WAKE_CYCLES = 64;  // a neighbour's reset comes so soon

enum Harm { CLIENT, CHIPLET, LINK, DARK, STALL, HARMS };
constexpr std::array<double, HARMS> ODDS{0.40, 0.25, 0.10, 0.10, 0.15};

struct Settings {
    uint64_t rounds, harms, seed;
    double stalls;
};

class Bench {
public:
    explicit Bench(const Settings& settings) : settings_(settings), random_(settings.seed, 1) {
        for (size_t address = 0; address < CLIENTS; ++address) {
            sources_.emplace_back(address, judge_, settings.stalls, settings.seed);
            sinks_.emplace_back(address, judge_, settings.stalls, settings.seed);
        }
        for (size_t chiplet = 0; chiplet < CHIPLETS; ++chiplet) masters_.emplace_back(chiplet);
    }

    void run() {
        const auto begin = std::chrono::steady_clock::now();
        for (uint64_t& left : chiplet_reset_) left = 2 * MAX_RESET_CYCLES;
        for (uint64_t& left : client_reset_) left = 2 * MAX_RESET_CYCLES;
        for (; rounds_ < settings_.rounds && ok(); ++rounds_) round();
        seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    bool ok() const {
        return never_up_ + not_moved_ + judge_.headless + judge_.glued + judge_.truncated + judge_.astray + judge_.disordered
                   + protocol_errors() + bus_errors() + judge_.lost() == 0;
    }
    void print() const {
        const std::vector<std::pair<const char*, uint64_t>> counts{
            {"rounds", rounds_}, {"cycles", now_}, {"packets", judge_.begun()}, {"whole", judge_.whole},
            {"broken", judge_.broken}, {"headless", judge_.headless}, {"glued", judge_.glued},
            {"truncated", judge_.truncated}, {"astray", judge_.astray}, {"disordered", judge_.disordered},
            {"lost", judge_.lost()}, {"never_up", never_up_}, {"not_moved", not_moved_}, {"slowest_cycles", slowest_},
            {"protocol_errors", protocol_errors()}, {"bus_errors", bus_errors()}, {"client_resets", harmed_[CLIENT]},
            {"chiplet_resets", harmed_[CHIPLET]}, {"link_resets", harmed_[LINK]}, {"darks", harmed_[DARK]},
            {"stalls", harmed_[STALL]}, {"seed", settings_.seed},
        };
        std::printf("{");
        for (const auto& [name, value] : counts) std::printf("\"%s\": %" PRIu64 ", ", name, value);
        std::printf("\"cycles_per_s\": %.1f}\n", static_cast<double>(now_) / seconds_);
    }

private:
    uint64_t protocol_errors() const {
        uint64_t count = 0;
        for (const Sink& sink : sinks_) count += sink.protocol_errors;
        return count;
    }
    uint64_t bus_errors() const {
        uint64_t count = 0;
        for (const Master& master : masters_) count += master.errors;
        return count;
    }
    uint64_t words() const {
        uint64_t count = 0;
        for (const Sink& sink : sinks_) count += sink.words;
        return count;
    }

    void round() {
        may_begin_ = true;
        must_arrive_ = false;
        for (uint64_t cycle = 0; cycle < HARM_CYCLES; ++cycle) {
            if (random_.chance(static_cast<double>(settings_.harms) / HARM_CYCLES)) harm();
            step();
        }
        end_harm();
        if (!come_up()) return void(++never_up_);
        must_arrive_ = true;
        calm();
        drain();
    }
    void harm() {
        double left = random_.unit();
        size_t kind = 0;
        while (kind + 1 < HARMS && left >= ODDS[kind]) left -= ODDS[kind++];
        ++harmed_[kind];
        const uint64_t reset_cycles = 1 + random_.below(MAX_RESET_CYCLES);
        const uint64_t long_cycles = 1 + random_.below(uint64_t{1} << random_.below(MAX_DARK_BITS + 1));
        const size_t client = random_.below(CLIENTS), chiplet = random_.below(CHIPLETS), port = random_.below(PORTS);
        switch (kind) {
        case CLIENT: client_reset_[client] = reset_cycles; break;
        case CHIPLET:
            chiplet_reset_[chiplet] = reset_cycles;
            // One in four in the wake of its neighbour's, or together with it.
            if (chiplet + 1 < CHIPLETS && random_.chance(0.25)) wakes_.push_back({now_ + random_.below(WAKE_CYCLES), chiplet + 1});
            break;
        case LINK:
            masters_[chiplet].enable(port, false);
            disabled_[chiplet][port] = long_cycles;
            break;
        case DARK: dark_[random_.below(FIBRES)] = long_cycles; break;
        default: sources_[client].pause(random_.below(2 * STALL_CYCLES)); break;
        }
    }
    void end_harm() {
        for (auto& ports : disabled_) ports.fill(0);
        for (Master& master : masters_)
            for (size_t port = 0; port < PORTS; ++port) master.enable(port, true);
        dark_.fill(0);
        for (Source& source : sources_) source.pause(0);
    }
    // All links are up for some time, as the registers tell.
    bool come_up() {
        uint64_t settled = 0;
        for (uint64_t cycle = 0; cycle < UP_BOUND_CYCLES; ++cycle) {
            step();
            bool up = wakes_.empty();
            for (const Master& master : masters_) up &= master.all_up();
            settled = up ? settled + 1 : 0;
            if (settled == SETTLE_CYCLES) return true;
        }
        return false;
    }
    // Notes how long the slowest virtual channel of any client took to move.
    void calm() {
        const uint64_t begin = now_;
        std::array<std::array<bool, CHANNELS>, CLIENTS> moved{};
        while (now_ < begin + CALM_CYCLES) {
            step();
            for (size_t client = 0; client < CLIENTS; ++client) {
                for (size_t channel = 0; channel < CHANNELS; ++channel) {
                    if (moved[client][channel] || sinks_[client].moved[channel] < begin) continue;
                    moved[client][channel] = true;
                    slowest_ = std::max(slowest_, now_ - begin);
                    not_moved_ += now_ - begin > MOVE_CYCLES;
                }
            }
        }
        for (const auto& client : moved)
            for (const bool has_moved : client) not_moved_ += !has_moved;
    }
    void drain() {
        may_begin_ = false;
        uint64_t last = now_, seen = words();
        for (const uint64_t bound = now_ + DRAIN_BOUND_CYCLES; now_ < bound && now_ < last + QUIET_CYCLES;) {
            step();
            if (std::exchange(seen, words()) != seen) last = now_;
        }
    }

    void step() {
        for (size_t n = 0; n < wakes_.size();) {
            if (wakes_[n].first > now_) {
                ++n;
                continue;
            }
            chiplet_reset_[wakes_[n].second] = 1 + random_.below(MAX_RESET_CYCLES);
            ++harmed_[CHIPLET];
            wakes_.erase(wakes_.begin() + n);
        }
        for (size_t fibre = 0; fibre < FIBRES; ++fibre) dark(*top_, fibre) = dark_[fibre] && dark_[fibre]--;
        for (size_t chiplet = 0; chiplet < CHIPLETS; ++chiplet) drive_chiplet(chiplet);
        for (size_t client = 0; client < CLIENTS; ++client) drive_client(client);
        settle(false);
        for (size_t chiplet = 0; chiplet < CHIPLETS; ++chiplet)
            if (!chiplet_rst(*top_, chiplet)) masters_[chiplet].look(*top_);
        for (size_t client = 0; client < CLIENTS; ++client) {
            if (client_rst(*top_, client)) continue;
            sources_[client].look(*top_);
            sinks_[client].look(*top_, now_);
        }
        settle(true);
        ++now_;
    }
    void drive_chiplet(size_t chiplet) {
        for (size_t port = 0; port < PORTS; ++port) {
            uint64_t& left = disabled_[chiplet][port];
            if (left && --left == 0) masters_[chiplet].enable(port, true);
        }
        const bool resets = chiplet_reset_[chiplet] && chiplet_reset_[chiplet]--;
        chiplet_rst(*top_, chiplet) = resets;
        if (resets) masters_[chiplet].reset();
        masters_[chiplet].drive(*top_);
    }
    void drive_client(size_t client) {
        const bool resets = client_reset_[client] && client_reset_[client]--;
        client_rst(*top_, client) = resets;
        if (resets) {
            sources_[client].reset();
            sinks_[client].reset();
            s_tvalid(*top_, client) = m_tready(*top_, client) = 0;
            return;
        }
        sources_[client].drive(*top_, may_begin_, must_arrive_);
        sinks_[client].drive(*top_);
    }
    void settle(bool clock) {
        top_->clk = clock;
        top_->eval();
        context_.timeInc(1);
    }

    Settings settings_;
    Random random_;
    VerilatedContext context_;
    std::unique_ptr<Vsoak> top_ = std::make_unique<Vsoak>(&context_);
    Judge judge_;
    std::vector<Source> sources_;
    std::vector<Sink> sinks_;
    std::vector<Master> masters_;
    std::array<uint64_t, CLIENTS> client_reset_{};
    std::array<uint64_t, CHIPLETS> chiplet_reset_{};
    std::array<std::array<uint64_t, PORTS>, CHIPLETS> disabled_{};
    std::array<uint64_t, FIBRES> dark_{};
    std::vector<std::pair<uint64_t, size_t>> wakes_;
    std::array<uint64_t, HARMS> harmed_{};
    uint64_t now_ = 0, rounds_ = 0, never_up_ = 0, not_moved_ = 0, slowest_ = 0;
    bool may_begin_ = true, must_arrive_ = false;
    double seconds_ = 0;
};

}  // namespace
}  // namespace lightfabric

int main(int count, char** words) {
    if (count != 5) {
        std::fprintf(stderr, "rounds, harms, seed and stalls must be given\n");
        return 2;
    }
    const auto number = [&](int at) { return std::strtoull(words[at], nullptr, 10); };
    lightfabric::Bench bench({number(1), number(2), number(3), std::strtod(words[4], nullptr)});
    bench.run();
    bench.print();
    return bench.ok() ? 0 : 1;
}
