"""The kinds of jobs: a job spec as a workload that placement asks and that simulation runs.

A new kind of job is a file beside this one and a row in ``_KINDS``.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from lightfabric.model.spec import SEARCHED, AcceleratorSpec, DecodeJobSpec, JobSpec, NetworkJobSpec, PlanSpec
from lightfabric.model.task import TaskGraph
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.graph.builder import Kept
from lightfabric.placement.job.data_parallel import DataParallel
from lightfabric.placement.job.decode import Decode
from lightfabric.placement.job.transformer import Transformer
from lightfabric.placement.mapping.traffic import Traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import RatesOf
from lightfabric.placement.workload.call import RankKind


class Workload(Protocol):
    """A job on an accelerator."""

    @property
    def waits(self) -> bool:
        """Whether messages are so small that what they wait counts."""
        ...

    @property
    def samples(self) -> int:
        """Samples of an iteration, sequences if they are of tokens."""
        ...

    @property
    def tokens(self) -> int | None:
        """Tokens of an iteration, None if samples have none."""
        ...

    def require(self, gpus: int) -> None:
        """Raise DoesNotFit, quickly, if no plan does."""
        ...

    def plans(self, gpus: int, rates: RatesOf) -> Iterator[tuple[Plan, float]]:
        """Plans that fit and that differ, with seconds by estimated ``rates``, least first; DoesNotFit if there is none."""
        ...

    def grouped(self, plan: Plan) -> list[Plan]:
        """The same plan with each size of expert groups that may be."""
        ...

    def options(self, gpus: int, rates: RatesOf) -> tuple[list[Prediction], list[Prediction]]:
        """The fastest of all plans, and those that nothing beats in time, memory and traffic."""
        ...

    def traffic(self, plan: Plan) -> Traffic:
        """Bytes between ranks in one iteration."""
        ...

    def prediction(self, plan: Plan, rates: Rates) -> Prediction:
        """Time, memory and traffic of a plan at the given rates."""
        ...

    def calls(self, plan: Plan) -> list[RankKind]:
        """Calls of collectives in one iteration, by kind of rank."""
        ...

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Blocks of ranks, and ranks next to each other in a block, that have the same program, for its part of a group."""
        ...

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """One iteration over the plan's ranks, or the part of the blocks and of the ranks in them that are kept."""
        ...

    def figures(self, plan: Plan, seconds: float, bytes_per_s: float) -> dict[str, float]:
        """What only this kind tells of an iteration of so many seconds, where a GPU sends at most so fast, by column.

        RuntimeError if it is below a bound.
        """
        ...


_KINDS: dict[type[Any], Any] = {JobSpec: Transformer, NetworkJobSpec: DataParallel, DecodeJobSpec: Decode}


def workload(job: JobSpec | NetworkJobSpec, accelerator: AcceleratorSpec, pinned: PlanSpec = SEARCHED) -> Workload:
    """What the job spec stands for; its plans have what is ``pinned``."""
    return _KINDS[type(job)](job, accelerator, pinned)
