// The master of a chiplet's register bus: it reads the status of each link over and over, and holds links down.

#pragma once

#include <array>

#include "native_port.h"

namespace lightfabric {

class Master {
public:
    explicit Master(size_t chiplet) : chiplet_(chiplet) {}

    // The registers enable all links again.
    void reset() {
        address_due_ = data_due_ = writing_ = reading_ = read_due_ = false;
        up_.fill(false);
        enabled_.fill(true);
    }
    void enable(size_t port, bool on) { wanted_[port] = on; }
    // As read last, some cycles late.
    bool all_up() const {
        for (size_t port = 0; port < PORTS; ++port)
            if (USED_LINES[chiplet_] >> port & 1 && !(up_[port] && enabled_[port] && wanted_[port])) return false;
        return true;
    }

    void drive(Vsoak& top) {
        if (!writing_) begin_write(top);
        if (!reading_) begin_read(top);
        bus_awvalid(top, chiplet_) = address_due_;
        bus_wvalid(top, chiplet_) = data_due_;
        bus_arvalid(top, chiplet_) = read_due_;
        bus_bready(top, chiplet_) = bus_rready(top, chiplet_) = 1;
    }
    void look(Vsoak& top) {
        if (address_due_ && bus_awready(top, chiplet_)) address_due_ = false;
        if (data_due_ && bus_wready(top, chiplet_)) data_due_ = false;
        if (read_due_ && bus_arready(top, chiplet_)) read_due_ = false;
        if (bus_bvalid(top, chiplet_)) {
            errors += !writing_ || address_due_ || data_due_ || bus_bresp(top, chiplet_);
            enabled_[written_] = value_;
            writing_ = false;
        }
        if (bus_rvalid(top, chiplet_)) {
            errors += !reading_ || read_due_ || bus_rresp(top, chiplet_);
            up_[read_] = bus_rdata(top, chiplet_) >> STATUS_UP & 1;
            read_ = (read_ + 1) % PORTS;
            reading_ = false;
        }
    }

    uint64_t errors = 0;

private:
    void begin_write(Vsoak& top) {
        for (size_t port = 0; port < PORTS; ++port) {
            if (wanted_[port] == enabled_[port]) continue;
            written_ = port;
            value_ = wanted_[port];
            // A link that is disabled was not up since.
            if (!value_) up_[port] = false;
            address_due_ = data_due_ = writing_ = true;
            bus_awaddr(top, chiplet_) = port * PAGE_BYTES + CONTROL_ADDRESS;
            bus_wdata(top, chiplet_) = value_;
            bus_wstrb(top, chiplet_) = 0xF;
            return;
        }
    }
    void begin_read(Vsoak& top) {
        bus_araddr(top, chiplet_) = read_ * PAGE_BYTES + STATUS_ADDRESS;
        reading_ = read_due_ = true;
    }
    static std::array<bool, PORTS> all(bool value) {
        std::array<bool, PORTS> bits;
        bits.fill(value);
        return bits;
    }

    size_t chiplet_, written_ = 0, read_ = 0;
    std::array<bool, PORTS> up_{}, enabled_ = all(true), wanted_ = all(true);
    bool value_ = true, address_due_ = false, data_due_ = false, writing_ = false, reading_ = false, read_due_ = false;
};

}  // namespace lightfabric
