// The verilated tuner on the plant, corner by corner; prints one JSON object.
//
// In a corner the rings' resonances are drawn: all are off by one systematic deviation, each by a local one. The tuner brings
// them up; then the ambient drifts up and down, or a line dies, or the heater of ring 0 fails and puts it on the line of the
// last ring. ring_bus_shape.h is by sim/photonic/tuner.py.

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "Vtuner.h"
#include "ring_bus.h"
#include "verilated.h"

namespace {

constexpr uint64_t ALL = RINGS == 64 ? ~0ull : (1ull << RINGS) - 1;
constexpr double QUARTER_GHZ = FWHM_GHZ / 4;  // so far from its line a ring still has 0.8 of the light

struct Job {
    std::map<std::string, double> given;
    double operator()(const char* name) const { return given.at(name); }
};

class Bench {
public:
    RingBus bus;
    RingBus::Codes codes{};
    uint64_t frames = 0, cycles = 0, alarms = 0;
    bool broken = false;  // ring 0 no longer heeds the tuner
    uint32_t broken_code = 0;

    explicit Bench(uint64_t seed) : bus(seed) {
        top_.rst = 1;
        cycle();
        top_.rst = 0;
    }
    void enable(uint64_t rings) { top_.enable = rings; }
    uint64_t locked() const { return top_.locked; }
    uint64_t failed() const { return top_.failed; }

    void frame() {
        if (broken) codes[0] = broken_code;
        bus.heat(codes);
        bus.shine();
        for (size_t ring = 0; ring < RINGS; ring++) {
            top_.i = ring | uint64_t(bus.sample(ring)) << RING_BITS;
            top_.i_valid = 1;
            cycle();
        }
        top_.i_valid = 0;
        // The last codes of the frame come three cycles behind the last samples.
        cycle();
        cycle();
        cycle();
        frames++;
    }
    // Runs until each ring is locked or failed and the tuner has been so for two periods; false if it is not within the bound.
    bool settle(uint64_t bound) {
        for (uint64_t end = frames + bound, calm = 0; frames < end;) {
            frame();
            calm = (locked() | failed()) == ALL ? calm + 1 : 0;
            if (calm == 1) settled_at = frames;
            if (calm == CALM_FRAMES) return true;
        }
        return false;
    }
    uint64_t settled_at = 0;

