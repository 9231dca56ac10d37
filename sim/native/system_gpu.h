// A GPU as the task graph sees it, written from the contract of lightfabric.model.gpu and not from its code: operations
// that wait for each other, one computation at a time, transfers that take turns on the lanes.

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "system_shape.h"

namespace lightfabric {

using std::size_t, std::uint8_t, std::uint64_t;

constexpr uint64_t NEVER = ~uint64_t{0};
enum class Does { compute, send, ring, join };

struct Operation {
    size_t gpu = 0;
    Does does = Does::join;
    uint64_t cycles = 0, flits = 0, chunk_flits = 0, lanes = 0, address = 0;
    int channel = 0;
    size_t target = 0;
    uint64_t waiting = 0;
    std::vector<size_t> successors;
    uint64_t start = NEVER, finish = NEVER, sent = 0, received = 0;

    bool is_transfer() const { return (does == Does::send || does == Does::ring) && flits > 0; }
    // A member of a ring passes on a chunk when it has it, and begins with its own.
    uint64_t sendable() const {
        return does == Does::send ? flits : std::min(flits, (received / chunk_flits + 1) * chunk_flits);
    }
};

// All operations of a system, and which of them are ready on each GPU from which cycle on.
class Work {
public:
    Work(std::vector<Operation> operations, size_t gpus) : operations_(std::move(operations)), ready_(gpus) {
        for (size_t number = 0; number < operations_.size(); ++number) {
            if (operations_[number].waiting == 0) ready_[operations_[number].gpu].emplace(0, number);
        }
    }
    Operation& operator[](size_t number) { return operations_[number]; }
    const std::vector<Operation>& operations() const { return operations_; }
    bool done() const { return finished_ == operations_.size(); }

    void finish(size_t number, uint64_t now) {
        operations_[number].finish = now;
        ++finished_;
        for (const size_t after : operations_[number].successors) {
            if (--operations_[after].waiting == 0) ready_[operations_[after].gpu].emplace(now + 1, after);
        }
    }
    // Those that a GPU may begin now, the lowest number first.
    std::set<size_t> begin(size_t gpu, uint64_t now) {
        std::set<size_t> found;
        auto& ready = ready_[gpu];
        for (auto entry = ready.begin(); entry != ready.end() && entry->first <= now; entry = ready.erase(entry)) {
            found.insert(entry->second);
        }
        return found;
    }

private:
    std::vector<Operation> operations_;
    std::vector<std::multimap<uint64_t, size_t>> ready_;
    size_t finished_ = 0;
};

struct Flit {
    size_t target = 0;
    uint64_t number = 0, address = 0;
    size_t channel = 0;
};

class Gpu {
public:
    Gpu(Work& work, size_t number, std::array<size_t, PORTS> far_ports)
        : work_(work), number_(number), far_ports_(far_ports) {}

    // What happens in a cycle before anything is sent: operations begin, a computation ends, idle lanes get a flit.
    void step(uint64_t now) {
        for (const size_t number : work_.begin(number_, now)) begin(number, now);
        compute(now);
        choose();
    }
    const std::optional<Flit>& on_lane(size_t lane) const { return lanes_[lane].flit; }
    // The last word of the lane's flit was taken.
    void sent(size_t lane) { lanes_[lane].flit.reset(); }
    void receive(size_t target, uint64_t now) {
        Operation& operation = work_[target];
        if (++operation.received == operation.flits) work_.finish(target, now);
    }

private:
    struct Lane {
        std::optional<Flit> flit;
        size_t channel = 0;
    };

    void begin(size_t number, uint64_t now) {
        Operation& operation = work_[number];
        if (operation.does == Does::compute) {
            computations_.push_back(number);
            return;
        }
        operation.start = now;
        if (operation.is_transfer()) transfers_.push_back(number);
        else work_.finish(number, now);
    }
    void compute(uint64_t now) {
        while (!computations_.empty()) {
            Operation& operation = work_[computations_.front()];
            if (operation.start == NEVER) operation.start = now;
            if (operation.start + operation.cycles > now) return;
            work_.finish(computations_.front(), now);
            computations_.pop_front();
        }
    }
    // Each idle lane takes a flit of the first transfer that has one for it; those that were served go to the end.
    void choose() {
        std::deque<size_t> kept, served;
        for (const size_t number : transfers_) {
            Operation& operation = work_[number];
            const uint64_t before = operation.sent;
            for (size_t lane = 0; lane < PORTS; ++lane) {
                const bool fits = operation.lanes >> lane & 1 && !lanes_[lane].flit;
                if (fits && operation.sent < operation.sendable()) load(lanes_[lane], operation, far_ports_[lane]);
            }
            if (operation.sent < operation.flits) (operation.sent > before ? served : kept).push_back(number);
        }
        kept.insert(kept.end(), served.begin(), served.end());
        transfers_ = std::move(kept);
    }
    static void load(Lane& lane, Operation& operation, size_t far_port) {
        const size_t channel = operation.channel < 0 ? lane.channel : static_cast<size_t>(operation.channel);
        lane.flit = Flit{operation.target, operation.sent++, operation.address + far_port, channel};
        lane.channel = (channel + 1) % CHANNELS;
    }

    Work& work_;
    size_t number_;
    std::array<size_t, PORTS> far_ports_;
    std::array<Lane, PORTS> lanes_;
    std::deque<size_t> computations_, transfers_;
};

}  // namespace lightfabric
