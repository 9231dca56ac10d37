// The plant of sim/plant/ring_bus.py in C++, for native benches: the same light and heat, a frame at a time.
//
// ring_bus_shape.h is by RingBus.constants.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>

#include "ring_bus_shape.h"

class RingBus {
public:
    using PerRing = std::array<double, RINGS>;
    using Codes = std::array<uint32_t, RINGS>;

    PerRing cold_ghz{}, lines_ghz{}, lines_mw{}, shift_ghz{}, resonance_ghz{}, light_ua{};
    double ambient_c = 0, noise_ua = NOISE_UA;

    explicit RingBus(uint64_t seed) : random_(seed) {
        for (size_t line = 0; line < RINGS; line++) {
            lines_ghz[line] = (double(line) - (double(RINGS) - 1) / 2) * SPACING_GHZ;
            lines_mw[line] = LINE_MW;
        }
    }

    // Moves on by a frame in which the heaters are at these codes.
    void heat(const Codes& codes) {
        constexpr double CODES_PER_GHZ = double(1ull << HEATER_BITS) / RANGE_GHZ;
        for (size_t ring = 0; ring < RINGS; ring++)
            shift_ghz[ring] += (codes[ring] / CODES_PER_GHZ - shift_ghz[ring]) * WARM_SHARE;
    }

    // Works out resonances and currents as they are now.
    void shine() {
        // A sum over powers of the distance is two passes of a recursion, one along the bus and one back.
        double up = 0, down = 0;
        for (size_t ring = 0; ring < RINGS; ring++) {
            up = up * NEIGHBOUR + shift_ghz[ring];
            resonance_ghz[ring] = cold_ghz[ring] - DRIFT_GHZ_PER_C * ambient_c - up;
        }
        for (size_t ring = RINGS; ring-- > 0;) {
            resonance_ghz[ring] -= down;
            down = (down + shift_ghz[ring]) * NEIGHBOUR;
        }
        // The sine of a difference needs one sine and cosine per ring and per line only.
        const double per_ghz = M_PI / FSR_GHZ, sharp = 2 * FSR_GHZ / (M_PI * FWHM_GHZ);
        const double most = std::pow(10, -DROP_DB / 10), passes = std::pow(10, -THROUGH_DB / 10);
        PerRing sine, cosine, left = lines_mw;
        for (size_t line = 0; line < RINGS; line++) {
            sine[line] = sharp * std::sin(per_ghz * lines_ghz[line]);
            cosine[line] = sharp * std::cos(per_ghz * lines_ghz[line]);
        }
        for (size_t ring = 0; ring < RINGS; ring++) {
            const double s = std::sin(per_ghz * resonance_ghz[ring]), c = std::cos(per_ghz * resonance_ghz[ring]);
            double sum = 0;
            for (size_t line = 0; line < RINGS; line++) {
                const double chord = s * cosine[line] - c * sine[line], resonant = left[line] / (1 + chord * chord);
                sum += resonant;
                left[line] = passes * (left[line] - (1 - RESIDUE) * resonant);
            }
            light_ua[ring] = 1000 * RESPONSIVITY_A_PER_W * most * sum;
        }
    }

    // Converts the current of a ring.
    uint32_t sample(size_t ring) {
        const double noisy = light_ua[ring] + (noise_ua > 0 ? noise_ua * normal_(random_) : 0);
        const double code = std::floor(noisy / FULL_SCALE_UA * double(1u << ADC_BITS));
        return uint32_t(std::clamp(code, 0.0, double((1u << ADC_BITS) - 1)));
    }

    // The line nearest to a ring's resonance, by the circle of the FSR.
    size_t nearest(size_t ring, double& detuning_ghz) const {
        size_t best = 0;
        detuning_ghz = FSR_GHZ;
        for (size_t line = 0; line < RINGS; line++) {
            const double off = std::abs(std::remainder(resonance_ghz[ring] - lines_ghz[line], FSR_GHZ));
            if (off < detuning_ghz) detuning_ghz = off, best = line;
        }
        return best;
    }

private:
    std::mt19937_64 random_;
    std::normal_distribution<double> normal_;
};
