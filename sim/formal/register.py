"""The registers are proven here: every access of the bus is answered, once, soon and rightly."""

from amaranth import Cat, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib.wiring import In

from lightfabric.rtl.register import OKAY, SLVERR, Registers
from lightfabric.rtl.register_map import REGISTERS
from lightfabric.sim.formal.harness import Harness, Inside, counts, latched, was, within


class Accesses(Harness):
    """Puts the registers before a master that sends what it likes, when it likes, and keeps the rules of the bus.

    The books of the bus: a write is open from the cycle after its address, or its data, was taken until its answer was, a
    read from the cycle after its address was taken. A master lets an access go on in the cycles in which it takes an answer,
    and, while an address waits for data or data for an address, in those in which it offers what is missing.

    Members
    -------
    bus : In(AxiLiteSignature()), what the master sends
    inputs : In(input_layout(table))
    """

    def __init__(self, registers=Registers, table=REGISTERS):
        self.registers = registers(table)
        choices = ("awvalid", "awaddr", "wvalid", "wdata", "wstrb", "bready", "arvalid", "araddr", "rready")
        members = {name: In(getattr(self.registers.bus, name).shape()) for name in choices}
        super().__init__({**members, "inputs": In(self.registers.inputs.shape())})
        self.choices, self.table = choices, table

    def _prove(self, m):
        m.submodules.registers = self.registers
        self.inside, bus = Inside(self.registers), self.registers.bus
        m.d.comb += self.registers.inputs.eq(self.inputs)
        m.d.comb += [getattr(bus, name).eq(getattr(self, name)) for name in self.choices]
        self._keeps_rules(m, bus, "aw", ("awaddr",), Assume)
        self._keeps_rules(m, bus, "w", ("wdata", "wstrb"), Assume)
        self._keeps_rules(m, bus, "ar", ("araddr",), Assume)
        self._keeps_rules(m, bus, "b", ("bresp",), Assert)
        self._keeps_rules(m, bus, "r", ("rresp", "rdata"), Assert)
        self._write(m, bus)
        self._read(m, bus)

    def _keeps_rules(self, m, bus, channel: str, names, claim):
        """Assumes or asserts that what is offered stays until it is taken."""
        valid, ready = getattr(bus, f"{channel}valid"), getattr(bus, f"{channel}ready")
        waits = was(m, valid & ~ready, f"{channel}_waits")
        same = [was(m, getattr(bus, name), f"{name}_before") == getattr(bus, name) for name in names]
        m.d.comb += claim(~waits | (valid & Cat(same).all()), f"what is offered stays until it is taken ({channel})")

    def _write(self, m, bus):
        """Asserts that each write is answered, once, soon and by its address."""
        address_held, data_held = self.inside["address_held"], self.inside["data_held"]
        answered = bus.bvalid & bus.bready
        addresses = counts(m, bus.awvalid & bus.awready, answered, "addresses", 3)
        words = counts(m, bus.wvalid & bus.wready, answered, "words", 3)
        # A master that waits before it takes an answer, or offers half of a write, makes the write wait itself.
        may_go_on = (bus.bready | ~bus.bvalid) & (bus.awvalid | address_held) & (bus.wvalid | data_held)
        within(m, 2, may_go_on & ~answered, "write", "a write is answered in the second cycle that the master lets it go on")
        mapped, taken = self._oldest_address(m, bus, answered)
        m.d.comb += [
            Assert(self.inside["both_held"] == (address_held & data_held), "invariant: both halves of a write"),
            Assert((addresses == address_held + bus.bvalid) & (words == data_held + bus.bvalid), "one answer per write"),
            Assert(~bus.bvalid | ((addresses != 0) & (words != 0)), "no answer without an address and its data"),
            Assert(~bus.bvalid | (bus.bresp == Mux(mapped, OKAY, SLVERR)), "a write past the table is an error, no other"),
            Cover(answered & ~mapped & (addresses == 2) & (words == 2), "a write past the table, with the next behind it"),
            Cover(answered & mapped & taken, "a write after another one"),
        ]

    def _oldest_address(self, m, bus, answered):
        """Tells whether the oldest open write is to a register, and whether another was answered before."""
        held, current = Signal(name="held_mapped"), Signal(name="current_mapped")
        is_mapped = bus.awaddr[2:] < len(self.table)
        waiting, commit = self.inside["write_address"], self.inside["commit"]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += held.eq(is_mapped)
        # The address that is held becomes that of the answer when the write acts; the next one may come then.
        with m.If(commit):
            m.d.sync += current.eq(held)
        held_now = self.inside["address_held"]
        m.d.comb += Assert(~held_now | (held == (waiting < len(self.table))), "invariant: address of the write")
        return current, latched(m, answered, "answered_before")

    def _read(self, m, bus):
        """Asserts that each read is answered, once, soon and with what is at its address."""
        reading, grouped = self.inside["reading"], self.inside["grouped"]
        answered, taken = bus.rvalid & bus.rready, bus.arvalid & bus.arready
        reads = counts(m, taken, answered, "reads", 1)
        address = Signal.like(bus.araddr)
        with m.If(taken):
            m.d.sync += address.eq(bus.araddr)
        number, mapped = address[2:], address[2:] < len(self.table)
        read_address, read_mapped = self.inside["read_address"], self.inside["read_mapped"]
        is_first = bus.rvalid & (number == 0)
        may_go_on = (bus.arvalid | (reads != 0)) & (bus.rready | ~bus.rvalid)
        within(m, 3, may_go_on & ~answered, "read", "a read is answered in the third cycle that the master lets it go on")
        m.d.comb += [
            Assert(reads == reading + grouped + bus.rvalid, "one answer per read, one read at a time"),
            Assert(~bus.rvalid | (bus.rresp == Mux(mapped, OKAY, SLVERR)), "a read past the table is an error, no other"),
            Assert(~bus.rvalid | mapped | (bus.rdata == 0), "a read past the table shows nothing"),
            Assert(~is_first | (bus.rdata == self.table[0].reset), "the first register is what the link is"),
            Assert((reads == 0) | (read_address == number), "invariant: address of the read"),
            Assert(~grouped | (read_mapped == mapped), "invariant: the read is of a register"),
            Cover(answered & mapped & (bus.rdata != self.table[0].reset), "a register is read"),
            Cover(answered & ~mapped, "a read past the table is answered"),
        ]
