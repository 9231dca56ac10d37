"""A transformer that decodes as a workload: an iteration is one output token of each sequence."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from lightfabric.model.spec import SEARCHED, AcceleratorSpec, DecodeJobSpec, JobSpec, PlanSpec
from lightfabric.model.task import TaskGraph
from lightfabric.placement.cost.output_token import TOKEN_BYTES, OutputToken, one_token, output_token
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.graph.builder import Kept
from lightfabric.placement.graph.next_token import next_token_graph
from lightfabric.placement.mapping.traffic import Traffic, token_traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import MAX_GPUS, RatesOf, Space, degrees
from lightfabric.placement.workload.call import Call, RankKind, rank_kinds
from lightfabric.placement.workload.case import NONE, OF_PLAN, cut, plan_of
from lightfabric.placement.workload.memory import DoesNotFit, memory_bytes, shortage
from lightfabric.placement.workload.volume import volume

WAIT_SECONDS = 1e-7
"""What a message is on its way at least, where ranks have no GPUs yet."""
GIB = 1 << 30


@dataclass(frozen=True)
class Decode:
    """A transformer that decodes, cut by data, tensor, pipeline and expert parallelism: a ``Workload``."""

    job: DecodeJobSpec
    accelerator: AcceleratorSpec
    pinned: PlanSpec = SEARCHED
    waits = True

    @property
    def samples(self) -> int:
        """How many sequences get a token."""
        return self.job.batch

    @property
    def tokens(self) -> int:
        """How many output tokens there are of an iteration."""
        return self.job.batch

    @cached_property
    def step(self) -> JobSpec:
        """The job with sequences of the one token that is computed."""
        return one_token(self.job)

    def require(self, gpus: int) -> None:
        """Raise DoesNotFit unless a plan fits."""
        self._fitting(gpus)

    def _table(self, gpus: int) -> OutputToken | None:
        """Every plan on so many GPUs, whether it fits or not; None if no plan divides.

        A replica has as many micro-batches as divide its sequences, up to the stages.
        """
        pinned, rows = self.pinned, list[tuple[int, ...]]()
        for dp, tp, pp, _ in degrees(self.job, gpus, Space(pinned=pinned)):
            each = self.job.batch // dp
            experts = [ep for ep in range(1, dp + 1) if dp % ep == 0 and (self.job.model.experts or 1) % ep == 0]
            sizes = [each // count for count in range(pp, 0, -1) if each % count == 0]
            sizes = sizes[:1] if pinned.micro_batch is None else [size for size in sizes if size == pinned.micro_batch]
            rows += [(dp, tp, pp, ep, size) for ep, size in product(experts, sizes) if pinned.ep in (None, ep)]
        columns = dict(zip(("dp", "tp", "pp", "ep", "micro_batch"), np.array(rows, np.int64).reshape(-1, 5).T, strict=True))
        same = dict.fromkeys(OF_PLAN, 0) | {"virtual_stages": 1, "cp": 1, "expert_group": 1, "recompute": NONE}
        full = {name: np.full(len(rows), value) for name, value in same.items()} | columns
        return OutputToken(self.job, cut(self.step, full, self.accelerator)) if rows else None

    def _fitting(self, gpus: int) -> OutputToken:
        every = self._table(gpus)
        fits = every and every.of[every.fullest.total <= memory_bytes(self.accelerator)]
        if fits:
            return OutputToken(self.job, fits)
        enough = next((count for power in range(MAX_GPUS.bit_length()) if self._holds(count := 1 << power)), None)
        advice = f"{enough} GPUs are enough" if enough else f"no power of two up to {MAX_GPUS} is enough"
        if every is None:
            raise DoesNotFit(
                f"no dp * tp * pp = {gpus} divides batch and heads and has a layer for each stage; {advice}", enough
            )
        raise DoesNotFit(f"{shortage(self.accelerator, gpus, int(every.fullest.total.min()))}; {advice}", enough)

    def _holds(self, gpus: int) -> bool:
        every = self._table(gpus)
        return every is not None and bool((every.fullest.total <= memory_bytes(self.accelerator)).any())

    def plans(self, gpus: int, rates: RatesOf) -> Iterator[tuple[Plan, float]]:
        """Plans that fit, with seconds, least first, by estimated ``rates`` and ``WAIT_SECONDS``."""
        token = self._fitting(gpus)
        waits = dict.fromkeys(("tensor_wait", "pipeline_wait", "expert_wait"), WAIT_SECONDS)
        seconds = token.prediction(replace(rates(token.of), **waits)).total
        for index in np.argsort(seconds, kind="stable").tolist():
            yield plan_of(token.of, index), float(seconds[index])

    def grouped(self, plan: Plan) -> list[Plan]:
        """The same plan with each size of expert groups that may be."""
        return [each for each in plan.grouped if self.pinned.expert_group in (None, each.expert_group)]

    def options(self, gpus: int, rates: RatesOf) -> tuple[list[Prediction], list[Prediction]]:  # noqa: ARG002
        """There are none that the task graph does not carry."""
        return [], []

    def traffic(self, plan: Plan) -> Traffic:
        """Rings of tensor ranks, from stage to stage and round, and exchanges of experts."""
        return token_traffic(self.step, plan, TOKEN_BYTES)

    def prediction(self, plan: Plan, rates: Rates) -> Prediction:
        """Predict an output token of all sequences."""
        token = output_token(self.job, plan, self.accelerator)
        layers = max(int(token.of.routed_layers(stage)) for stage in range(plan.pp))
        predicted = token.prediction(rates).at(plan)
        return replace(predicted, exchanges=2 * int(token.micro_batches) * layers * (plan.ep > 1))

    def calls(self, plan: Plan) -> list[RankKind]:
        """Count all-reduces of tensor ranks, exchanges of experts, and what goes from stage to stage."""
        token, sent = output_token(self.job, plan), volume(self.step, plan)
        m, rank = sent.micro_batches, np.arange(plan.gpus).reshape(-1, plan.ep, plan.pp, plan.tp)

        def each() -> Iterator[tuple[list[int], list[Call]]]:
            for stage, place in product(range(plan.pp), range(plan.ep)):
                reduces = m * int(sent.reduces(sent.of.stage_layers(stage))) * (plan.tp > 1)
                rounds = m * int(sent.of.routed_layers(stage)) * (plan.ep > 1)
                both = int(sent.dispatched_bytes[place].sum() + sent.combined_bytes[place].sum())
                ways = 2 if 1 < plan.expert_group < plan.ep else 1
                last, first = stage == plan.pp - 1, stage == 0
                sizes = [TOKEN_BYTES * sent.of.tokens if end else int(token.transfer_bytes) for end in (last, first)]
                hops = [
                    Call("pipeline", name, m * (plan.pp > 1), m * size)
                    for name, size in zip(("send", "recv"), sizes, strict=True)
                ]
                calls = [
                    Call("tensor", "all_reduce", reduces, reduces * sent.reduce_bytes),
                    Call("expert", "all_to_all", 2 * ways * rounds, rounds * both),
                    *hops,
                ]
                yield rank[:, place, stage].ravel().tolist(), calls

        return rank_kinds(each())

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Count the replicas, those that share experts as one, and the tensor ranks."""
        return plan.dp // plan.ep, plan.tp

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """Build an output token of all sequences, in the steady state of the pipeline."""
        return next_token_graph(self.job, self.accelerator, plan, kept)

    def figures(self, plan: Plan, seconds: float, bytes_per_s: float) -> dict[str, float]:
        """Tell tokens/s of a GPU, the caches of the fullest, and what no output token can be below.

        RuntimeError if this one is.
        """
        token = output_token(self.job, plan, self.accelerator)
        bound = float(token.bound_seconds(bytes_per_s))
        if seconds < bound * (1 - 1e-9):
            raise RuntimeError(f"an output token in {seconds} s is below its bound of {bound} s")
        caches = max(int(token.cache_bytes(stage)) for stage in range(plan.pp))
        return {
            "tokens_per_s_per_gpu": self.tokens / seconds / plan.gpus,
            "memory_cache_gib": caches / GIB,
            "output_token_bound_s": bound,
        }
