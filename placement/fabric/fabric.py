"""What every kind of fabric tells placement, beside what it tells the models."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from itertools import permutations
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fabric import fabric as model
from lightfabric.model.fluid.network import route_latency_ps
from lightfabric.model.spec import ChipletSpec, FabricSpec
from lightfabric.model.task import TaskGraph
from lightfabric.model.timing import Timing
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, PIPELINE, TENSOR, Dimension, Traffic, busiest_bytes
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Cases
from lightfabric.placement.workload.volume import routed_bytes, sent_bytes

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad

DIMENSIONS: tuple[Dimension, ...] = ("tp", "pp", "dp")


class Fabric(model.Fabric):
    """A fabric of one kind on which jobs are placed."""

    folds = False
    """Whether an order may fold a ring of ranks, because distance counts on this fabric."""

    @property
    @abstractmethod
    def bytes_per_s(self) -> float:
        """Payload rate of one GPU into the fabric, all its ports together; ValueError if its chiplet has too few."""

    @abstractmethod
    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """Time to move traffic between GPUs, all pairs at once and the fabric shared ideally."""

    def bound_seconds(self, flows: Traffic, gpus: int) -> float:
        """What no order can be below: the busiest GPU's bytes at the GPU's full rate."""
        return busiest_bytes(flows, gpus) / self.bytes_per_s

    def exchanged(self, flows: Traffic, gpu_of_rank: NDArray[np.int32], exchanges: int) -> NDArray[np.int32] | None:
        """An order of less bottleneck that a search by exchanges finds; None where all GPUs are equally near."""
        return None

    @abstractmethod
    def estimated_rates(self, plans: Cases) -> Rates:
        """Rates of plans from closed forms, before ranks are ordered and circuits assigned, ``[plan]``."""

    @abstractmethod
    def rate_options(self, plan: Plan, placed: Traffic) -> list[tuple[Rates, Circuits | None]]:
        """Ways to serve traffic between GPUs, each with the rate of every part alone; circuits on optical fabrics."""

    def waits(self, gpus: int, dealt: Traffic, circuits: Circuits | None) -> dict[str, float]:
        """The waits of ``Rates``, none before the RTL is measured. O(pairs x hops).

        They are of the slowest route; of the mean one where a chunk goes round a ring, since it passes all of them.
        """
        if self.timing is None:
            return {}
        known = circuits or Circuits({}, {})
        # A GPU is a node in each configuration of circuits.
        first = gpus * known.configuration_of(dealt.part, dealt.source, dealt.destination)
        source, destination, nodes = dealt.source + first, dealt.destination + first, gpus * known.configurations
        pairs: Any = np.stack([source, destination], axis=1)
        network = self.network(nodes, pairs, circuits)
        route = np.searchsorted(network.pair_key, source * nodes + destination)
        seconds = route_latency_ps(network, np.arange(len(network.pair_key)))[route] / 1e12
        own = [seconds[dealt.phase == part] for part in (TENSOR, PIPELINE, EXCHANGE, DATA)]
        names, ways = ("tensor_wait", "pipeline_wait", "expert_wait", "data_wait"), (np.mean, np.max, np.max, np.mean)
        return {name: float(way(each)) for name, way, each in zip(names, ways, own, strict=True) if len(each)}

    def reconfigured(self, graph: TaskGraph, circuits: Circuits | None) -> TaskGraph:
        """A graph on GPUs as it runs on circuits that change, see ``placement.graph.reconfiguration``; else the same."""
        return graph

    def reconfiguration_seconds(
        self, found: Prediction, placed: Traffic, circuits: Circuits | None, micro_batches: float
    ) -> float:
        """How much longer an iteration takes, at least, because ports wait for light; ``found`` is all else."""
        return 0.0

    def relayed(
        self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64], circuits: Circuits | None
    ) -> list[NDArray[np.int64]]:
        """Ways of pairs over GPUs that relay, to be shared evenly, each ``[pair, hop]`` filled up with -1; else none."""
        return []

    def with_ways(self, gpus: int, circuits: Circuits | None, pairs: Iterable[Pair]) -> Circuits | None:
        """Circuits on which these pairs may talk, too; ValueError if some have no way."""
        return circuits

    def lane_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad | None":
        """What the lanes of circuits carry; None on a fabric without circuits."""
        return None


Spans = NDArray[np.int64]


def best_nesting(plans: Cases, rate: Callable[[Dimension, Spans, Spans], Any], exchange: Callable[[Spans], Any]) -> Rates:
    """Rates at the nesting of dimensions in which each plan's communication takes least.

    ``rate(name, span, stride)`` is that of a dimension whose neighbours are ``stride`` GPUs apart and whose rings or chains
    span so many; ``exchange(stride)`` are the seconds for a byte of each of the ``copies`` to experts, which are on ranks
    ``stride`` GPUs apart.
    """
    tensor, pipeline, data = sent_bytes(plans)
    routed = routed_bytes(plans)
    sizes = tensor, pipeline, data - routed, routed
    lengths: dict[Dimension, NDArray[np.int64]] = {"tp": plans.tp * plans.cp, "pp": plans.pp, "dp": plans.dp}
    best: list[NDArray[np.float64]] = []
    for nesting in permutations(lengths):
        steps = np.cumprod([np.ones_like(plans.tp), *(lengths[name] for name in nesting[:-1])], axis=0)
        step = dict(zip(nesting, steps, strict=True))
        # Ranks that hold the same experts are as many replicas apart as have others.
        apart = step | {"dp": step["dp"] * np.where(plans.ep < plans.replicas, plans.ep, 1)}
        rates = [rate(name, lengths[name] * step[name], apart[name]) for name in DIMENSIONS]
        # Experts on more ranks than there are replicas are on ranks that share a sequence, too, which are nearer.
        spread = plans.dp * plans.tp * plans.pp * plans.cp // np.maximum(plans.ep, 1)
        rates.append(exchange_rate(plans, exchange(np.minimum(step["dp"], spread))))
        # Times and rates stand in one list, so that a better nesting replaces both together.
        costs = [np.sum([size / rate for size, rate in zip(sizes, rates, strict=True)], axis=0), *rates]
        better = costs[0] < best[0] if best else np.ones(len(plans), bool)
        best = [np.where(better, new, old) for new, old in zip(costs, best or costs, strict=True)]
    return Rates(*best[1:])


def exchange_rate(plans: Cases, seconds: Any) -> Any:
    """The rate at which a rank sends all its ``copies`` of a byte in ``seconds``; infinite where it sends none."""
    return np.divide(plans.copies, seconds, out=np.full(len(plans), inf), where=plans.copies > 0)


def rate_of(moved_bytes: int, seconds: float) -> float:
    """The rate at which so much is moved; infinite where nothing is."""
    return moved_bytes / seconds if seconds else inf


def most_moved(flows: Traffic, part: int) -> int:
    """Bytes to a neighbour; of sums of gradients to those of all rings, which go on together.

    Of an all-to-all those to all together, or from all.
    """
    if part == DATA and len(flows.part):
        return int(np.bincount(flows.source, flows.size_bytes).max())
    if part == EXCHANGE and len(flows.part):
        return max(int(np.bincount(end, flows.size_bytes).max()) for end in (flows.source, flows.destination))
    return int(flows.size_bytes.max(initial=0))


def fabric_of(spec: FabricSpec, chiplet: ChipletSpec, timing: Timing | None = None) -> Fabric:
    """The fabric that a spec describes, with these chiplets and what was measured of them."""
    return model.class_of(spec, __package__ or "")(spec, chiplet, timing)
