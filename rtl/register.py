"""Registers are built from a table of them, behind an AXI4-Lite slave.

The words of the bus side: address and data of a write are *held* until both are there and the answer before is gone; then it
*commits*, acts and is answered. A read is *reading*, when the word within each group is chosen, then *grouped*, when the
group is; an access is *mapped* if its address is that of a register.
"""

from collections.abc import Iterable

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.rtl.channel import one_hot_mux
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, REGISTERS, WORD_BITS, WORD_BYTES, Field, Register, Table, verify

OKAY, SLVERR = 0, 2
"""The slave gives these responses [ARM IHI 0022E A3.4.4]."""
GROUP_WORDS = 8
"""The first of two steps of a read chooses among so many words."""


class AxiLiteSignature(wiring.Signature):
    """Carries AXI4-Lite with 32-bit data, as the master sees it [ARM IHI 0022E part B].

    Addresses have ``address_bits``, by default those of one page of registers.

    Members
    -------
    awvalid, awaddr, awprot, wvalid, wdata, wstrb, bready, arvalid, araddr, arprot, rready : Out
    awready, wready, bvalid, bresp, arready, rvalid, rdata, rresp : In
    """

    def __init__(self, address_bits: int = BUS_ADDRESS_BITS):
        super().__init__(
            {
                "awvalid": Out(1),
                "awready": In(1),
                "awaddr": Out(address_bits),
                "awprot": Out(3),
                "wvalid": Out(1),
                "wready": In(1),
                "wdata": Out(WORD_BITS),
                "wstrb": Out(WORD_BYTES),
                "bvalid": In(1),
                "bready": Out(1),
                "bresp": In(2),
                "arvalid": Out(1),
                "arready": In(1),
                "araddr": Out(address_bits),
                "arprot": Out(3),
                "rvalid": In(1),
                "rready": Out(1),
                "rdata": In(WORD_BITS),
                "rresp": In(2),
            }
        )


def input_layout(table: Table) -> data.StructLayout:
    """Lays out what the block is told: a member per field of kind status, event or count."""
    return data.StructLayout({f.name: f.input_bits for register in table for f in register.fields if f.input_bits})


def control_layout(table: Table) -> data.StructLayout:
    """Lays out what the block tells: a member per field of kind control or pulse."""
    return data.StructLayout({f.name: f.output_bits for register in table for f in register.fields if f.output_bits})


def _control_init(table: Table) -> dict[str, int]:
    """Gives the outputs as they are after reset."""
    return {field.name: field.reset for register in table for field in register.fields if field.output_bits}


