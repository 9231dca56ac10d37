"""Co-design of optical-I/O chiplets and the AI systems built from them: the front door for Python.

>>> import lightfabric as lf
>>> spec = lf.load_spec("prototype")
>>> spec.chiplet.gbps_per_port, spec.gpus
(10.0, (2, 4, 8))

What is named here is the public API; everything else may change. Wrong input raises an error of one line that names the
field, what it must be and what it is. Imports of this module are quick: what a call needs is imported when it is called.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from lightfabric.model.spec import ChipletSpec, StudySpec
    from lightfabric.model.task import Schedule
    from lightfabric.model.timing import Timing
    from lightfabric.placement.place import Placement

    __version__: str

__all__ = ["Placements", "Simulation", "Study", "__version__", "characterize", "load_spec", "place", "simulate", "study"]

Row = dict[str, Any]
"""Values by column: a list of rows is what ``pandas.DataFrame`` takes."""
Objective = Literal["predicted-time", "simulated-time", "bottleneck", "byte-hops", "wavelengths"]

_SMALL_GPUS = 128
"""A study of no more GPUs than this, all counts and fabrics together, is done before processes would have started."""


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("lightfabric")
    raise AttributeError(f"module 'lightfabric' has no attribute {name!r}")


def load_spec(source: str | Path = "gpt3-175b") -> "StudySpec":
    """Read the description of a study from a TOML file, or take a built-in example by its name.

    Examples are gpt3-175b, qwen3-235b-a22b, llama3-70b-decode, dlrm, small and prototype. Specs are frozen;
    ``dataclasses.replace`` makes others of them.

    >>> load_spec("small").name
    'small'
    """
    from lightfabric.flows.format.spec_file import EXAMPLES
    from lightfabric.flows.format.spec_file import load_spec as load

    return load(None, str(source)) if str(source) in EXAMPLES else load(Path(source))


def characterize(spec: "StudySpec | ChipletSpec") -> "Timing":
    """Measure the timing of the RTL built from a spec's chiplet, or take what was measured before.

    The first time this simulates the RTL, which takes from seconds to a minute by the width of the chiplet.

    >>> timing = characterize(load_spec("prototype"))
    >>> timing.switch.latency_cycles, sorted(timing.to_dict())[:3]
    (2, ['client', 'link', 'rtl_hash'])
    """
    from lightfabric.flows.format.timing_store import measured_timing
    from lightfabric.model.spec import ChipletSpec

    return measured_timing(spec if isinstance(spec, ChipletSpec) else spec.chiplet)


@dataclass(frozen=True)
class Placements:
    """Where a job runs on so many GPUs: a ``Placement`` and a row of columns for each fabric, in the spec's order."""

    spec: str
    gpus: int
    placements: "list[Placement]"
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain values, as ``lightfabric place --json`` prints them but for the plans not chosen."""
        return {"spec": self.spec, "gpus": self.gpus, "placements": self.rows}


def place(spec: "StudySpec", *, gpus: int | None = None, objective: Objective = "predicted-time") -> Placements:
    """Choose parallelism, order of ranks and circuits for a job on each of a spec's fabrics.

    ``gpus`` is the spec's largest count that holds the job if left out. ``objective`` says what is least: the predicted or
    the simulated iteration, or what the order of ranks keeps low.

    >>> found = place(load_spec("prototype"), gpus=4)
    >>> [(row["fabric"], row["dp"] * row["tp"] * row["pp"]) for row in found.rows]
    [('ideal switch', 4), ('SiP-Ring', 4), ('SiP-OCS', 4)]
    """
    from lightfabric.flows.command import place as command

    chosen = command.chosen(spec, gpus, None)
    count, found = command.placements(chosen, spec.name, objective)
    rows = [command.columns(*each) for each in found]
    return Placements(spec.name, count, [placed for _, placed, _ in found], rows)


@dataclass(frozen=True)
class Simulation:
    """One training iteration on one fabric: the placement, when each task ran, and the row of the study.

    Of ranks that do the same at the same time the schedule has the tasks of one.
    """

    row: Row
    placement: "Placement"
    schedule: "Schedule"

    @property
    def iteration_s(self) -> float:
        """How long the iteration takes."""
        return self.schedule.makespan_ps / 1e12

    def to_dict(self) -> Row:
        """The columns of results.csv."""
        return self.row


def simulate(spec: "StudySpec", gpus: int, fabric: str, *, fidelity: Literal["fluid", "cycle"] = "fluid") -> Simulation:
    """Simulate one training iteration on so many GPUs of one of a spec's fabrics, by its name.

    Of the candidates that placement predicts to be good the one with the shortest iteration is taken. At "cycle" every
    flit is on its way, which only small jobs are worth. ValueError if the fabric cannot serve the job.

    >>> run = simulate(load_spec("prototype"), 2, "ideal switch")
    >>> run.iteration_s == run.to_dict()["iteration_s"] > 0
    True
    """
    from lightfabric.flows.command import place as place_command
    from lightfabric.flows.command import study as command
    from lightfabric.flows.experiment.cell import simulated

    one = place_command.chosen(spec, gpus, fabric)
    (job,) = command.jobs(one, command.checked(one, spec.name, fidelity), characterize(spec), fidelity)
    row, placement, schedule, _ = simulated(job)
    return Simulation(row | command.costs(job), placement, schedule)


@dataclass(frozen=True)
class Study:
    """Training time over GPU counts and fabrics: a row of results.csv for each, and the timing that all rest on."""

    spec: str
    rows: list[Row]
    timing: "Timing"

    def to_dict(self) -> dict[str, Any]:
        """Rows and timing as plain values."""
        return {"spec": self.spec, "rows": self.rows, "timing": self.timing.to_dict()}


def study(spec: "StudySpec", *, fidelity: Literal["fluid", "cycle"] = "fluid") -> Study:
    """Simulate a spec's job on all its fabrics and GPU counts.

    Small studies run in this process; larger ones in a process per core, which a script must start behind
    ``if __name__ == "__main__":``.

    >>> result = study(load_spec("prototype"))
    >>> len(result.rows), result.rows[0]["fabric"], result.rows[0]["fits"]
    (9, 'ideal switch', True)
    """
    from lightfabric.flows.command import study as command
    from lightfabric.flows.format.spec_file import Variant
    from lightfabric.flows.format.timing_store import measured_timings

    reasons = command.checked(spec, spec.name, fidelity)
    alone = sum(reasons) * len(spec.fabrics) <= _SMALL_GPUS

    def timings(chiplets: "Sequence[ChipletSpec]", workers: "Executor | None") -> "list[Timing]":
        return measured_timings(chiplets, workers=workers)

    rows, (measured,), _ = command.run([(Variant({}, spec), reasons)], timings, fidelity=fidelity, alone=alone)
    return Study(spec.name, rows, measured)
