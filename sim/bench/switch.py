"""The bench of the switch has a driver at every input, a client at every output."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amaranth import Module

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.switch import Switch
from lightfabric.sim.bench.bench import Bench, Driver, Monitor, Transfers


@dataclass(frozen=True)
class SwitchRun:
    """Holds what one run showed: flits at the inputs, at the outputs, and the cycles of the credits at each input."""

    cycles: int
    sent: list[Transfers]
    received: list[Transfers]
    credits_back: list[list[int]]


class SwitchBench:
    """Holds the switch of one spec, elaborated once."""

    def __init__(self, spec: ChipletSpec):
        self.spec, m = spec, Module()
        m.submodules.switch = self._switch = Switch(spec)
        self._bench = Bench(m)

    def run(
        self,
        flits: Mapping[int, Transfers],
        *,
        credit_cycle: Callable[[int, int], int] = lambda _, cycle: cycle + 1,
        bound_cycles: int = 10_000,
        waves: str | None = None,
    ) -> SwitchRun:
        """Send ``flits[input]`` (earliest cycle, flit) until every flit has left by its output and is credited."""
        ports = range(self.spec.switch_ports)
        drivers = [Driver(self.spec, self._switch.i[port], flits.get(port, [])) for port in ports]
        monitors = [Monitor(self.spec, self._switch.o[port], credit_cycle) for port in ports]
        total = sum(len(driver.flits) for driver in drivers)

        def done(cycle: int) -> bool:
            return sum(len(monitor.credited) for monitor in monitors) >= total

        cycles = self._bench.run([*drivers, *monitors], done, bound_cycles, waves)
        sent, received = [driver.sent for driver in drivers], [monitor.received for monitor in monitors]
        return SwitchRun(cycles, sent, received, [driver.credited for driver in drivers])
