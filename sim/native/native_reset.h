// Resets of one end at random times: of its link, of its client's clock domain, or of both.

#pragma once

#include "native_port.h"

namespace lightfabric {

// `rate` is per cycle. One in four resets comes in the wake of the one before, while the link trains or begins again.
class Resets {
public:
    Resets(double rate, uint64_t seed, uint64_t stream) : rate_(rate), random_(seed, stream) {}

    // Drives the resets of a cycle; true if one is on.
    bool step(Vlink& top, bool may_begin) {
        if (left_) --left_;
        if (!left_ && may_begin && (wake_ ? --wake_ == 0 : random_.chance(rate_))) begin();
        top.rst = left_ && kind_ != CLIENT;
        top.client_rst = of_client();
        return left_;
    }
    bool of_client() const { return left_ && kind_ != LINK; }

    uint64_t count = 0;

private:
    enum Kind { LINK, CLIENT, BOTH };

    void begin() {
        ++count;
        kind_ = static_cast<Kind>(random_.below(3));
        left_ = 1 + random_.below(8);
        wake_ = random_.chance(0.25) ? 1 + random_.below(1 << random_.below(11)) : 0;
    }

    double rate_;
    Random random_;
    Kind kind_ = LINK;
    uint64_t left_ = 0, wake_ = 0;
};

}  // namespace lightfabric
