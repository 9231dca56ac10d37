"""Search for the parallelism of a job: every plan that divides and fits, ranked by predicted time.

All plans are columns of one table (``case``), timed at once: the space is enumerated whole, so the first plan is the
optimum of the cost model. Plans are made, and their memory is counted exactly, one by one and only as far as asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import AcceleratorSpec, JobSpec
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.memory import memories
from lightfabric.placement.cost.step import Network, Parts, sent_bytes, step_parts
from lightfabric.placement.cost.table import RECOMPUTATIONS, Cases, cases, cut, plan_of
from lightfabric.placement.search.partition import balanced
from lightfabric.placement.workload.transformer import Plan, Recompute, peak_memory, state_bytes

MOST_SEQUENCES = 64
"""Largest micro-batch tried; larger ones change a GEMM's efficiency no more."""
MOST_GPUS = 1 << 17
MEMORY_SLACK = 0.9
"""``memory`` times this is never above ``workload.peak_memory``, which counts exactly; a test compares them."""


class DoesNotFit(ValueError):  # noqa: N818
    """No plan fits: says what is short by how much, and ``fits_gpus``, the least power of two that would do, or None."""

    def __init__(self, text: str, fits_gpus: int | None) -> None:
        super().__init__(text)
        self.fits_gpus = fits_gpus


@dataclass(frozen=True)
class Rates:
    """Payload bytes/s, or arrays of them, at which a rank sends to its next tensor, pipeline and data neighbour.

    ``expert`` is that to all ranks that it exchanges tokens with together, ``data`` if None.
    """

    tensor: Any
    pipeline: Any
    data: Any
    expert: Any = None

    @property
    def network(self) -> Network:
        """Rates alone: what a fabric adds to each message is simulated. Context has the rate of data."""
        rates = (self.tensor, self.pipeline, self.data, self.data if self.expert is None else self.expert)
        tensor, pipeline, data, expert = (np.asarray(rate, np.float64) for rate in rates)
        return Network(tensor, data, expert, data, data, pipeline)


@dataclass(frozen=True)
class Seconds:
    """Where an iteration's time goes. Parts do not overlap in this model: they add up."""

    compute: float
    tensor: float
    pipeline: float
    bubble: float
    data: float
    optimiser: float

    @property
    def total(self) -> float:
        """The iteration."""
        return self.compute + self.tensor + self.pipeline + self.bubble + self.data + self.optimiser


@dataclass(frozen=True)
class Ranked:
    """A plan that fits and its predicted time."""

    plan: Plan
    seconds: Seconds


@dataclass(frozen=True)
class Space:
    """What is tried beside every dp, tp, pp and micro-batch: what the task graph carries, or all.

    Gradients or weights that are cut (``zero`` 2 and 3) go without a pipeline: every micro-batch would have to sum them.
    """

    zero: tuple[int, ...] = (0, 1)
    recompute: tuple[Recompute, ...] = RECOMPUTATIONS
    most_virtual_stages: int = 16
    most_cp: int = 1
    most_ep: int = 64


WHOLE = Space((0, 1, 2, 3), ("selective", "full"), most_cp=16)
"""Flash attention keeps what selective recomputation does, and takes no longer than with nothing recomputed."""


def _divisors(number: int, bound: int) -> list[int]:
    return [d for d in range(1, min(number, bound) + 1) if number % d == 0]


