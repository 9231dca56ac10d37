"""Waveforms show a running system: the occupancy of Fifos and the values of Signals as a VCD file."""

from collections.abc import Sequence
from operator import itemgetter
from types import TracebackType
from typing import Any, TextIO, cast

import vcd

from lightfabric.model.kernel.channel import Fifo, Signal
from lightfabric.model.kernel.system import System


class Trace:
    """Writes a VCD of ``channels`` while ``system`` runs; use it with ``with``, around the runs to be seen.

    One time step is one cycle of ``cycle_ps``. A Fifo is an integer variable, its flits at the end of each cycle, those
    in flight included; a Signal is 64 bits wide, its value during the cycle. The scopes are the hierarchy's paths.
    The file has no date, so equal runs give equal files.
    """

    def __init__(self, system: System, file: TextIO, channels: Sequence[Fifo | Signal], cycle_ps: int = 1000) -> None:
        self._system, self._cycle_ps = system, cycle_ps
        writer = cast(Any, vcd.VCDWriter)  # pyvcd types a value by the kind of its variable, which is not known here
        self._writer = writer(file, timescale="1 ps", init_timestamp=self._time_ps(system.now), date="")
        self._fifos = [(item, self._register(item)) for item in channels if isinstance(item, Fifo)]
        self._signals = [(item, self._register(item)) for item in channels if isinstance(item, Signal)]
        self._sampled_cycle = system.now
        self._stop = system.observe(self._sample)

    def _time_ps(self, cycle: int) -> int:
        return cycle * self._cycle_ps

    def _register(self, channel: Fifo | Signal) -> Any:
        scope, _, name = channel.path.replace(" -> ", "_to_").rpartition(".")
        kind, size = ("integer", 32) if isinstance(channel, Fifo) else ("wire", 64)
        return self._writer.register_var(scope or "system", name, kind, size=size, init=self._value(channel))

    def _value(self, channel: Fifo | Signal) -> int:
        if isinstance(channel, Fifo):
            return self._system.occupancy(channel)
        return self._system.read(channel) % (1 << 64)

    def _sample(self, cycle: int) -> None:
        changes = [(cycle, variable, self._value(fifo)) for fifo, variable in self._fifos]
        for signal, variable in self._signals:
            this = self._system.channels.signal[signal.index]
            # A written value is seen a cycle later, and a VCD must not go back before the last sample.
            change_cycle = max(int(this.written_cycle) + 1, self._sampled_cycle)
            changes.append((change_cycle, variable, int(this.written) % (1 << 64)))
        for change_cycle, variable, value in sorted(changes, key=itemgetter(0)):
            self._writer.change(variable, self._time_ps(change_cycle), value)
        self._sampled_cycle = cycle + 1

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        self._sample(self._system.now)
        self._writer.close(self._time_ps(self._system.now))
