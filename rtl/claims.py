"""The claims of a ring say which circuit has which wavelength on which segments; no two ever have the same.

The words of the state:

* *segment*: the fibre from a node to the next one; a circuit is on those from its source to its destination
* *kept*: what a circuit has; *next*: what it is granted beside that while it moves, so that it can go back
* *clash*: what is asked for has a segment of its wavelength in common with what another circuit has, kept or next
"""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.rtl.channel import RoundRobin, one_hot_mux


def claim_layout(wavelengths: int, segments: int) -> data.StructLayout:
    """Lays out a claim: a wavelength on a mask of segments, on none of them if it is empty."""
    return data.StructLayout({"wavelength": (wavelengths - 1).bit_length(), "segments": segments})


class ClaimTable(wiring.Component):
    """Grants wavelengths on segments of a ring to ``circuits``, one in two cycles, in turn.

    A circuit asks with ``ask`` until ``granted``, for as long as it likes; what clashes is not granted until the other one
    has let go, and holds up nobody else. ``adopt`` puts what was granted in place of what the circuit has, ``withdraw``
    gives it back, ``leave`` gives back what the circuit has. From reset on nobody has anything. A circuit never clashes
    with itself: its rings are parked while it moves.

    The table is one for all of the ring: nodes that asked each other around it would take a turn of the ring for each grant,
    and two that asked at once would have to find that out.

    Members
    -------
    ask : In(circuits)
    wanted : In(claim_layout(wavelengths, segments)).array(circuits), stays while asked for
    granted : Out(circuits), pulse
    adopt, withdraw, leave : In(circuits), pulses; not in the cycle of ``granted``
    kept, next : Out(claim_layout(wavelengths, segments)).array(circuits)
    """

    def __init__(self, circuits: int, wavelengths: int, segments: int):
        for name, number in (("circuits", circuits), ("wavelengths", wavelengths), ("segments", segments)):
            if number < 2:
                raise ValueError(f"ClaimTable.{name} must be at least 2, not {number}")
        self.circuits, self.claim = circuits, claim_layout(wavelengths, segments)
        pulses = dict.fromkeys(("ask", "adopt", "withdraw", "leave"), In(circuits))
        claims = Out(self.claim).array(circuits)
        super().__init__(
            {**pulses, "wanted": In(self.claim).array(circuits), "granted": Out(circuits), "kept": claims, "next": claims}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.turn = turn = RoundRobin(self.circuits)
        asked, asker, looks, clash = Signal(self.claim), Signal(self.circuits), Signal(), Signal()
        self.state = {"asked": asked.as_value(), "asker": asker, "looks": looks}
        # One is looked at in every second cycle, so that what it was compared with is still what all have.
        m.d.comb += [turn.requests.eq(self.ask & ~self.granted), turn.taken.eq(turn.requests.any() & ~looks)]
        m.d.sync += [looks.eq(turn.taken), self.granted.eq(0)]
        with m.If(turn.taken):
            m.d.sync += [asker.eq(turn.grant), asked.as_value().eq(one_hot_mux(turn.grant, self.wanted))]
        others = [(n, claim) for n in range(self.circuits) for claim in (self.kept[n], self.next[n])]
        m.d.comb += clash.eq(
            sum(
                ~asker[n] & (claim.wavelength == asked.wavelength) & (claim.segments & asked.segments).any()
                for n, claim in others
            )
            != 0
        )
        with m.If(looks & ~clash):
            m.d.sync += self.granted.eq(asker & self.ask)
        for n in range(self.circuits):
            with m.If(self.withdraw[n] | self.adopt[n]):
                m.d.sync += self.next[n].segments.eq(0)
            with m.If(self.adopt[n]):
                m.d.sync += self.kept[n].eq(self.next[n])
            with m.Elif(self.leave[n]):
                m.d.sync += self.kept[n].segments.eq(0)
            with m.If(looks & ~clash & asker[n] & self.ask[n]):
                m.d.sync += self.next[n].eq(asked)
        return m
