"""A transformer as a workload: its parallelism is searched for, and its task graph is Megatron's."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lightfabric.model.spec import SEARCHED, AcceleratorSpec, JobSpec, PlanSpec
from lightfabric.model.task import TaskGraph
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.graph.builder import Kept
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.mapping.traffic import Traffic, traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import RatesOf, Space, least_memory_bytes, prediction, search, timed, whole_space
from lightfabric.placement.workload.call import RankKind, transformer_calls
from lightfabric.placement.workload.memory import memory_bytes
from lightfabric.placement.workload.volume import volume


@dataclass(frozen=True)
class Transformer:
    """A transformer cut by data, tensor, pipeline and expert parallelism, as ``pinned`` as it is: a ``Workload``."""

    job: JobSpec
    accelerator: AcceleratorSpec
    pinned: PlanSpec = SEARCHED
    waits = False

    @property
    def samples(self) -> int:
        """How many sequences an iteration trains on."""
        return self.job.batch

    @property
    def tokens(self) -> int:
        """How many tokens an iteration trains on."""
        return self.job.batch * self.job.model.sequence

    def require(self, gpus: int) -> None:
        """Raise DoesNotFit unless the plan that needs least memory fits."""
        needed = least_memory_bytes(self.job, gpus, self._space)
        if needed is None or needed > memory_bytes(self.accelerator):
            # The search raises the error that says what is short and what would do.
            next(search(self.job, self.accelerator, gpus, lambda _: Rates(1.0, 1.0, 1.0), self._space))

    @property
    def _space(self) -> Space:
        return Space().only(self.pinned)

    def plans(self, gpus: int, rates: RatesOf) -> Iterator[tuple[Plan, float]]:
        """The best of each (dp, tp, pp, ep, virtual stages), at the size of its expert groups that is estimated to be best.

        They come without groups, which ``grouped`` adds.
        """
        seen: set[tuple[int, ...]] = set()
        for plan, seconds in timed(self.job, self.accelerator, gpus, rates, self._space):
            key = (*plan.degrees, plan.ep, plan.virtual_stages)
            if key not in seen:
                seen.add(key)
                yield replace(plan, expert_group=1), seconds

    def grouped(self, plan: Plan) -> list[Plan]:
        """The same plan with each size of expert groups that may be."""
        return [each for each in plan.grouped if self.pinned.expert_group in (None, each.expert_group)]

    def options(self, gpus: int, rates: RatesOf) -> tuple[list[Prediction], list[Prediction]]:
        """Search the ``whole_space``, of which the task graph carries only a part: the ``plans``."""
        return whole_space(self.job, self.accelerator, gpus, rates)

    def traffic(self, plan: Plan) -> Traffic:
        """Rings, stages and exchanges of experts."""
        return traffic(self.job, plan)

    def prediction(self, plan: Plan, rates: Rates) -> Prediction:
        """Predict the iteration by the cost model."""
        sent = volume(self.job, plan)
        stages = np.arange(plan.pp)
        routed = (1 + sent.backward_passes) * sent.exchanges(sent.of.routed_layers(stages))
        # Each step round the ring of keys and values is one, as in the task graph.
        gathered = (plan.cp - 1) * (1 + sum(sent.gathers)) * sent.of.stage_layers(stages)
        exchanges = int(sent.micro_batches * np.max(routed + gathered))
        gathers = int(sent.micro_batches * np.max(gathered))
        return replace(prediction(self.job, self.accelerator, plan, rates), exchanges=exchanges, gathers=gathers)

    def calls(self, plan: Plan) -> list[RankKind]:
        """Count the calls of tensor, data, expert and pipeline parallelism."""
        return transformer_calls(self.job, plan)

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Count the replicas, those that share experts or sequences as one, and the tensor ranks."""
        return plan.replicas // plan.block, plan.tp

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """Build one iteration, in the order of 1F1B, or the part of the ranks that are kept."""
        return task_graph(self.job, self.accelerator, plan, kept=kept)

    def figures(self, plan: Plan, seconds: float, bytes_per_s: float) -> dict[str, float]:  # noqa: ARG002
        """Tell the time to accuracy of a job that says how many iterations it has."""
        return {"training_s": seconds * self.job.iterations} if self.job.iterations else {}