class Registers(wiring.Component):
    """Puts the registers of a table behind an AXI4-Lite slave, with the hardware that each field needs.

    Address and data of a write may come in any order. A write acts in the cycle after both were taken, or after the answer
    before it was taken if that is later; it is answered, and the outputs have changed, in the cycle after that. A read shows
    the registers as they were in the cycle after its address was taken and is answered two cycles later. So every access
    is answered as soon as the master lets it; one write and one read may be under way at a time, and the address and data
    of a second write be taken. Bytes without their strobe keep what they hold. An address past the table is answered with
    SLVERR and changes nothing; it reads as 0. A write of what cannot be written is answered with OKAY and changes nothing.
    The two lowest bits of an address and the protection bits do not matter. ``irq`` is 1 while an event and its
    enable are. Reads change nothing.

    Members
    -------
    bus : In(AxiLiteSignature())
    inputs : In(input_layout(table))
    controls : Out(control_layout(table))
    irq : Out(1)
    """

    def __init__(self, table: Table = REGISTERS):
        verify(table)
        self.table = table
        super().__init__(
            {
                "bus": In(AxiLiteSignature()),
                "inputs": In(input_layout(table)),
                "controls": Out(control_layout(table), init=_control_init(table)),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._events: dict[str, Signal] = {}
        self._highs: dict[str, Signal] = {}
        self._high = Signal(WORD_BITS, name="high")
        self._enables: dict[str, Signal] = {}
        self._frozen, self.state = Signal(name="frozen"), {}
        if "freeze" in self.controls.shape().members:
            # A register stage behind the control: what comes in the cycle of the write is still shown.
            m.d.sync += self._frozen.eq(self.controls.freeze)
        selects, written, kept = self._writes(m)
        words = [self._word(m, *of, written, kept) for of in zip(self.table, selects, strict=True)]
        self._reads(m, words)
        self._keep_high(m)
        m.d.comb += self.irq.eq(Cat(self._events[name] & enable for name, enable in self._enables.items()).any())
        return m

    def _writes(self, m):
        """Makes the write side of the bus: a select per register, the bits to set, and the bits that stay."""
        bus = self.bus
        address_held, write_address = Signal(), Signal(BUS_ADDRESS_BITS - 2)
        data_held, write_data, write_strobes = Signal(), Signal(WORD_BITS), Signal(WORD_BYTES)
        commit, write_mapped, both_held = Signal(), Signal(), Signal()
        self.state |= {"address_held": address_held, "data_held": data_held, "both_held": both_held}
        self.state |= {"write_address": write_address, "commit": commit}
        enabled = Cat(strobe.replicate(8) for strobe in write_strobes)
        m.d.comb += [
            bus.awready.eq(~address_held),
            bus.wready.eq(~data_held),
            commit.eq(both_held & ~bus.bvalid),
            write_mapped.eq(write_address < len(self.table)),
        ]
        # A write has all of the registers to reach: so it is a register that both have come, and which one it is for.
        has_both = (address_held | bus.awvalid) & (data_held | bus.wvalid)
        m.d.sync += both_held.eq(has_both & ~commit)
        chosen = Signal(len(self.table), name="chosen_for_write")
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [address_held.eq(1), write_address.eq(bus.awaddr[2:])]
            m.d.sync += chosen.eq(Cat(bus.awaddr[2:] == number for number in range(len(self.table))))
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [data_held.eq(1), write_data.eq(bus.wdata), write_strobes.eq(bus.wstrb)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        # The last statement wins: a master that keeps ``bready`` at 1 does not end an answer as it begins.
        with m.If(commit):
            m.d.sync += [address_held.eq(0), data_held.eq(0)]
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(Mux(write_mapped, OKAY, SLVERR))]
        return [commit & bit for bit in chosen], write_data & enabled, ~enabled

    def _reads(self, m, words: Iterable):
        """Makes the read side of the bus: the word within each group in one cycle, the group in the next."""
        bus = self.bus
        reading, read_address, grouped, read_mapped = Signal(), Signal(BUS_ADDRESS_BITS - 2), Signal(), Signal()
        self.state |= {"reading": reading, "read_address": read_address, "grouped": grouped, "read_mapped": read_mapped}
        # The last group is filled up with what an address past the table reads as.
        padded = [*words, *(Const(0, WORD_BITS) for _ in range(-len(self.table) % GROUP_WORDS))]
        parts = [padded[first : first + GROUP_WORDS] for first in range(0, len(padded), GROUP_WORDS)]
        groups = [Signal(WORD_BITS, name=f"group_{number}") for number in range(len(parts))]
        number_bits = (GROUP_WORDS - 1).bit_length()

        # One read at a time: its address stays in its register through both stages.
        m.d.comb += bus.arready.eq(~(reading | grouped | bus.rvalid))
        m.d.sync += [reading.eq(bus.arvalid & bus.arready), grouped.eq(reading)]
        m.d.sync += read_mapped.eq(read_address < len(self.table))
        with m.If(bus.arready):
            m.d.sync += read_address.eq(bus.araddr[2:])
        with m.Switch(read_address[:number_bits]):
            for number in range(GROUP_WORDS):
                with m.Case(number):
                    m.d.sync += [group.eq(part[number]) for group, part in zip(groups, parts, strict=True)]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(grouped):
            m.d.sync += [bus.rvalid.eq(1), bus.rresp.eq(Mux(read_mapped, OKAY, SLVERR)), bus.rdata.eq(0)]
            with m.Switch(read_address[number_bits:]):
                for number, group in enumerate(groups):
                    with m.Case(number):
                        m.d.sync += bus.rdata.eq(group)

    def _word(self, m, register: Register, selected, written, kept):
        """Gives what the register reads as; ``selected`` is 1 in the cycle in which it is written."""
        reads = []
        for lowest, field in register.placed:
            place = slice(lowest, lowest + field.bits)
            reads.append(self._field(m, field, selected, written[place], kept[place]))
        return Cat(reads)

    def _field(self, m, field: Field, selected, written, kept):
        """Makes the hardware of a field by its kind, and gives what it reads as."""
        if field.kind == "constant":
            return Const(field.reset, field.bits)
        if field.kind in ("status", "high"):
            return self.inputs[field.name] if field.kind == "status" else self._high
        if field.kind == "count":
            return self._count(m, field)
        if field.kind == "event":
            return self._event(m, field, selected, written)
        if field.kind == "pulse":
            m.d.sync += self.controls[field.name].eq(written & selected)
            return Const(0, field.bits)
        if field.kind == "enable":
            value = self._enables[field.name] = Signal(name=f"{field.name}_enable", init=field.reset)
        else:
            value = self.controls[field.name]
        with m.If(selected):
            m.d.sync += value.eq(value & kept | written)
        return value

    def _count(self, m, field: Field):
        """Counts on in one register while another one shows the count, so that freezing loses nothing."""
        count, shown = Signal(WORD_BITS, name=f"{field.name}_count"), Signal(WORD_BITS, name=f"{field.name}_shown")
        following = Signal(WORD_BITS + 1, name=f"{field.name}_following")
        m.d.comb += following.eq(Mux(self.controls.clear_counters, 0, count) + self.inputs[field.name])
        m.d.sync += count.eq(following)
        if field.is_long:
            self._count_high(m, field, following[-1])
        with m.If(~self._frozen):
            m.d.sync += shown.eq(count)
        return shown

    def _count_high(self, m, field: Field, carry):
        """Counts the carries of a count, all a cycle later, for speed: the high half is shown a cycle after the low one."""
        count, shown = Signal(WORD_BITS, name=f"{field.name}_high"), Signal(WORD_BITS, name=f"{field.name}_high_shown")
        carried, cleared, frozen = (Signal(name=f"{field.name}_{name}") for name in ("carried", "cleared", "high_frozen"))
        m.d.sync += [carried.eq(carry), cleared.eq(self.controls.clear_counters), frozen.eq(self._frozen)]
        m.d.sync += count.eq(Mux(cleared, 0, count) + carried)
        with m.If(~frozen):
            m.d.sync += shown.eq(count)
        self._highs[field.name] = shown

    def _keep_high(self, m):
        """Keeps the high half of the long count that is read, in the cycle after its low half was chosen."""
        # A count has a register of its own.
        numbers = [number for number, register in enumerate(self.table) if register.fields[0].is_long]
        chosen = Signal(len(numbers), name="chosen_counts")
        reading, address = self.state["reading"], self.state["read_address"]
        m.d.sync += chosen.eq(Cat(reading & (address == number) for number in numbers))
        with m.If(chosen.any()):
            m.d.sync += self._high.eq(one_hot_mux(chosen, self._highs.values()))

    def _event(self, m, field: Field, selected, written):
        """Keeps an event until a 1 is written."""
        event = self._events[field.name] = Signal(field.bits, name=f"{field.name}_event")
        # The input comes last: an event in the cycle of the write is kept, or software would never see it.
        cleared = written & selected.replicate(field.bits)
        m.d.sync += event.eq(event & ~cleared | self.inputs[field.name])
        return event
