"""Search for the parallelism of a job: every plan that divides and fits, ranked by predicted time.

All plans are columns of one table (``case``), measured and timed at once: the space is enumerated whole, so the first plan
is the optimum of the cost model. Plans are made one by one and only as far as asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import SEARCHED, AcceleratorSpec, JobSpec, PlanSpec
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.cost.step import step
from lightfabric.placement.plan import Plan, Recompute, group_sizes
from lightfabric.placement.search.partition import balanced
from lightfabric.placement.workload.case import RECOMPUTATIONS, Cases, case, cut, plan_of
from lightfabric.placement.workload.memory import DoesNotFit, memory_bytes, peak_bytes, peak_memory, shortage
from lightfabric.placement.workload.volume import sent_bytes

MAX_SEQUENCES = 64
"""Largest micro-batch tried; larger ones change a GEMM's efficiency no more."""
MAX_GPUS = 1 << 18

RatesOf = Callable[[Cases], Rates]
"""Rates of plans on a fabric."""


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
    pinned: PlanSpec = SEARCHED

    def only(self, pinned: PlanSpec) -> "Space":
        """Leave of the space what has the ``pinned`` values; they may be beyond its bounds."""
        zero = self.zero if pinned.zero is None else (pinned.zero,)
        recompute = self.recompute if pinned.recompute is None else (pinned.recompute,)
        return replace(self, zero=zero, recompute=recompute, pinned=pinned)


WHOLE = Space((0, 1, 2, 3), ("selective", "full"), most_cp=16)
"""Flash attention keeps what selective recomputation does, and takes no longer than with nothing recomputed."""


def _given(options: Sequence[int], pinned: int | None) -> Sequence[int]:
    return options if pinned is None else (pinned,)


def _divisors(number: int, bound: int, pinned: int | None = None) -> list[int]:
    return [d for d in _given(range(1, min(number, bound) + 1), pinned) if number % d == 0]


