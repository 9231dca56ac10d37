// Verilated chiplets joined by fibres, a GPU at each, in one clock; runs the operations of a task graph and prints when.
//
// A cycle: the fibres bring what the transmitters showed, the GPUs decide and drive their words, the clock falls and all
// settles, the GPUs look at the handshakes, the clock rises. system_shape.h is by sim/system.py, and so is what is read.

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "Vnode.h"
#include "system_gpu.h"

namespace lightfabric {
namespace {

constexpr size_t RESET_CYCLES = 16;
constexpr unsigned SYNC_MASK = 0b11, SYNC_DATA = 0b10;
constexpr size_t WORDS_PER_FLIT = (PAYLOAD_BYTES + WORD_BYTES - 1) / WORD_BYTES;
using Payload = std::array<uint8_t, PAYLOAD_BYTES>;

template <class Port>
void put_bits(Port& port, size_t place, size_t bits, uint64_t value) {
    auto* words = reinterpret_cast<uint8_t*>(&port);
    for (size_t n = 0; n < bits; ++n, ++place) {
        const uint8_t mask = static_cast<uint8_t>(1u << place % 8);
        words[place / 8] = static_cast<uint8_t>((words[place / 8] & ~mask) | (value >> n & 1 ? mask : 0));
    }
}

template <class Port>
bool bit(const Port& port, size_t place) {
    return reinterpret_cast<const uint8_t*>(&port)[place / 8] >> place % 8 & 1;
}

// The operation, the number of the flit in its transfer, and bytes that follow from both.
Payload content(const Flit& flit) {
    Payload bytes{};
    const uint64_t words[] = {flit.target | flit.number << 32, (flit.target + 1) * 0x9E3779B97F4A7C15u ^ flit.number};
    for (size_t n = 0; n < PAYLOAD_BYTES; ++n) bytes[n] = static_cast<uint8_t>((words[n >= 8] >> n % 8 * 8) + n / 16 * 16);
    return bytes;
}

class Fibre {
public:
    explicit Fibre(size_t delay_cycles) : in_flight_(delay_cycles) {}

    void step(uint64_t now, Vnode& from, size_t from_port, Vnode& to, size_t to_port) {
        Beat beat;
        if ((beat.valid = tx_valid(from, from_port))) {
            for (size_t lane = 0; lane < WAVELENGTHS; ++lane) beat.blocks[lane] = tx_block(from, from_port * WAVELENGTHS + lane);
            if (frame_beat_ == NEVER && (beat.blocks[0][0] & SYNC_MASK) == SYNC_DATA) frame_beat_ = beats_;
            ++beats_;
        }
        if (!in_flight_.empty()) std::swap(beat, in_flight_[now % in_flight_.size()]);
        rx_valid(to, to_port) = beat.valid;
        if (!beat.valid) return;
        for (size_t lane = 0; lane < WAVELENGTHS; ++lane) rx_block(to, to_port * WAVELENGTHS + lane) = beat.blocks[lane];
    }
    // The first beat of a slot, of all beats from reset on.
    uint64_t frame_beat() const { return frame_beat_; }

private:
    struct Beat {
        bool valid = false;
        std::array<std::decay_t<decltype(Vnode::tx___05F0___05Fblocks___05F0)>, WAVELENGTHS> blocks;
    };
    std::vector<Beat> in_flight_;
    uint64_t beats_ = 0, frame_beat_ = NEVER;
};

struct Cable {
    size_t gpu, port;
    Fibre fibre;
};

// What a GPU says to one port of its chiplet, word by word.
class Lane {
public:
    void drive(Vnode& top, size_t port, const std::optional<Flit>& flit) {
        i_valid(top, port) = flit.has_value();
        if (!flit) return;
        if (word_ == 0) payload_ = content(*flit);
        const size_t begin = word_ * WORD_BYTES, bytes = std::min(WORD_BYTES, PAYLOAD_BYTES - begin);
        auto& word = i_payload(top, port);
        std::memset(static_cast<void*>(&word), 0, sizeof word);
        std::memcpy(static_cast<void*>(&word), &payload_[begin], bytes);
        for (size_t n = 0; n < bytes; ++n) put_bits(word, WORD_KEEP + n, 1, 1);
        put_bits(word, WORD_LAST, 1, word_ == WORDS_PER_FLIT - 1);
        put_bits(word, WORD_DEST, ADDRESS_BITS, flit->address);
        put_bits(word, WORD_USER, USER_BITS, flit->channel);
    }
    // True if the last word was taken.
    bool is_sent(Vnode& top, size_t port) {
        if (!i_valid(top, port) || !i_ready(top, port)) return false;
        word_ = word_ + 1 == WORDS_PER_FLIT ? 0 : word_ + 1;
        return word_ == 0;
    }
    // True if the last word of a flit has come.
    bool has_come(Vnode& top, size_t port) {
        if (!o_valid(top, port)) return false;
        const size_t begin = come_ * WORD_BYTES;
        if (begin >= PAYLOAD_BYTES) throw std::runtime_error("a packet is longer than it was sent");
        std::memcpy(&received_[begin], &o_payload(top, port), std::min(WORD_BYTES, PAYLOAD_BYTES - begin));
        ++come_;
        if (!bit(o_payload(top, port), DELIVERED_LAST)) return false;
        if (std::exchange(come_, 0) != WORDS_PER_FLIT) throw std::runtime_error("a packet is shorter than it was sent");
        return true;
    }
    Flit received() const {
        Flit flit;
        for (size_t n = 0; n < 4; ++n) {
            flit.target |= size_t{received_[n]} << 8 * n;
            flit.number |= uint64_t{received_[4 + n]} << 8 * n;
        }
        if (content(flit) != received_) throw std::runtime_error("a packet is not as it was sent");
        return flit;
    }

private:
    Payload payload_{}, received_{};
    size_t word_ = 0, come_ = 0;
};

// A chiplet, its GPU, and the cables that begin here.
struct Place {
    Place(VerilatedContext& context, Work& work, size_t number, std::vector<Cable> begins)
        : top(&context), gpu(work, number, far_ports(begins)), cables(std::move(begins)) {}

