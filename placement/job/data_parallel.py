"""Training of networks that are no stack of equal layers: replicas of a GPU or split over several, tables dealt out.

Gradients are reduced in buckets behind the backward pass [Li 2020, "PyTorch Distributed"]. Each GPU owns some tables: it
looks up the rows of all samples and sends each GPU those of its own, and gets their gradients back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapreplace
from math import inf, isqrt

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import SEARCHED, AcceleratorSpec, NetworkJobSpec, PlanSpec
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.graph.builder import Builder, Ids, Kept, picoseconds
from lightfabric.placement.job.split import Split
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, Traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import MAX_GPUS, RatesOf
from lightfabric.placement.workload.call import Call, RankKind, rank_kinds
from lightfabric.placement.workload.case import state_bytes
from lightfabric.placement.workload.layered import CRITEO_ROWS, Layer, dlrm, resnet50, total, transformer_big, vgg16
from lightfabric.placement.workload.memory import DoesNotFit, Memory, memory_bytes, shortage
from lightfabric.placement.workload.volume import ring_bytes

BUCKET_BYTES = 25 << 20
"""Size at which a bucket of gradients is full, PyTorch's default."""
MAX_TASKS = 1 << 21
"""Most tasks of all passes: a graph takes memory and time in proportion to them."""
FORWARD_ACCESSES, BACKWARD_ACCESSES = 3, 5
"""Accesses to an output beside its product: statistics, norm (read, write); backward two reads more, a gradient written."""
LOOKUP_ACCESSES, UPDATE_ACCESSES = 2, 3
"""Accesses to a row, by plain stochastic descent, as in MLPerf's reference."""


@lru_cache(maxsize=64)
def layers_of(job: NetworkJobSpec) -> tuple[Layer, ...]:
    """The network, layer by layer."""
    each = state_bytes(job.precision)[0]
    match job.network:
        case "resnet-50":
            return tuple(resnet50(each))
        case "vgg-16":
            return tuple(vgg16(each))
        case "transformer-big":
            return tuple(transformer_big(value_bytes=each))
        case "dlrm":
            rows = job.table_rows or CRITEO_ROWS
            return tuple(dlrm(rows, job.table_width, job.bottom_widths, job.top_widths, each))


@dataclass(frozen=True)
class _Times:
    """Seconds of a micro-batch on a GPU, and the buckets of gradients, the first to be ready first.

    ``lookup[gpu]`` and ``update[gpu]`` are those of the tables that a GPU owns, ``backward`` those up to each bucket.
    """

    forward: float
    backward: list[float]
    bucket_bytes: list[int]
    lookup: NDArray[np.float64]
    update: NDArray[np.float64]
    optimiser: float