def degrees(job: JobSpec, gpus: int, space: Space = Space()) -> Iterator[tuple[int, int, int, int]]:
    """(dp, tp, pp, cp) of product ``gpus``: tp divides heads, widths and sequence / cp, dp the batch; pp has layers."""
    model, pinned = job.model, space.pinned
    for cp in _divisors(gpus, space.most_cp, pinned.cp):
        for tp in _divisors(gpus // cp, model.heads, pinned.tp):
            if any(size % tp for size in (model.heads, model.ffn_width, model.expert_width)) or model.sequence % (tp * cp):
                continue
            for pp in _divisors(gpus // (cp * tp), model.layers, pinned.pp):
                dp = gpus // (cp * tp * pp)
                if job.batch % dp == 0 and pp <= model.layers and pinned.dp in (None, dp):
                    yield dp, tp, pp, cp


def _choices(job: JobSpec, space: Space, dp: int, pp: int, cp: int) -> Iterator[tuple[int, int, int, int]]:
    """(virtual stages, ep, size of its groups, micro-batch) for degrees; interleaved, micro-batches are multiples of pp."""
    pinned, each = space.pinned, job.batch // dp
    # The chunks of an interleaved pipeline are alike, so layers must divide by its stages first.
    layers = job.model.layers // pp if job.model.layers % pp == 0 else 1
    stages = [v for v in _divisors(layers, space.most_virtual_stages, pinned.virtual_stages) if v == 1 or pp > 1]
    groups = [(ep, group) for ep in _expert_degrees(job, space, dp, cp) for group in group_sizes(ep)]
    experts = [(ep, group) for ep, group in groups if pinned.expert_group in (None, group)]
    powers = [1 << power for power in range(MAX_SEQUENCES.bit_length())]
    sizes = [size for size in _given(powers, pinned.micro_batch) if each % size == 0]
    for v, (ep, group), micro_batch in product(stages, experts, sizes):
        if v == 1 or (each // micro_batch) % pp == 0:
            yield v, ep, group, micro_batch


def _expert_degrees(job: JobSpec, space: Space, dp: int, cp: int) -> list[int]:
    return [ep for ep in _divisors(job.model.experts or 1, space.most_ep, space.pinned.ep) if (dp * cp) % ep == 0]


def _least(job: JobSpec, space: Space, dp: int, pp: int, cp: int) -> list[tuple[int, int, int, int]]:
    """The one of the ``_choices`` that takes least memory, none if there is none."""
    return sorted(_choices(job, space, dp, pp, cp), key=lambda choice: (-choice[1], choice[3], choice))[:1]


_TRIED = ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "expert_group", "micro_batch", "zero", "recompute")


def table(job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: RatesOf, space: Space = Space()) -> Cases:
    """Every plan of the space on exactly ``gpus`` GPUs, whether it fits or not. Micro-batches are powers of two.

    A pipeline without interleaving is there with even stages, and with the stages that are fastest at the ``rates`` of
    even ones, if they are others. With experts, a layer of which may take a tenth of the memory, also with stages near these
    if they do not fit.
    """
    cuts = [
        (dp, tp, pp, v, cp, ep, group, micro_batch)
        for dp, tp, pp, cp in degrees(job, gpus, space)
        for v, ep, group, micro_batch in _choices(job, space, dp, pp, cp)
    ]
    ways = np.array(list(product(space.zero, map(RECOMPUTATIONS.index, space.recompute))), np.int64)
    cut_columns = np.repeat(np.array(cuts, np.int64).reshape(-1, 8), len(ways), axis=0).T
    way_columns = np.tile(ways, (len(cuts), 1)).T
    even = cut(job, dict(zip(_TRIED, (*cut_columns, *way_columns), strict=True)), accelerator)
    even = even[(even.zero < 2) | (even.pp == 1)]
    nothing = np.zeros_like(even.pp)
    uneven = balanced(even, calibration(), lambda chosen: rates(chosen).network)
    if job.model.experts:
        uneven = uneven.joined(_roomier(uneven, accelerator))
    return replace(even, first_layers=nothing, last_layers=nothing).joined(uneven)


def _roomier(uneven: Cases, accelerator: AcceleratorSpec) -> Cases:
    """Cuts with a layer more at either end or at both, of pipelines that do not fit: the stages between hold less."""
    full = uneven[(uneven.pp > 2) & (peak_bytes(uneven.exactly) > memory_bytes(accelerator))]
    first, last = full.first_layers, full.last_layers
    one, other, both = (
        replace(full, first_layers=first + more, last_layers=last + after) for more, after in ((1, 0), (0, 1), (1, 1))
    )
    every = one.joined(other).joined(both)
    return every[every.layers - every.first_layers - every.last_layers >= every.pp - 2]


def prediction(job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, rates: Rates) -> Prediction:
    """Predict the iteration of one plan."""
    one, network = case(job, plan, accelerator), rates.network
    # Of placed ranks it is known how fast keys and values go: they are a part of exchanges.
    if plan.cp > 1:
        network = replace(network, context=network.expert, context_step_seconds=rates.expert_wait)
    return replace(step(one, calibration(), network), memory=peak_memory(one.exactly), sent_bytes=_sent(one)).at(plan)


def _sent(c: Cases) -> Any:
    return np.sum(np.broadcast_arrays(*sent_bytes(c)), axis=0)


def search(job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: RatesOf, space: Space = Space()) -> Iterator[Plan]:
    """Plans that fit on ``gpus`` accelerators, the fastest by ``prediction`` first; DoesNotFit if there is none.

    Examples:
        >>> from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
        >>> job = JobSpec(ModelSpec(layers=24, hidden=1024, heads=16, sequence=1024, vocabulary=51200), batch=64)
        >>> next(search(job, ACCELERATORS["h100"], 4, lambda plans: Rates(1e11, 1e11, 1e11))).gpus
        4

    """
    return (plan for plan, _ in timed(job, accelerator, gpus, rates, space))


def timed(
    job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: RatesOf, space: Space = Space()
) -> Iterator[tuple[Plan, float]]:
    """Plans as ``search`` gives them, each with its predicted seconds."""
    every = table(job, accelerator, gpus, rates, space)
    # The plans are for the task graph, so memory is counted as its ranks hold it.
    fitting = every[peak_bytes(every.exactly) <= memory_bytes(accelerator)]
    if not len(fitting):
        raise _does_not_fit(job, accelerator, gpus, space)
    seconds = step(fitting, calibration(), rates(fitting).network).total
    # The order is stable, so that plans of equal time come in that of the space.
    for index in np.argsort(seconds, kind="stable").tolist():
        yield plan_of(fitting, index), float(seconds[index])


def whole_space(
    job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: RatesOf, count: int = 10
) -> tuple[list[Prediction], list[Prediction]]:
    """The ``count`` fastest of all plans that fit, and the Pareto front of time, memory and traffic, fastest first.

    Empty if none fits. Times certify themselves: every plan of the space is timed. Memory is counted as in ``search``.
    """
    every = table(job, accelerator, gpus, rates, WHOLE)
    every = every[peak_bytes(every.exactly) <= memory_bytes(accelerator)]
    found = step(every, calibration(), rates(every).network)
    found = replace(found, memory=peak_memory(every.exactly), sent_bytes=_sent(every))

    def chosen(indices: NDArray[np.int64]) -> list[Prediction]:
        return [found.at(plan_of(every, index), index) for index in indices.tolist()]

    front = pareto(found.total, found.memory.total, found.sent_bytes)
    return chosen(np.argsort(found.total, kind="stable")[:count]), chosen(front)


def pareto(*costs: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of the entries that no other one beats in one cost without losing in another, the least of the first first.

    Examples:
        >>> pareto(np.array([1, 2, 3, 4]), np.array([5, 6, 2, 2])).tolist()
        [0, 2]

    """
    table = np.stack(costs, axis=1)
    # The last key of lexsort is the first to count.
    order = np.lexsort(table.T[::-1])
    left, front = table[order], list[int]()
    while len(order):
        front.append(int(order[0]))
        # Whoever is nowhere below the front's newest entry is beaten by it or equal, and leaves together with it.
        open_ = (left < left[0]).any(axis=1)
        order, left = order[open_], left[open_]
    return np.array(front, np.int64)


def least_memory_bytes(job: JobSpec, gpus: int, space: Space = Space()) -> int | None:
    """Memory per GPU of the plan that needs least; None if no plan divides."""
    # Every choice that takes memory is at its least, so no other plan of these degrees needs less.
    least = [
        (dp, tp, pp, v, cp, ep, group, micro_batch, zero, max(map(RECOMPUTATIONS.index, space.recompute)))
        for dp, tp, pp, cp in degrees(job, gpus, space)
        for v, ep, group, micro_batch in _least(job, space, dp, pp, cp)
        for zero in space.zero
        if zero < 2 or pp == 1
    ]
    if not least:
        return None
    columns: dict[str, Any] = dict(zip(_TRIED, np.array(least, np.int64).T, strict=True))
    return int(peak_bytes(cut(job, columns).exactly).min())


def _least_gpus(job: JobSpec, room: int, space: Space) -> int | None:
    for exponent in range(MAX_GPUS.bit_length()):
        needed = least_memory_bytes(job, 1 << exponent, space)
        if needed is not None and needed <= room:
            return 1 << exponent
    return None


def _does_not_fit(job: JobSpec, accelerator: AcceleratorSpec, gpus: int, space: Space) -> DoesNotFit:
    room, needed = memory_bytes(accelerator), least_memory_bytes(job, gpus, space)
    fits = _least_gpus(job, room, space)
    advice = f"{fits} GPUs are enough" if fits else f"no power of two up to {MAX_GPUS} is enough"
    if needed is None:
        given = ", ".join(f"{name} {value}" for name, value in space.pinned.given.items())
        with_plan = f" with {given}" if given else ""
        reason = f"no dp * tp * pp = {gpus}{with_plan} divides batch and heads and has a layer for each stage"
        return DoesNotFit(f"{reason}; {advice}", fits)
    return DoesNotFit(f"{shortage(accelerator, gpus, needed)}; {advice}", fits)
