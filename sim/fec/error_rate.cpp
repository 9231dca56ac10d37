// Random codewords through encoder, line and decoder in C++; prints what the decoder made of the errors.
//
// Bits are inverted independently. Of the codewords with few errors only one in `thinning` goes through the hardware:
// the share of those that fail is not the question, but that none of them does. codec_shape.h is by sim/fec/error_rate.py.

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "Vcodec.h"
#include "codec_shape.h"
#include "verilated.h"

namespace {

constexpr size_t WORDS = (BEAT_BITS + 31) / 32;
using Words = std::vector<uint32_t>;  // a beat of the line, bit 0 first

template <class Port> void put(Port& port, const Words& words) {
    if constexpr (std::is_integral_v<Port>) {
        uint64_t value = words[0];
        if (WORDS > 1) value |= uint64_t(words[1]) << 32;
        port = value;
    } else {
        for (size_t at = 0; at < WORDS; at++) port[at] = words[at];
    }
}

template <class Port> Words get(const Port& port) {
    Words words(WORDS);
    if constexpr (std::is_integral_v<Port>) {
        for (size_t at = 0; at < WORDS; at++) words[at] = uint64_t(port) >> 32 * at;
    } else {
        for (size_t at = 0; at < WORDS; at++) words[at] = port[at];
    }
    return words;
}

struct Codeword {
    size_t errors = 0;
    std::vector<uint64_t> inverted;  // places of bits
};

// Draws the codewords of the line by the distances between their bit errors.
class Line {
public:
    Line(double ber, uint64_t seed) : random_(seed), payload_(~seed), distance_(ber) { next_ = distance_(random_); }
    Codeword codeword() {
        Codeword drawn;
        size_t symbol = SYMBOLS;
        for (; next_ < SYMBOLS * SYMBOL_BITS; next_ += 1 + distance_(random_)) {
            drawn.errors += next_ / SYMBOL_BITS != symbol;
            symbol = next_ / SYMBOL_BITS;
            drawn.inverted.push_back(next_);
        }
        next_ -= SYMBOLS * SYMBOL_BITS;
        return drawn;
    }
    Words data() {
        Words words(WORDS);
        for (auto& word : words) word = payload_();
        if (BEAT_BITS % 32) words.back() &= (1u << BEAT_BITS % 32) - 1;
        return words;
    }

private:
    std::mt19937_64 random_, payload_;  // two, so that the errors are the same whatever is simulated
    std::geometric_distribution<uint64_t> distance_;
    uint64_t next_;
};

struct Counts {
    uint64_t codewords = 0, simulated = 0, symbol_errors = 0, uncorrectable = 0, miscorrected = 0, failed = 0;
    std::vector<uint64_t> corrected = std::vector<uint64_t>(CORRECTABLE + 1);
};

// Drives the hardware beat by beat, and compares each codeword that leaves with what was sent.
class Codec {
public:
    explicit Codec(Counts& counts) : counts_(counts) { top_.mode = 0; }
    void send(const Codeword& codeword, Line& line) {
        errors_.push_back(codeword.errors);
        std::vector<Words> inverted(BEATS, Words(WORDS));
        for (const uint64_t place : codeword.inverted) {
            const size_t bit = place % BEAT_BITS;
            inverted[place / BEAT_BITS][bit / 32] ^= 1u << bit % 32;
        }
        for (size_t beat = 0; beat < BEATS; beat++) {
            put(top_.data, line.data());
            put(top_.errors, inverted[beat]);
            top_.valid = 1;
            top_.first = beat == 0;
            step();
        }
        top_.valid = 0;
    }
    void drain() {
        for (size_t waited = 0; !errors_.empty(); waited++) {
            if (waited > 10 * LATENCY) break;
            step();
        }
        counts_.failed += errors_.size();
    }

private:
    void step() {
        top_.clk = 0;
        top_.eval();
        if (top_.sent_valid) sent_.push_back(get(top_.sent));
        if (top_.o_valid) take();
        top_.clk = 1;
        top_.eval();
    }
    void take() {
        if (sent_.empty() || errors_.empty()) {
            counts_.failed++;
            return;
        }
        differs_ |= sent_.front() != get(top_.o_data);
        sent_.pop_front();
        if (!top_.last) return;
        const size_t errors = errors_.front();
        errors_.pop_front();
        if (top_.uncorrectable) {
            counts_.uncorrectable++;
            counts_.failed += errors <= CORRECTABLE;
        } else {
            counts_.miscorrected += differs_;
            counts_.failed += differs_ ? errors <= CORRECTABLE : top_.corrected != errors;
            if (!differs_) counts_.corrected[top_.corrected]++;
        }
        differs_ = false;
    }

    Vcodec top_;
    Counts& counts_;
    std::deque<Words> sent_;
    std::deque<size_t> errors_;
    bool differs_ = false;
};

double number(std::map<std::string, std::string>& options, const char* name) {
    auto found = options.extract(name);
    char* end = nullptr;
    const double value = found.empty() ? 0 : std::strtod(found.mapped().c_str(), &end);
    if (found.empty() || *end) {
        std::fprintf(stderr, "%s must be given as a number\n", name);
        std::exit(2);
    }
    return value;
}

}  // namespace

int main(int count, char** words) {
    std::map<std::string, std::string> options;
    for (int at = 1; at + 1 < count; at += 2) options[words[at]] = words[at + 1];
    const double ber = number(options, "ber");
    const uint64_t codewords = number(options, "codewords"), seed = number(options, "seed");
    const uint64_t thinning = number(options, "thinning"), few = number(options, "few");
    Counts counts;
    Line line(ber, seed);
    Codec codec(counts);
    uint64_t with_few = 0;
    while (counts.codewords < codewords) {
        const Codeword codeword = line.codeword();
        counts.codewords++;
        counts.symbol_errors += codeword.errors;
        if (codeword.errors <= few && with_few++ % thinning) continue;
        counts.simulated++;
        codec.send(codeword, line);
    }
    codec.drain();
    std::printf("{\"codewords\": %" PRIu64 ", \"simulated\": %" PRIu64 ", \"symbol_errors\": %" PRIu64, counts.codewords,
                counts.simulated, counts.symbol_errors);
    std::printf(", \"uncorrectable\": %" PRIu64 ", \"miscorrected\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"corrected\": [",
                counts.uncorrectable, counts.miscorrected, counts.failed);
    for (size_t at = 0; at <= CORRECTABLE; at++) std::printf("%s%" PRIu64, at ? ", " : "", counts.corrected[at]);
    std::printf("]}\n");
    return counts.failed != 0;
}
