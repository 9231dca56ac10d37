// Resets of the ends at random times, of a link, of its client's clock domain or of both; and what the links say of themselves.

#pragma once

#include <algorithm>
#include <array>

#include "native_port.h"

namespace lightfabric {

constexpr size_t MAX_OFF_BITS = 13;  // an end is without power for up to as many cycles as so many bits count

// `rate` is per cycle. One in four resets comes in the wake of the one before, while the link trains or begins again, and one
// in four takes the other end with it. One in four is a power cycle, which takes longer than the far end needs to see it.
class Resets {
public:
    Resets(double rate, uint64_t seed, uint64_t stream) : rate_(rate), random_(seed, stream) {}

    void step(bool may_begin, Resets& other) {
        if (left_) --left_;
        if (!left_ && may_begin && (wake_ ? --wake_ == 0 : random_.chance(rate_))) {
            begin();
            if (random_.chance(0.25)) other.begin();
        }
    }
    void drive(Vlink& top) const {
        top.rst = of_link();
        top.client_rst = of_client();
    }
    bool of_link() const { return left_ && kind_ != CLIENT; }
    bool of_client() const { return left_ && kind_ != LINK; }

    uint64_t count = 0;

private:
    enum Kind { LINK, CLIENT, BOTH, POWER };

    void begin() {
        ++count;
        kind_ = static_cast<Kind>(random_.below(4));
        left_ = 1 + random_.below(kind_ == POWER ? uint64_t{1} << random_.below(MAX_OFF_BITS + 1) : 8);
        wake_ = random_.chance(0.25) ? 1 + random_.below(1 << random_.below(11)) : 0;
    }

    double rate_;
    Random random_;
    Kind kind_ = LINK;
    uint64_t left_ = 0, wake_ = 0;
};

// Reads the register `status` over and over.
class Status {
public:
    void drive(Vlink& top) {
        top.s_axil_araddr = STATUS_ADDRESS;
        top.s_axil_arvalid = top.s_axil_rready = 1;
    }
    void look(const Vlink& top) {
        if (top.rst) up = narrow = false;
        else if (top.s_axil_rvalid) {
            up = top.s_axil_rdata >> STATUS_UP & 1;
            narrow = up && (top.s_axil_rdata >> STATUS_LANES & 3);
        }
    }
    bool up = false, narrow = false;  // as read last, some cycles late; narrow is up on fewer lanes than wavelengths
};

}  // namespace lightfabric