    // Rings that are locked and not alone on the line that is nearest to them, or farther than a quarter of a width from it.
    void judge(uint64_t& collisions, uint64_t& astray) const {
        std::array<int, RINGS> holders{};
        for (size_t ring = 0; ring < RINGS; ring++) {
            if (!(locked() >> ring & 1)) continue;
            double detuning_ghz;
            const size_t line = bus.nearest(ring, detuning_ghz);
            collisions += holders[line]++ > 0;
            astray += detuning_ghz > QUARTER_GHZ;
        }
    }
    double worst_ghz() const {
        double worst = 0;
        for (size_t ring = 0; ring < RINGS; ring++) {
            double detuning_ghz;
            bus.nearest(ring, detuning_ghz);
            if (locked() >> ring & 1) worst = std::max(worst, detuning_ghz);
        }
        return worst;
    }

private:
    Vtuner top_;
    void cycle() {
        top_.clk = 0;
        top_.eval();
        top_.clk = 1;
        top_.eval();
        cycles++;
        if (top_.o_valid) codes[top_.o & ((1u << RING_BITS) - 1)] = top_.o >> RING_BITS;
        alarms += __builtin_popcountll(top_.alarm);
    }
};

struct Results {
    std::map<std::string, std::vector<double>> lists;
    std::map<std::string, uint64_t> counts;
    void print() const {
        const char* comma = "{";
        for (const auto& [name, value] : counts) std::printf("%s\"%s\": %" PRIu64, comma, name.c_str(), value), comma = ", ";
        for (const auto& [name, values] : lists) {
            std::printf("%s\"%s\": [", comma, name.c_str());
            for (size_t n = 0; n < values.size(); n++) std::printf(n ? ", %.10g" : "%.10g", values[n]);
            std::printf("]");
            comma = ", ";
        }
        std::printf("}\n");
    }
};

// The ambient becomes warmer, as it was, colder and as it was, at a constant rate.
void drift(const Job& job, Bench& bench, Results& results) {
    const double step_c = job("drift_c_per_s") * FRAME_NS * 1e-9;
    const uint64_t alarms = bench.alarms;
    double worst_ghz = 0;
    for (const double way_c : {job("warmer_c"), -job("warmer_c"), -job("colder_c"), job("colder_c")}) {
        for (uint64_t n = 0; n < uint64_t(std::abs(way_c) / step_c); n++) {
            bench.bus.ambient_c += std::copysign(step_c, way_c);
            bench.frame();
            worst_ghz = std::max(worst_ghz, bench.worst_ghz());
        }
    }
    results.lists["drift_worst_ghz"].push_back(worst_ghz);
    results.counts["drift_alarms"] += bench.alarms - alarms;
    results.counts["drift_unlocked"] += __builtin_popcountll(ALL & ~bench.locked());
    bench.judge(results.counts["drift_collisions"], results.counts["drift_astray"]);
}

// Runs until a ring that has lost its light is no longer said to be locked, and returns the frames that this took.
double noticed(Bench& bench, size_t ring, uint64_t bound) {
    const uint64_t from = bench.frames;
    while ((bench.locked() >> ring & 1) && bench.frames < from + bound) bench.frame();
    return double(bench.frames - from);
}

void fault(const Job& job, Bench& bench, Results& results, std::mt19937_64& random) {
    const bool dies = job("fault") == 1;
    const size_t victim = dies ? random() % RINGS : RINGS - 1;
    double detuning_ghz;
    const size_t line = bench.bus.nearest(victim, detuning_ghz);
    if (dies) {
        bench.bus.lines_mw[line] = 0;
    } else {
        const double away_ghz = bench.bus.resonance_ghz[0] + bench.bus.shift_ghz[0] - bench.bus.lines_ghz[line];
        const double shift_ghz = std::fmod(std::fmod(away_ghz, FSR_GHZ) + FSR_GHZ, FSR_GHZ);
        bench.broken_code = uint32_t(shift_ghz * double(1ull << HEATER_BITS) / RANGE_GHZ);
        bench.broken = true;
    }
    results.lists["noticed_frames"].push_back(noticed(bench, victim, uint64_t(job("bound_frames"))));
    results.counts["fault_unsettled"] += !bench.settle(uint64_t(job("bound_frames")));
    results.lists["fault_locked"].push_back(__builtin_popcountll(bench.locked()));
    results.lists["fault_failed"].push_back(__builtin_popcountll(bench.failed()));
    bench.judge(results.counts["fault_collisions"], results.counts["fault_astray"]);
}

void corner(const Job& job, uint64_t number, Results& results) {
    std::mt19937_64 random(uint64_t(job("seed")) << 32 | number);
    Bench bench(random());
    std::normal_distribution<double> normal;
    const double systematic_ghz = job("systematic_ghz") * normal(random);
    for (size_t ring = 0; ring < RINGS; ring++) {
        bench.bus.cold_ghz[ring] = bench.bus.lines_ghz[ring] + systematic_ghz + job("local_ghz") * normal(random);
        results.lists["cold_ghz"].push_back(bench.bus.cold_ghz[ring]);
    }
    bench.enable(ALL);
    const bool settled = bench.settle(uint64_t(job("bound_frames")));
    results.lists["lock_frames"].push_back(settled ? double(bench.settled_at) : -1);
    results.counts["unlocked"] += __builtin_popcountll(ALL & ~bench.locked());
    results.counts["alarms"] += bench.alarms;
    bench.judge(results.counts["collisions"], results.counts["astray"]);
    results.lists["worst_ghz"].push_back(bench.worst_ghz());
    for (const double shift_ghz : bench.bus.shift_ghz) results.lists["shift_ghz"].push_back(shift_ghz);
    if (job("warmer_c") + job("colder_c") > 0) drift(job, bench, results);
    if (job("fault") > 0) fault(job, bench, results, random);
    results.counts["cycles"] += bench.cycles;
    results.counts["frames"] += bench.frames;
}

}  // namespace

int main(int argc, char** argv) {
    Job job;
    for (int at = 1; at + 1 < argc; at += 2) job.given[argv[at]] = std::strtod(argv[at + 1], nullptr);
    Results results;
    for (uint64_t number = 0; number < uint64_t(job("corners")); number++) corner(job, number, results);
    results.print();
    return 0;
}