@dataclass(frozen=True)
class DataParallel:
    """A network trained with a replica on every GPU, or on ``tp`` that split its layers: a ``Workload``."""

    job: NetworkJobSpec
    accelerator: AcceleratorSpec
    pinned: PlanSpec = SEARCHED
    tokens: int | None = None
    waits = False

    @property
    def samples(self) -> int:
        """How many samples an iteration trains on."""
        return self.job.batch

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What the network is made of, layer by layer."""
        return layers_of(self.job)

    @property
    def replicated(self) -> list[Layer]:
        """Layers that are on every GPU."""
        return [layer for layer in self.layers if not layer.exchange_bytes]

    @property
    def gradient_bytes(self) -> int:
        """What all gradients that are summed take, as given or as the network has them."""
        return self.job.weights_bytes or total(self.replicated).parameters * state_bytes(self.job.precision)[1]

    def memory(self, plan: Plan) -> Memory:
        """What the fullest GPU has to hold.

        An output is kept before and after its norm and activation, whole after if it is gathered; tables have rows alone.
        """
        weight, _, optimiser = state_bytes(self.job.precision)
        parameters = -(-total(self.replicated).parameters // plan.tp)
        held = max(owned_tables(self.layers, plan.gpus)[0], default=0) * weight
        whole = plan.micro_batch * total(self.layers[:-1]).gathered_bytes
        own = 2 * plan.micro_batch * total(self.layers).activation_bytes - whole
        gradients, activations = -(-self.gradient_bytes // plan.tp), whole - (-own // plan.tp)
        return Memory(parameters * weight + held, gradients, parameters * optimiser, activations)

    def require(self, gpus: int) -> None:
        """Raise DoesNotFit unless there is a plan."""
        self._plans(gpus)

    def plans(self, gpus: int, rates: RatesOf) -> Iterator[tuple[Plan, float]]:  # noqa: ARG002
        """The plan of each ``tp``, with its time on links without a limit, which bounds that on any."""
        endless = Rates(inf, inf, inf, inf)
        found = [(plan, self.prediction(plan, endless).total) for plan in self._plans(gpus)]
        yield from sorted(found, key=lambda each: each[1])

    def _plans(self, gpus: int) -> list[Plan]:
        found, unsplit = list[Plan](), f"a tp of {self.pinned.tp} does not divide {gpus} GPUs and all output channels"
        reason = DoesNotFit(unsplit, None)
        for tp in self._ways(gpus):
            try:
                found.append(self.plan(gpus, tp))
            except DoesNotFit as error:
                # The more GPUs split a layer the less each needs, so the last plan is the closest.
                reason = error
        if not found:
            raise reason
        return found

    def _ways(self, gpus: int) -> list[int]:
        return [tp for tp in self.job.splits if gpus % tp == 0 and self.pinned.tp in (None, tp)]

    def grouped(self, plan: Plan) -> list[Plan]:
        """There are no experts to group."""
        return [plan]

    def options(self, gpus: int, rates: RatesOf) -> tuple[list[Prediction], list[Prediction]]:  # noqa: ARG002
        """There are no options to compare, since all plans are placed."""
        return [], []

    def plan(self, gpus: int, tp: int = 1) -> Plan:
        """Replicas of ``tp`` GPUs with the largest micro-batch that fits; DoesNotFit if none does within ``MAX_TASKS``."""
        dp = gpus // tp
        if self.job.batch % dp:
            replicas = f"{gpus} GPUs" if tp == 1 else f"{dp} replicas of {tp} GPUs"
            raise DoesNotFit(f"a batch of {self.job.batch} samples is no multiple of {replicas}", None)
        each = self.job.batch // dp
        # The largest micro-batch that fits comes first: fewer passes mean fewer exchanges and larger products.
        small = [size for size in range(1, isqrt(each) + 1) if each % size == 0]
        sizes = sorted({*small, *(each // size for size in small)}, reverse=True)
        found = next((plan for plan in (Plan(dp, tp, 1, size) for size in sizes) if self._fits(plan)), None)
        if found is None:
            raise self._does_not_fit(gpus, tp)
        owners = min(gpus, sum(layer.exchange_bytes > 0 for layer in self.layers))
        # The limit is tested on the plan, before arrays of that size are made: a graph out of memory would give no message.
        tasks = each // found.micro_batch * gpus * (2 * owners + 2)
        if tasks > MAX_TASKS:
            passes = f"{each // found.micro_batch} passes on {gpus} GPUs, {owners} of them with tables,"
            most = f"more than the {MAX_TASKS} there can be"
            raise DoesNotFit(f"{passes} take {tasks} computations and transfers, {most}", None)
        return found

    def _fits(self, plan: Plan) -> bool:
        return self.memory(plan).total <= memory_bytes(self.accelerator)

    def _does_not_fit(self, gpus: int, tp: int) -> DoesNotFit:
        counts = (1 << power for power in range(MAX_GPUS.bit_length()))
        least = (Plan(count // ways, ways, 1, 1) for count in counts for ways in self._ways(count))
        fits = next((plan.gpus for plan in least if self.job.batch % plan.dp == 0 and self._fits(plan)), None)
        advice = f"{fits} GPUs are enough" if fits else "no power of two that divides the batch is enough"
        needed_bytes = self.memory(Plan(gpus // tp, tp, 1, 1)).total
        return DoesNotFit(f"{shortage(self.accelerator, gpus, needed_bytes)}; {advice}", fits)

    def _split(self, plan: Plan) -> Split:
        times, gathered = self._times(plan), total(self.layers[:-1])
        size, gradients = plan.micro_batch * gathered.gathered_bytes, self.memory(plan).gradients
        passes, backward = self.job.batch // (plan.dp * plan.micro_batch), sum(times.backward)
        return Split(plan, passes, times.forward, backward, times.optimiser, gathered.gathers, size, gradients)

    def traffic(self, plan: Plan) -> Traffic:
        """Gradients in a ring of all GPUs; rows of tables to the GPUs of their samples, and the rows' gradients back."""
        if plan.tp > 1:
            return self._split(plan).traffic()
        gpus, node = plan.gpus, np.arange(plan.gpus, dtype=np.int32)
        # A table's owner sends the rows of all samples of each other GPU, and gets as many bytes of gradients back.
        sent = np.array(owned_tables(self.layers, gpus)[1], np.int64) * (self.job.batch // gpus)
        owner, other = (side.astype(np.int32) for side in np.nonzero(sent[:, None] * (node != node[:, None])))
        ring, rows = np.full(gpus, round(ring_bytes(self.gradient_bytes, gpus)), np.int64), sent[owner]
        part = np.repeat(np.array([DATA, EXCHANGE], np.int8), [gpus, 2 * len(owner)])
        source, destination = np.concatenate((node, owner, other)), np.concatenate((np.roll(node, -1), other, owner))
        return Traffic(source, destination, np.concatenate((ring, rows, rows)), part)

    def _times(self, plan: Plan) -> _Times:
        fitted, layers = calibration(), self.replicated
        bytes_per_s = self.accelerator.memory_gbytes_per_s * 1e9 * fitted.memory_efficiency
        flops_per_s = self.accelerator.matmul_flops(self.job.precision) * fitted.gemm_efficiency

        def product(layer: Layer) -> float:
            """Input and output are about as large, read and written once; a GPU reads all that was gathered."""
            weights = layer.parameters * state_bytes(self.job.precision)[0]
            own = (layer.activation_bytes + layer.split_bytes) * plan.micro_batch + weights
            moved = layer.gathered_bytes * plan.micro_batch + own / plan.tp
            flops = layer.forward_flops * plan.micro_batch / plan.tp
            return max(flops / flops_per_s, moved / bytes_per_s) + fitted.kernel_seconds

        def others(layer: Layer, accesses: int) -> float:
            return accesses * layer.activation_bytes * plan.micro_batch / plan.tp / bytes_per_s

        forward = sum(product(layer) + others(layer, FORWARD_ACCESSES) for layer in layers)
        backward, buckets, ready, parameters = [0.0], [0], 0, total(layers).parameters
        for layer in reversed(layers):
            # A bucket is closed once it is full, so it may be larger than its nominal size by a part of its last layer.
            if buckets[-1] >= BUCKET_BYTES:
                backward.append(0.0)
                buckets.append(0)
            # The backward pass has two products for each forward one: by inputs and by weights.
            backward[-1] += 2 * product(layer) + others(layer, BACKWARD_ACCESSES)
            # Shares of given bytes are rounded such that all of them together are as many.
            ready += layer.parameters
            buckets[-1] = ready * self.gradient_bytes // parameters - sum(buckets[:-1])
        rows = np.array(owned_tables(self.layers, plan.gpus)[1]) * plan.micro_batch * plan.gpus / bytes_per_s
        optimiser = fitted.optimiser_seconds + fitted.optimiser_bytes * total(layers).parameters / plan.tp / bytes_per_s
        return _Times(
            forward, backward, _whole(buckets, plan.gpus), rows * LOOKUP_ACCESSES, rows * UPDATE_ACCESSES, optimiser
        )

    def prediction(self, plan: Plan, rates: Rates) -> Prediction:
        """Predicted iteration: exchanges are not hidden; gradients are, by the last backward pass.

        Of the links of the last exchange gradients get one flow's fair share, the rest waits; tables are updated meanwhile.
        """
        if plan.tp > 1:
            return self._split(plan).prediction(rates, self.memory(plan))
        times, passes = self._times(plan), self.job.batch // (plan.gpus * plan.micro_batch)
        rows = owned_tables(self.layers, plan.gpus)[1]
        # The busiest link is an owner's way out, or the way in of the GPU that owns the least and so receives the most.
        moved = max(max(rows) * (plan.gpus - 1), sum(rows) - min(rows)) * plan.micro_batch
        now = reduced = 0.0
        for seconds, size in zip(times.backward, times.bucket_bytes, strict=True):
            now += seconds
            # Buckets share one ring and go in turn: each begins when it is ready and the one before is reduced.
            reduced = max(now, reduced) + round(ring_bytes(size, plan.gpus)) / rates.data
        tables = float((times.lookup + times.update).max())
        # The bytes of the next bucket follow while the last of one before are still on their way.
        reduced += 2 * (plan.gpus - 1) * rates.data_wait
        exchange = moved / rates.expert + rates.expert_wait if moved else 0.0
        shared = min(reduced - now, exchange / max(plan.gpus - 1, 1))
        return Prediction(
            compute=passes * (times.forward + sum(times.backward) + tables),
            tensor=passes * 2 * exchange,
            pipeline=0.0,
            bubble=0.0,
            data=shared + max(reduced - now - shared - float(times.update.max()), 0.0),
            optimiser=times.optimiser,
            beside=float(times.update.max()),
            exchanges=2 * passes * bool(moved),
            memory=self.memory(plan),
            plan=plan,
        )

    def calls(self, plan: Plan) -> list[RankKind]:
        """An all-reduce of each bucket of gradients; rows of tables to the GPUs of their samples, and gradients back."""
        if plan.tp > 1:
            return self._split(plan).calls()
        sizes = [size for size in self._times(plan).bucket_bytes if plan.gpus > 1]
        reduces = Call("data", "all_reduce", len(sizes), sum(sizes))
        rows, samples = owned_tables(self.layers, plan.gpus)[1], self.job.batch // plan.gpus
        passes = 2 * samples // plan.micro_batch * any(rows)
        sent = (samples * (own * (plan.gpus - 1) + sum(rows) - own) for own in rows)
        each = ((reduces, Call("expert", "all_to_all", passes, size)) for size in sent)
        return rank_kinds(([gpu], calls) for gpu, calls in enumerate(each))

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Count all GPUs as alike, but where some own tables none."""
        return (1 if any(owned_tables(self.layers, plan.gpus)[1]) else plan.dp), plan.tp

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """One iteration, or the part of the GPUs that are kept; the group is the ring of all GPUs.

        A pass looks up, exchanges rows, computes forward and backward, exchanges gradients of rows and updates tables; in
        the last one each bucket of gradients is reduced when all GPUs have it. O(passes x GPUs^2) tasks with tables, else
        O(GPUs).
        """
        if plan.tp > 1:
            return self._split(plan).task_graph(kept)
        times, passes = self._times(plan), self.job.batch // (plan.gpus * plan.micro_batch)
        builder, every = Builder(), np.arange(plan.gpus, dtype=np.int32)
        gpu = every.reshape(self.repeats(plan)[0], -1)[np.unique(kept.blocks)].ravel() if kept else every
        sent = np.array(owned_tables(self.layers, plan.gpus)[1], np.int64) * plan.micro_batch
        done, ready = list[Ids](), list[Ids]()

        def compute(seconds: float | NDArray[np.float64], part: Part = Part.COMPUTE) -> Ids:
            """Add a computation on every GPU, after its last one."""
            added = builder.add(Kind.COMPUTE, part, gpu, picoseconds(np.broadcast_to(seconds, len(gpu)).tolist()))
            if done:
                builder.link(done[-1], added)
            done.append(added)
            return added

        for last in [False] * (passes - 1) + [True]:
            if sent.any():
                _exchange(builder, gpu, sent[:, None], compute(times.lookup), done)
            compute(times.forward)
            # Only the last pass reduces gradients, so only there the backward pass is cut where its buckets end.
            parts = times.backward if last else [sum(times.backward)]
            ready = [compute(seconds) for seconds in parts]
            if sent.any():
                _exchange(builder, gpu, sent[None, :], ready[-1], done)
                compute(times.update)
        reduced = [builder.add(Kind.ALL_REDUCE, Part.DATA, gpu[:1], size, 0) for size in times.bucket_bytes if plan.gpus > 1]
        for before, after in zip(ready, reduced, strict=False):
            builder.link(before, after)
        step = compute(times.optimiser, Part.OPTIMISER)
        for each in reduced:
            builder.link(each, step)
        return builder.graph(plan.gpus, [every[None, :]])

    def figures(self, plan: Plan, seconds: float, bytes_per_s: float) -> dict[str, float]:  # noqa: ARG002
        """Tell the time to accuracy of a job that says how many iterations it has."""
        return {"training_s": seconds * self.job.iterations} if self.job.iterations else {}


def owned_tables(layers: Sequence[Layer], gpus: int) -> tuple[list[int], list[int]]:
    """Parameters of the tables on each GPU, and bytes of their rows per sample.

    The largest table goes first, each to the GPU that sends least so far, of several to the one that holds least.
    """
    held, row_bytes, least = [0] * gpus, [0] * gpus, [(0, 0, gpu) for gpu in range(gpus)]
    for table in sorted((layer for layer in layers if layer.exchange_bytes), key=lambda layer: -layer.parameters):
        owner = least[0][2]
        held[owner] += table.parameters
        row_bytes[owner] += table.exchange_bytes
        heapreplace(least, (row_bytes[owner], held[owner], owner))
    return held, row_bytes


def _whole(buckets: Sequence[int], gpus: int) -> list[int]:
    """Buckets of the same sum, of which all but the last have equal parts for the members of a ring."""
    # Whole parts spare the ring a remainder per bucket; the last bucket takes it, so that the sum does not change.
    parts = [size // gpus * gpus for size in buckets[:-1]]
    return [*parts, sum(buckets) - sum(parts)]


def _exchange(builder: Builder, gpu: Ids, size_bytes: NDArray[np.int64], ready: Ids, done: list[Ids]) -> None:
    """``size_bytes[source, destination]``, broadcast, from all to all; what is next waits for all of it."""
    size = np.broadcast_to(size_bytes, (len(gpu), len(gpu)))
    source, destination = np.nonzero(size)
    # What stays on a GPU uses no link and would be a transfer of a device to itself.
    source, destination = source[source != destination], destination[source != destination]
    tasks = builder.add(Kind.TRANSFER, Part.EXCHANGE, gpu[source], size[source, destination], gpu[destination])
    builder.link(ready[source], tasks)
    end = builder.add(Kind.BARRIER, Part.EXCHANGE, np.full(1, -1, np.int32), 0)
    builder.link(tasks, end)
    # GPUs that send nothing wait for the rows they get, and every GPU for its own last computation.
    builder.link(ready, end)
    done.append(np.broadcast_to(end, gpu.shape))
