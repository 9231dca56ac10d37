"""Search for the parallelism of a job: every (dp, tp, pp, micro-batch, recomputation) that divides and fits, ranked.

A few thousand plans at most, each a few closed forms: plain Python answers within a tenth of a second.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lightfabric.model.spec import AcceleratorSpec, JobSpec
from lightfabric.placement.cost import backward_seconds, forward_seconds, optimiser_seconds
from lightfabric.placement.workload import (
    Plan,
    Recompute,
    backward_reduces,
    forward_reduces,
    gradient_bytes,
    micro_batches,
    peak_memory,
    reduce_bytes,
    ring_bytes,
    transfer_bytes,
)

RECOMPUTATIONS: tuple[Recompute, ...] = ("none", "selective", "full")
MOST_SEQUENCES = 64
"""Largest micro-batch tried; larger ones change a GEMM's roofline no more."""
MOST_GPUS = 1 << 17


class DoesNotFit(ValueError):  # noqa: N818
    """No plan fits: says what is short by how much, and ``fits_gpus``, the least power of two that would do, or None."""

    def __init__(self, text: str, fits_gpus: int | None) -> None:
        super().__init__(text)
        self.fits_gpus = fits_gpus


@dataclass(frozen=True)
class Rates:
    """Payload bytes/s at which a rank sends to its next tensor-, pipeline- and data-parallel neighbour."""

    tensor: float
    pipeline: float
    data: float


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


def _divisors(number: int, bound: int) -> list[int]:
    return [d for d in range(1, min(number, bound) + 1) if number % d == 0]


def degrees(job: JobSpec, gpus: int) -> Iterator[tuple[int, int, int]]:
    """(dp, tp, pp) of product ``gpus``: tp divides heads, feed-forward width and sequence, pp the layers, dp the batch."""
    model = job.model
    for tp in _divisors(gpus, model.heads):
        if model.heads % tp or model.ffn_width % tp or model.sequence % tp:
            continue
        for pp in _divisors(gpus // tp, model.layers):
            dp = gpus // (tp * pp)
            if model.layers % pp == 0 and job.batch % dp == 0:
                yield dp, tp, pp


def plans(job: JobSpec, gpus: int) -> Iterator[Plan]:
    """Every plan on exactly ``gpus`` GPUs, whether it fits or not. Micro-batches are powers of two."""
    for dp, tp, pp in degrees(job, gpus):
        micro_batch = 1
        while (job.batch // dp) % micro_batch == 0 and micro_batch <= MOST_SEQUENCES:
            for recompute in RECOMPUTATIONS:
                yield Plan(dp, tp, pp, micro_batch, recompute)
            micro_batch *= 2


def memory_bytes(accelerator: AcceleratorSpec) -> int:
    """Memory of the accelerator."""
    return int(accelerator.memory_gib * (1 << 30))


def iteration_seconds(job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, rates: Rates) -> Seconds:
    """Predicted 1F1B iteration.

    With w the forward and backward of a stage, c one transfer to a neighbour and d by how much the last stage, with the
    output layer, is slower than the others, m micro-batches on p stages take
    sum(w) + (m - 1) max(w) + (p - 1) (2 c + (m - 1) max(0, 2 c - d) / p): in steady state the last k stages hold k
    micro-batches in a loop of sum(w) + 2 (k - 1) c, so the last stage alone or all stages together set the pace.
    """
    m, p = micro_batches(job, plan), plan.pp
    ends = [_stage_seconds(job, accelerator, plan, stage) for stage in (0, p - 1)]
    reduces = forward_reduces(job.model, plan) + backward_reduces(job.model, plan)
    tensor = ring_bytes(reduces * reduce_bytes(job, plan), plan.tp) / rates.tensor
    transfer = transfer_bytes(job, plan) / rates.pipeline
    gradients = ring_bytes(gradient_bytes(job, plan, 0), plan.dp)
    return Seconds(
        compute=m * max(ends),
        tensor=m * tensor,
        pipeline=(p - 1) * (2 * transfer + (m - 1) * max(0.0, 2 * transfer - (max(ends) - min(ends))) / p),
        bubble=(p - 1) * (min(ends) + tensor),
        data=gradients / rates.data,
        optimiser=optimiser_seconds(accelerator, job, plan, 0),
    )


def _stage_seconds(job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, stage: int) -> float:
    return forward_seconds(accelerator, job, plan, stage) + backward_seconds(accelerator, job, plan, stage)


def search(job: JobSpec, accelerator: AcceleratorSpec, gpus: int, rates: Callable[[Plan], Rates]) -> list[Ranked]:
    """Plans that fit on ``gpus`` accelerators, the fastest by ``iteration_seconds`` first; DoesNotFit if there is none.

    Examples:
        >>> from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
        >>> job = JobSpec(ModelSpec(layers=24, hidden=1024, heads=16, sequence=1024, vocabulary=51200), batch=64)
        >>> search(job, ACCELERATORS["h100"], 4, lambda plan: Rates(1e11, 1e11, 1e11))[0].plan.gpus
        4

    """
    accelerator.peak_flops(job.precision)
    room = memory_bytes(accelerator)
    fitting = [plan for plan in plans(job, gpus) if peak_memory(job, plan).total <= room]
    if not fitting:
        raise _does_not_fit(job, accelerator, gpus)
    ranked = [Ranked(plan, iteration_seconds(job, accelerator, plan, rates(plan))) for plan in fitting]
    return sorted(ranked, key=lambda entry: entry.seconds.total)


def least_memory_bytes(job: JobSpec, gpus: int) -> int | None:
    """Memory per GPU of the plan that needs least; None if no plan divides."""
    least = (Plan(dp, tp, pp, 1, "full") for dp, tp, pp in degrees(job, gpus))
    return min((peak_memory(job, plan).total for plan in least), default=None)


def _least_gpus(job: JobSpec, room: int) -> int | None:
    for exponent in range(MOST_GPUS.bit_length()):
        needed = least_memory_bytes(job, 1 << exponent)
        if needed is not None and needed <= room:
            return 1 << exponent
    return None


def _does_not_fit(job: JobSpec, accelerator: AcceleratorSpec, gpus: int) -> DoesNotFit:
    room, needed = memory_bytes(accelerator), least_memory_bytes(job, gpus)
    fits = _least_gpus(job, room)
    advice = f"{fits} GPUs are enough" if fits else f"no power of two up to {MOST_GPUS} is enough"
    if needed is None:
        return DoesNotFit(f"no dp * tp * pp = {gpus} divides batch, heads and layers; {advice}", fits)
    gib = 1 << 30
    return DoesNotFit(
        f"memory on {gpus} GPUs is short by {(needed - room) / gib:.1f} GiB per GPU: "
        f"the job needs {needed / gib:.1f}, {accelerator.name} has {room / gib:.1f}; {advice}",
        fits,
    )
