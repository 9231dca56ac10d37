"""A bus decoder leads the accesses of one AXI4-Lite master to pages of registers.

The words of its two halves: address and data of a write are *held* until its answer is taken over; an access is *under way*
from when all of it is held until its page, which is *chosen*, has answered; of what a page has not taken yet, it is *owed*.
"""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.rtl.channel import one_hot_mux
from lightfabric.rtl.register import AxiLiteSignature
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS

DECERR = 3
"""There is nothing at the address [ARM IHI 0022E A3.4.4]."""


def bus_address_bits(pages: int) -> int:
    """Counts the bits of an address in so many pages."""
    return BUS_ADDRESS_BITS + (pages - 1).bit_length()


class BusDecoder(wiring.Component):
    """Gives each access of a master to the page that its address names, and the answer back.

    Page n has the addresses from ``n << BUS_ADDRESS_BITS`` on. One write and one read may be under way, and the address or
    data of the next write be taken once those before are answered. An access takes 4 cycles more than that of the page
    alone. One beyond the last page is answered with DECERR and reads as 0. From reset on nothing is under way.

    Members
    -------
    bus : In(AxiLiteSignature(address_bits))
    pages : Out(AxiLiteSignature()).array(count)
    """

    def __init__(self, count: int):
        if count < 1:
            raise ValueError(f"BusDecoder.count must be at least 1, not {count!r}")
        self.count, self.address_bits = count, bus_address_bits(count)
        super().__init__({"bus": In(AxiLiteSignature(self.address_bits)), "pages": Out(AxiLiteSignature()).array(count)})

    def elaborate(self, platform):
        m = Module()
        self._write(m)
        self._read(m)
        return m

    def _chosen(self, m, address):
        """Tells which page an address is in, as one bit of many, in the cycle after the address."""
        chosen = Signal(self.count)
        m.d.sync += chosen.eq(Cat(address[BUS_ADDRESS_BITS:] == n for n in range(self.count)))
        return chosen

    def _write(self, m):
        bus, address = self.bus, Signal(self.address_bits)
        address_held, data_held, begins = Signal(), Signal(), Signal()
        chosen, under_way, owed = self._chosen(m, address), Signal(), Signal(2)
        answered, response = self._answer(m, chosen, "b", under_way)
        data, strobes, protection = Signal.like(bus.wdata), Signal.like(bus.wstrb), Signal.like(bus.awprot)
        m.d.comb += [bus.awready.eq(~address_held), bus.wready.eq(~data_held)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [address_held.eq(1), address.eq(bus.awaddr), protection.eq(bus.awprot)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [data_held.eq(1), data.eq(bus.wdata), strobes.eq(bus.wstrb)]
        m.d.sync += begins.eq(address_held & data_held & ~bus.bvalid & ~under_way & ~begins)
        taken = []
        for n, page in enumerate(self.pages):
            m.d.comb += [
                page.awaddr.eq(address),
                page.awprot.eq(protection),
                page.awvalid.eq(owed[0] & chosen[n]),
                page.wdata.eq(data),
                page.wstrb.eq(strobes),
                page.wvalid.eq(owed[1] & chosen[n]),
            ]
            taken.append(chosen[n].replicate(2) & Cat(page.awready, page.wready))
        with m.If(begins):
            m.d.sync += [under_way.eq(1), owed.eq(0b11)]
        with m.Elif(under_way):
            m.d.sync += owed.eq(owed & ~one_hot_mux(chosen, taken))
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(answered):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(response)]
            m.d.sync += [under_way.eq(0), owed.eq(0), address_held.eq(0), data_held.eq(0)]

    def _read(self, m):
        bus, address, held, begins = self.bus, Signal(self.address_bits), Signal(), Signal()
        chosen, under_way, owed = self._chosen(m, address), Signal(), Signal()
        answered, response = self._answer(m, chosen, "r", under_way)
        protection = Signal.like(bus.arprot)
        m.d.comb += bus.arready.eq(~held)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [held.eq(1), address.eq(bus.araddr), protection.eq(bus.arprot)]
        m.d.sync += begins.eq(held & ~bus.rvalid & ~under_way & ~begins)
        for n, page in enumerate(self.pages):
            m.d.comb += [
                page.araddr.eq(address),
                page.arprot.eq(protection),
                page.arvalid.eq(owed & chosen[n]),
            ]
        with m.If(begins):
            m.d.sync += [under_way.eq(1), owed.eq(1)]
        with m.Elif(under_way):
            m.d.sync += owed.eq(owed & ~one_hot_mux(chosen, [page.arready for page in self.pages]))
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(answered):
            m.d.sync += [bus.rvalid.eq(1), bus.rresp.eq(response), under_way.eq(0), owed.eq(0), held.eq(0)]
            m.d.sync += bus.rdata.eq(one_hot_mux(chosen, [page.rdata for page in self.pages]))

    def _answer(self, m, chosen, channel: str, under_way):
        """Takes the answer of the page that was asked, or makes one where there is no page."""
        answered = Signal(name=f"{channel}_answered")
        valids, responses = ([getattr(page, f"{channel}{name}") for page in self.pages] for name in ("valid", "resp"))
        m.d.comb += answered.eq(under_way & (one_hot_mux(chosen, valids) | ~chosen.any()))
        m.d.comb += [getattr(page, f"{channel}ready").eq(under_way & chosen[n]) for n, page in enumerate(self.pages)]
        return answered, one_hot_mux(chosen, responses) | (~chosen.any()).replicate(2)
