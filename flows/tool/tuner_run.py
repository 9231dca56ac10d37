"""The tuner is run natively on its plant: Verilog, Verilator, and the counts of the program."""

import tempfile
from pathlib import Path
from typing import Any

from lightfabric.flows.tool import native
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.rtl.tuner import Tuner
from lightfabric.sim.photonic import tuner
from lightfabric.sim.plant.ring_bus import RingBus


def measure(bus: RingBus, run: tuner.Run, design: Any = None) -> dict[str, Any]:
    """Tune the rings of corners and return what was seen; ``design`` is run in place of ``Tuner``.

    Counts over all corners: ``unlocked``, ``collisions`` (a ring beside another one on its line), ``astray`` (a quarter of
    a width or more from its line), ``alarms``, ``frames`` and ``cycles``; with ``drift_`` and ``fault_`` before them of
    that part. Lists by corner: ``lock_frames`` until all were locked, -1 if they were not; ``worst_ghz``, the largest
    detuning; ``shift_ghz`` and ``cold_ghz`` of each ring; ``drift_worst_ghz`` at any time; ``noticed_frames`` from the
    fault to the alarm; ``fault_locked`` and ``fault_failed`` rings in the end. The program is kept in the user's cache.
    """
    files = {f"{tuner.TOP}.v": convert(design or Tuner(bus.tuner), tuner.TOP), **tuner.sources(bus)}
    with tempfile.TemporaryDirectory(prefix="lightfabric-tuner-") as folder:
        program = native.built(tuner.TOP, files, Path(folder))
        return native.counts(program, run.arguments())