def degrees(job: JobSpec, gpus: int, space: Space = Space()) -> Iterator[tuple[int, int, int, int]]:
    """(dp, tp, pp, cp) of product ``gpus``: tp divides heads, widths and sequence / cp, dp the batch; pp has layers."""
    model = job.model
    for cp in _divisors(gpus, space.most_cp):
        for tp in _divisors(gpus // cp, model.heads):
            if any(size % tp for size in (model.heads, model.ffn_width, model.expert_width)) or model.sequence % (tp * cp):
                continue
            for pp in _divisors(gpus // (cp * tp), model.layers):
                dp = gpus // (cp * tp * pp)
                if job.batch % dp == 0:
                    yield dp, tp, pp, cp


def _choices(job: JobSpec, space: Space, dp: int, pp: int, cp: int) -> Iterator[tuple[int, int, int]]:
    """(virtual stages, ep, micro-batch) that go with the degrees; interleaving needs micro-batches in multiples of pp."""
    layers = job.model.layers // pp if job.model.layers % pp == 0 else 1
    stages = [v for v in _divisors(layers, space.most_virtual_stages) if v == 1 or pp > 1]
    experts = _expert_degrees(job, space, dp, cp)
    sizes = [1 << power for power in range(MOST_SEQUENCES.bit_length()) if (job.batch // dp) % (1 << power) == 0]
    for v, ep, micro_batch in product(stages, experts, sizes):
        if v == 1 or (job.batch // dp // micro_batch) % pp == 0:
            yield v, ep, micro_batch


def _expert_degrees(job: JobSpec, space: Space, dp: int, cp: int) -> list[int]:
    return [ep for ep in _divisors(job.model.experts or 1, space.most_ep) if (dp * cp) % ep == 0]


_TRIED = ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "micro_batch", "zero", "recompute")


def table(
    job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: Callable[[Cases], Rates], space: Space = Space()
) -> Cases:
    """Every plan of the space on exactly ``gpus`` GPUs, whether it fits or not. Micro-batches are powers of two.

    A pipeline without interleaving is there with even stages, and with the stages that are fastest at the ``rates`` of
    even ones, if they are others.
    """
    cuts = [
        (dp, tp, pp, v, cp, ep, micro_batch)
        for dp, tp, pp, cp in degrees(job, gpus, space)
        for v, ep, micro_batch in _choices(job, space, dp, pp, cp)
    ]
    ways = np.array(list(product(space.zero, map(RECOMPUTATIONS.index, space.recompute))), np.int64)
    cut_columns = np.repeat(np.array(cuts, np.int64).reshape(-1, 7), len(ways), axis=0).T
    way_columns = np.tile(ways, (len(cuts), 1)).T
    columns = dict(zip(_TRIED, (*cut_columns, *way_columns), strict=True))
    even = cut(job, accelerator, columns | {name: np.zeros_like(columns["pp"]) for name in ("first_layers", "last_layers")})
    even = even[(even.zero < 2) | (even.pp == 1)]
    uneven = balanced(even, calibration(), lambda chosen: rates(chosen).network)
    return Cases(**{name: np.concatenate((column, getattr(uneven, name))) for name, column in vars(even).items()})


def plans(
    job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: Callable[[Cases], Rates], space: Space = Space()
) -> Iterator[Plan]:
    """The plans of ``table``."""
    every = table(job, accelerator, gpus, rates, space)
    return (plan_of(every, index) for index in range(len(every)))


def memory_bytes(accelerator: AcceleratorSpec) -> int:
    """Memory of the accelerator."""
    return int(accelerator.memory_gib * (1 << 30))


def gradient_bytes(job: JobSpec) -> int:
    """Bytes per parameter of a gradient."""
    return state_bytes(job.precision)[1]


def iteration_seconds(job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, rates: Rates) -> Seconds:
    """Predicted iteration of one plan, ``step.step_parts`` as numbers."""
    parts = step_parts(cases(job, accelerator, [plan]), calibration(), rates.network, gradient_bytes(job))
    return _seconds(parts, 0)


def _seconds(parts: Parts, index: int) -> Seconds:
    columns = (np.broadcast_to(getattr(parts, entry.name), parts.total.shape) for entry in fields(parts))
    return Seconds(*(float(column[index]) for column in columns))


def search(
    job: JobSpec,
    accelerator: AcceleratorSpec,
    gpus: int,
    rates: Callable[[Cases], Rates],
    space: Space = Space(),
) -> Iterator[Ranked]:
    """Plans that fit on ``gpus`` accelerators, the fastest by ``iteration_seconds`` first; DoesNotFit if there is none.

    Examples:
        >>> from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
        >>> job = JobSpec(ModelSpec(layers=24, hidden=1024, heads=16, sequence=1024, vocabulary=51200), batch=64)
        >>> next(search(job, ACCELERATORS["h100"], 4, lambda plans: Rates(1e11, 1e11, 1e11))).plan.gpus
        4

    """
    accelerator.peak_flops(job.precision)
    room, every = memory_bytes(accelerator), table(job, accelerator, gpus, rates, space)
    promising = every[memories(every, gradient_bytes(job)).total * MEMORY_SLACK <= room]
    parts = step_parts(promising, calibration(), rates(promising).network, gradient_bytes(job))
    count = 0
    for index in np.argsort(parts.total, kind="stable").tolist():
        plan = plan_of(promising, index)
        if peak_memory(job, plan).total <= room:
            count += 1
            yield Ranked(plan, _seconds(parts, index))
    if not count:
        raise _does_not_fit(job, accelerator, gpus, space)


@dataclass(frozen=True)
class Option:
    """A plan of the whole space: its predicted iteration, the memory of its fullest GPU, what a GPU sends."""

    plan: Plan
    seconds: float
    memory_bytes: int
    sent_bytes: int


def whole_space(
    job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: Callable[[Cases], Rates], count: int = 10
) -> tuple[list[Option], list[Option]]:
    """The ``count`` fastest of all plans that fit, and the Pareto front of time, memory and traffic, fastest first.

    Empty if none fits. Times certify themselves: every plan of the space is timed.
    """
    every = table(job, accelerator, gpus, rates, WHOLE)
    memory = memories(every, gradient_bytes(job)).total
    fitting = memory <= memory_bytes(accelerator)
    every, memory = every[fitting], memory[fitting]
    seconds = step_parts(every, calibration(), rates(every).network, gradient_bytes(job)).total
    sent = np.sum(np.broadcast_arrays(*sent_bytes(every)), axis=0)

    def chosen(indices: NDArray[np.int64]) -> list[Option]:
        columns = zip(indices.tolist(), seconds[indices], memory[indices], sent[indices], strict=True)
        return [Option(plan_of(every, index), float(time), int(held), int(moved)) for index, time, held, moved in columns]

    return chosen(np.argsort(seconds, kind="stable")[:count]), chosen(pareto(seconds, memory, sent))


def pareto(*costs: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of the entries that no other one beats in one cost without losing in another, the least of the first first.

    Examples:
        >>> pareto(np.array([1, 2, 3, 4]), np.array([5, 6, 2, 2])).tolist()
        [0, 2]

    """
    table = np.stack(costs, axis=1)
    order = np.lexsort(table.T[::-1])
    left, front = table[order], list[int]()
    while len(order):
        front.append(int(order[0]))
        open_ = (left < left[0]).any(axis=1)
        order, left = order[open_], left[open_]
    return np.array(front, np.int64)


def least_memory_bytes(job: JobSpec, gpus: int, space: Space = Space()) -> int | None:
    """Memory per GPU of the plan that needs least; None if no plan divides."""
    least = (
        Plan(dp, tp, pp, 1, "full", ep=max(_expert_degrees(job, space, dp, cp)), cp=cp, zero=zero)
        for dp, tp, pp, cp in degrees(job, gpus, space)
        for zero in space.zero
        if zero < 2 or pp == 1
    )
    return min((peak_memory(job, plan).total for plan in least), default=None)


def _least_gpus(job: JobSpec, room: int, space: Space) -> int | None:
    for exponent in range(MOST_GPUS.bit_length()):
        needed = least_memory_bytes(job, 1 << exponent, space)
        if needed is not None and needed <= room:
            return 1 << exponent
    return None


def _does_not_fit(job: JobSpec, accelerator: AcceleratorSpec, gpus: int, space: Space) -> DoesNotFit:
    room, needed = memory_bytes(accelerator), least_memory_bytes(job, gpus, space)
    fits = _least_gpus(job, room, space)
    advice = f"{fits} GPUs are enough" if fits else f"no power of two up to {MOST_GPUS} is enough"
    if needed is None:
        return DoesNotFit(f"no dp * tp * pp = {gpus} divides batch and heads and has a layer for each stage; {advice}", fits)
    return DoesNotFit(f"{shortage(accelerator, gpus, needed)}; {advice}", fits)


def shortage(accelerator: AcceleratorSpec, gpus: int, needed_bytes: int) -> str:
    """By how much memory is short, in words."""
    gib, room_bytes = 1 << 30, memory_bytes(accelerator)
    return (
        f"memory on {gpus} GPUs is short by {(needed_bytes - room_bytes) / gib:.1f} GiB per GPU: "
        f"the job needs {needed_bytes / gib:.1f}, {accelerator.name} has {room_bytes / gib:.1f}"
    )
