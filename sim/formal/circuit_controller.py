"""The judge of circuits is proven here: what it accepts are pairs of ports, each in one pair at most."""

from amaranth import Cat, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib.wiring import In

from lightfabric.rtl.circuit_controller import EntryCheck, Refusal, circuit_layout
from lightfabric.sim.formal.harness import Harness, was


class Settings(Harness):
    """Tells one setting of any circuits, port by port, to the judge, and keeps it to look at.

    Members
    -------
    put : In(1), the next circuit comes, if the one before has been looked at
    circuit : In(circuit_layout(ports))
    partial : In(1)
    out_of_service : In(ports)
    """

    def __init__(self, check=EntryCheck, ports: int = 4):
        self.check, self.ports = check(ports), ports
        super().__init__({"put": In(1), "circuit": In(circuit_layout(ports)), "partial": In(1), "out_of_service": In(ports)})

    def _prove(self, m):
        m.submodules.check = check = self.check
        ports, number, put = self.ports, Signal(range(self.ports + 1)), Signal()
        told = [Signal(circuit_layout(ports), name=f"told_{n}") for n in range(ports)]
        looked_at = was(m, put, "looked_at")
        judged = was(m, looked_at & (number == ports), "judged")
        m.d.comb += put.eq(self.put & ~looked_at & (number != ports))
        back = Signal(circuit_layout(ports))
        for n in range(ports):
            with m.If(put & (number == n)):
                m.d.sync += told[n].eq(self.circuit)
            # The memory of a schedule is read a cycle after the circuit came.
            with m.If(self.circuit.output == n):
                m.d.sync += back.eq(told[n])
        m.d.sync += number.eq(number + put)
        m.d.comb += [
            check.put.eq(put),
            check.circuit.eq(self.circuit),
            check.back.eq(back),
            check.partial.eq(self.partial),
            check.out_of_service.eq(self.out_of_service),
        ]
        refusal = check.refusal.as_value()
        accepted = judged & (refusal == Refusal.NONE.value)
        pairs = [(a, b) for a in range(ports) for b in range(ports)]
        leads = {(a, b): told[a].lit & (told[a].output == b) for a, b in pairs}
        lit = Cat(each.lit for each in told)
        conflicts = Cat(leads[a, c] & leads[b, c] for a, b in pairs if a < b for c in range(ports))
        one_way = Cat(leads[a, b] & ~leads[b, a] for a, b in pairs)
        m.d.comb += [
            Assert(~(accepted & conflicts.any()), "two circuits never lead to one port"),
            Assert(~(accepted & one_way.any()), "every circuit has one back"),
            Assert(~(accepted & ~lit.all() & ~self.partial), "a port is dark only where the setting says so"),
            Assert(~(accepted & (lit & self.out_of_service).any()), "no circuit has a port that is out of service"),
            Assert(
                ~judged | conflicts.any() | one_way.any() | (refusal != Refusal.CONFLICT.value),
                "what has no conflict is not refused for one",
            ),
            Cover(accepted & lit.all() & ~leads[0, 1] & ~leads[0, 0], "a whole setting is accepted"),
            Cover(judged & (refusal == Refusal.CONFLICT.value), "a conflict is refused"),
        ]