    static std::array<size_t, PORTS> far_ports(const std::vector<Cable>& cables) {
        std::array<size_t, PORTS> ports;
        for (size_t port = 0; port < PORTS; ++port) ports[port] = cables[port].port;
        return ports;
    }

    Vnode top;
    Gpu gpu;
    std::vector<Cable> cables;
    std::array<Lane, PORTS> lanes;
};

class Bench {
public:
    explicit Bench(std::istream& text) {
        size_t gpus = 0, routes = 0, operations = 0;
        text >> bound_cycles_ >> gpus >> routes >> operations;
        if (!text || routes > ROUTES) throw std::runtime_error("the text must have no more routes than the node");
        std::vector<std::vector<Cable>> cables(gpus);
        std::vector<std::vector<size_t>> tables(gpus, std::vector<size_t>(routes));
        for (size_t here = 0; here < gpus; ++here) {
            for (size_t port = 0; port < PORTS; ++port) {
                size_t gpu = 0, far_port = 0, delay_cycles = 0;
                text >> gpu >> far_port >> delay_cycles;
                cables[here].push_back({gpu, far_port, Fibre(delay_cycles)});
            }
            for (size_t& route : tables[here]) text >> route;
        }
        work_ = std::make_unique<Work>(read_operations(text, operations), gpus);
        for (size_t here = 0; here < gpus; ++here) {
            places_.push_back(std::make_unique<Place>(context_, *work_, here, std::move(cables[here])));
            for (size_t d = 0; d < routes; ++d) put_bits(places_[here]->top.routes, d * ROUTE_BITS, ROUTE_BITS, tables[here][d]);
            for (size_t port = 0; port < PORTS; ++port) o_ready(places_[here]->top, port) = 1;
        }
    }

    // Simulate from reset until all operations have finished; false if that does not happen within the bound.
    bool run() {
        for (auto& place : places_) place->top.rst = 1;
        for (size_t cycle = 0; cycle < RESET_CYCLES; ++cycle) clock();
        for (auto& place : places_) place->top.rst = 0;
        for (; now_ < bound_cycles_ && !work_->done(); ++now_) step();
        return work_->done();
    }

    void print() const {
        std::printf("{\"cycles\": %" PRIu64 ", \"start\": ", now_);
        print_each(&Operation::start);
        std::printf(", \"finish\": ");
        print_each(&Operation::finish);
        std::printf(", \"frame_beats\": [");
        for (size_t here = 0; here < places_.size(); ++here) {
            for (size_t port = 0; port < PORTS; ++port) {
                print_number(here + port > 0, places_[here]->cables[port].fibre.frame_beat());
            }
        }
        std::printf("]}\n");
    }

private:
    static std::vector<Operation> read_operations(std::istream& text, size_t count) {
        std::vector<Operation> operations(count);
        for (Operation& it : operations) {
            int does = 0;
            size_t successors = 0;
            text >> it.gpu >> does >> it.cycles >> it.flits >> it.chunk_flits >> it.lanes >> it.address >> it.channel;
            text >> it.target >> it.waiting >> successors;
            it.does = static_cast<Does>(does);
            it.successors.resize(successors);
            for (size_t& after : it.successors) text >> after;
        }
        if (!text) throw std::runtime_error("the text must have as many numbers as it says");
        return operations;
    }
    static void print_number(bool follows, uint64_t value) {
        std::printf("%s%" PRId64, follows ? ", " : "", value == NEVER ? int64_t{-1} : static_cast<int64_t>(value));
    }
    void print_each(uint64_t Operation::*field) const {
        std::printf("[");
        for (const Operation& operation : work_->operations()) print_number(&operation != &work_->operations()[0], operation.*field);
        std::printf("]");
    }
    void clock() {
        for (const bool level : {false, true}) settle(level);
    }
    void settle(bool level) {
        for (auto& place : places_) {
            place->top.clk = level;
            place->top.eval();
        }
        context_.timeInc(1);
    }
    void step() {
        for (auto& place : places_) {
            for (size_t port = 0; port < PORTS; ++port) {
                Cable& cable = place->cables[port];
                cable.fibre.step(now_, place->top, port, places_[cable.gpu]->top, cable.port);
            }
        }
        for (auto& place : places_) {
            place->gpu.step(now_);
            for (size_t port = 0; port < PORTS; ++port) place->lanes[port].drive(place->top, port, place->gpu.on_lane(port));
        }
        settle(false);
        for (auto& place : places_) {
            for (size_t port = 0; port < PORTS; ++port) {
                Lane& lane = place->lanes[port];
                if (lane.is_sent(place->top, port)) place->gpu.sent(port);
                if (lane.has_come(place->top, port)) place->gpu.receive(lane.received().target, now_);
            }
        }
        settle(true);
    }

    VerilatedContext context_;
    std::unique_ptr<Work> work_;
    std::vector<std::unique_ptr<Place>> places_;
    uint64_t now_ = 0, bound_cycles_ = 0;
};

}  // namespace
}  // namespace lightfabric

int main(int count, char** words) {
    if (count != 2) {
        std::fprintf(stderr, "a file with the system must be given\n");
        return 2;
    }
    try {
        std::ifstream text(words[1]);
        lightfabric::Bench bench(text);
        const bool done = bench.run();
        bench.print();
        return done ? 0 : 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
