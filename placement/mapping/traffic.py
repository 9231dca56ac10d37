"""Traffic between ranks in one iteration, and what it costs on a fabric where each rank has its GPU."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import found_among, pair_keys
from lightfabric.model.spec import (
    JobSpec,
)
from lightfabric.model.task import Part
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.volume import Volume, ring_bytes, volume

_Entries = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int8]]
Dimension = Literal["tp", "dp", "pp"]
TENSOR, PIPELINE, DATA, EXCHANGE, CONTEXT = Part.TENSOR, Part.PIPELINE, Part.DATA, Part.EXCHANGE, Part.CONTEXT


@dataclass(frozen=True)
class Traffic:
    """One iteration's bytes from node to node, an entry per directed pair and ``part``, one of those above.

    What goes to the next stage, and to experts or from tables, comes before what goes back, which is as many entries.
    """

    source: NDArray[np.int32]
    destination: NDArray[np.int32]
    size_bytes: NDArray[np.int64]
    part: NDArray[np.int8]

    def placed(self, gpu_of_rank: NDArray[np.int32]) -> "Traffic":
        """The same traffic between the GPUs that the ranks run on."""
        return Traffic(gpu_of_rank[self.source], gpu_of_rank[self.destination], self.size_bytes, self.part)

    @property
    def phase(self) -> NDArray[np.int8]:
        """The part that each entry goes on with: keys and values are exchanged as what goes to experts is."""
        return np.where(self.part == CONTEXT, np.int8(EXCHANGE), self.part)

    def of(self, part: int) -> "Traffic":
        """The entries of one part, or that go on with it."""
        return self[self.phase == part]

    def at_once(self, part: int) -> "Traffic":
        """The entries of one part that move at the same time: forward and back alternate."""
        flows = self.of(part)
        return flows[: len(flows.part) // 2] if part in (PIPELINE, EXCHANGE) else flows

    def __getitem__(self, chosen: Any) -> "Traffic":
        return Traffic(self.source[chosen], self.destination[chosen], self.size_bytes[chosen], self.part[chosen])


def traffic(job: JobSpec, plan: Plan, loads: Sequence[float] = ()) -> Traffic:
    """Bytes between ranks in one iteration: rings over tp and dp, both ways along the stages, round them if interleaved.

    With cp also rings of keys and values, and of their gradients the other way round. With ep all-to-alls among ep replicas
    next to each other, on the ways of ``routing.copies``, and rings over the replicas that hold the same experts.
    ``loads`` of experts are those of the job if left out.
    """
    rank = plan.by_replica
    sent = volume(job, plan, loads)
    tensor, pipeline, data, experts = (np.rint(size) for size in sent.neighbour_bytes(np.arange(plan.pp)))
    # Interleaved, a micro-batch goes round from the last stage to the first once less than there are chunks.
    again = pipeline // plan.virtual_stages * (plan.virtual_stages - 1)
    entries = [
        _entries(TENSOR, rank, np.roll(rank, -1, axis=2), tensor[:, None]),
        _entries(PIPELINE, rank[:, :-1], rank[:, 1:], pipeline),
        _entries(PIPELINE, rank[:, -1], rank[:, 0], again),
        _entries(PIPELINE, rank[:, 1:], rank[:, :-1], pipeline),
        _entries(PIPELINE, rank[:, 0], rank[:, -1], again),
        _entries(DATA, rank, np.roll(rank, -1, axis=0), data[:, None]),
    ]
    exchanged = [_gathers(sent, plan, rank)] if plan.cp > 1 else []
    if plan.ep > 1:
        block = rank.reshape(-1, plan.ep, plan.pp, plan.tp)
        exchanged.append(_exchanges(sent, block, 1 + sent.backward_passes))
        entries.append(_entries(DATA, block, np.roll(block, -1, axis=0), experts[:, None]))
    # All that goes to others comes before all that comes back.
    entries += chain.from_iterable(zip(*exchanged, strict=True))
    return _joined(entries)


def _gathers(sent: Volume, plan: Plan, rank: NDArray[np.int32]) -> Iterator[_Entries]:
    """Keys and values of a rank go round the ring of those that share a sequence, and their gradients come back."""
    ring = rank.reshape(-1, plan.cp, plan.pp, plan.tp)
    each = sent.micro_batches * sent.of.stage_layers(np.arange(plan.pp)) * (plan.cp - 1) * sent.key_bytes
    for way, times in ((-1, sum(sent.gathers)), (1, 1)):
        yield _entries(CONTEXT, ring, np.roll(ring, way, axis=1), (times * each)[:, None])


def _joined(entries: Sequence[_Entries]) -> Traffic:
    source, destination, size, part = (np.concatenate(column) for column in zip(*entries, strict=True))
    talks = (size > 0) & (source != destination)
    return Traffic(source[talks], destination[talks], size[talks], part[talks])


def token_traffic(job: JobSpec, plan: Plan, token_bytes: int) -> Traffic:
    """Bytes between ranks for an output token of each sequence: ``job`` has sequences of one token, of ``token_bytes``.

    Rings over tp, from stage to stage and, only what the token is, round to the first, and all-to-alls of experts.
    """
    rank, sent = plan.by_replica, volume(job, plan)
    reduces = sent.micro_batches * sent.reduces(sent.of.stage_layers(np.arange(plan.pp)))
    tensor = np.rint(ring_bytes(reduces * sent.reduce_bytes, plan.tp))
    moved = np.full(plan.pp, sent.reduce_bytes)
    moved[-1] = sent.of.tokens * token_bytes
    entries = [_entries(TENSOR, rank, np.roll(rank, -1, axis=2), tensor[:, None])]
    for part in range(2):
        # All ways are used at once, so each of the two equal halves that a part has of these has every way.
        half = (sent.micro_batches * moved + part) // 2
        entries.append(_entries(PIPELINE, rank, np.roll(rank, -1, axis=1), half[:, None]))
    if plan.ep > 1:
        entries += _exchanges(sent, rank.reshape(-1, plan.ep, plan.pp, plan.tp), 1)
    return _joined(entries)


def _exchanges(sent: Volume, block: NDArray[np.int32], passes: int) -> Iterator[_Entries]:
    """Half of the all-to-alls of all passes go to the experts and half back."""
    source, destination = np.broadcast_arrays(block[:, :, None], block[:, None])
    routed = sent.of.routed_layers(np.arange(sent.of.pp))
    count = sent.micro_batches * sent.exchanges(routed) * passes // 2
    for each in (sent.dispatched_bytes, sent.combined_bytes):
        yield _entries(EXCHANGE, source, destination, each[:, :, None, None] * count[:, None])


def _entries(part: int, source: NDArray[np.int32], destination: NDArray[np.int32], size_bytes: NDArray[Any]) -> _Entries:
    size = np.broadcast_to(np.asarray(size_bytes, np.int64), source.shape)
    return source.ravel(), destination.ravel(), size.ravel(), np.full(source.size, part, np.int8)


def in_rings(flows: Traffic, rings: Callable[[NDArray[np.int32], int], list[NDArray[np.int32]]], gpus: int) -> Traffic:
    """The flows with those of each ring of ranks dealt out to the ``rings`` of its members, if they are several.

    Of rings of the same part that share ranks the entries of one come before those of the other.
    """
    kept = np.ones(len(flows.part), bool)
    members, parts, sizes = list[NDArray[np.int32]](), list[int](), list[int]()
    for part in (TENSOR, DATA):
        for entries in _cycles(flows, np.flatnonzero(flows.part == part)):
            found = rings(flows.source[entries], gpus)
            if len(found) > 1:
                kept[entries] = False
                # The rest of a division goes to the first rings, so that no byte is lost.
                each, left = divmod(int(flows.size_bytes[entries[0]]), len(found))
                members += found
                parts += [part] * len(found)
                sizes += [each + (turn < left) for turn in range(len(found))]
    if not members:
        return flows
    before, lengths = flows[kept], np.array([len(ring) for ring in members])
    end, source = np.cumsum(lengths), np.concatenate(members)
    following = np.arange(1, len(source) + 1)
    following[end - 1] = end - lengths
    added_bytes = np.repeat(np.array(sizes, np.int64), lengths)
    return Traffic(
        np.concatenate([before.source, source]),
        np.concatenate([before.destination, source[following]]),
        np.concatenate([before.size_bytes, added_bytes]),
        np.concatenate([before.part, np.repeat(np.array(parts, np.int8), lengths)]),
    )


def _cycles(flows: Traffic, entries: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Entries of each ring among some, in the ring's order: every rank sends once in a ring. O(entries x log entries).

    What a rank sends first is in one ring with what the others send first, and so on.
    """
    while True:
        if not len(entries):
            return []
        source, destination = (
            pair_keys(end[entries], _turns(flows.source[entries])) for end in (flows.source, flows.destination)
        )
        after = found_among(source, destination)
        closed = after >= 0
        closed &= np.bincount(after[closed], minlength=len(entries)) > 0
        if closed.all():
            break
        entries = entries[closed]
    rank, begin = np.unique(flows.source[entries], return_index=True)
    first = pair_keys(begin[np.searchsorted(rank, flows.source[entries])], np.bitwise_and(source, 0xFFFFFFFF))
    ring, leap = first, after
    for _ in range(len(entries).bit_length()):
        ring, leap = np.minimum(ring, ring[leap]), leap[leap]
    # Entries are counted from the end of a ring, whose first one comes after the last.
    ends = (first == ring)[after]
    left, leap = np.where(ends, 0, 1), np.where(ends, np.arange(len(entries)), after)
    for _ in range(len(entries).bit_length()):
        left, leap = left + left[leap], leap[leap]
    order = np.lexsort((-left, ring))
    return np.split(entries[order], 1 + np.flatnonzero(np.diff(ring[order])))


def _turns(value: NDArray[Any]) -> NDArray[np.int64]:
    """Count for each entry those of the same value before it."""
    order = np.argsort(value, kind="stable")
    _, begin, count = np.unique(value[order], return_index=True, return_counts=True)
    turns = np.empty(len(value), np.int64)
    turns[order] = np.arange(len(value)) - np.repeat(begin, count)
    return turns


def ring_steps(source: NDArray[np.int32], destination: NDArray[np.int32], gpus: int) -> NDArray[np.int64]:
    """Segments from source to destination the shorter way round, negative if backward; opposite GPUs go either way.

    Of the pairs exactly half the ring apart those of even source go forward, the others backward, except on a ring of
    two, where forward arcs alone are disjoint.
    """
    ahead = np.mod(destination.astype(np.int64) - source, gpus)
    opposite = (2 * ahead == gpus) & (source % 2 == 1) & (gpus > 2)
    return np.where((2 * ahead > gpus) | opposite, ahead - gpus, ahead)


def segment_load(
    source: NDArray[np.int32], steps: NDArray[np.int64], amount: NDArray[np.int64], gpus: int
) -> NDArray[np.int64]:
    """Amount that crosses each ring segment, ``[direction, segment]``; segment k lies between GPUs k and k + 1."""
    # Segments are counted upwards, so a backward arc begins at its far end.
    first = np.mod(np.where(steps > 0, source, source + steps), gpus)
    backward = (steps < 0).astype(np.int64)
    change = np.zeros((2, 2 * gpus + 1), np.int64)
    np.add.at(change, (backward, first), amount)
    np.subtract.at(change, (backward, first + np.abs(steps)), amount)
    # An arc may pass the last GPU, so the line is two rounds long, and the rounds are added up.
    twice_round = np.cumsum(change, axis=1)[:, : 2 * gpus]
    return twice_round[:, :gpus] + twice_round[:, gpus:]


def ring_load(flows: Traffic, gpus: int) -> NDArray[np.int64]:
    """Bytes that cross each segment of a ring of all GPUs, ``[direction, segment]``; flows go the shorter way."""
    return segment_load(flows.source, ring_steps(flows.source, flows.destination, gpus), flows.size_bytes, gpus)


def degrees(flows: Traffic, gpus: int) -> NDArray[np.int64]:
    """Count the others to which each GPU sends."""
    pairs = np.unique(flows.source.astype(np.int64) * gpus + flows.destination)
    return np.bincount(pairs // gpus, minlength=gpus)


def busiest_bytes(flows: Traffic, gpus: int, chosen: NDArray[np.bool_] | None = None) -> float:
    """Most bytes that one GPU sends or receives, in the ``chosen`` pairs if these are given."""
    size = (flows.size_bytes if chosen is None else np.where(chosen, flows.size_bytes, 0)).astype(float)
    return max(float(np.bincount(end, size, gpus).max()) for end in (flows.source, flows.destination))


def byte_hops(flows: Traffic, gpus: int) -> int:
    """Bytes times ring segments, summed over all pairs."""
    return int((np.abs(ring_steps(flows.source, flows.destination, gpus)) * flows.size_bytes).sum())


def bound_byte_hops(flows: Traffic, gpus: int) -> int:
    """What no order on a ring can be below: a GPU has two others at each distance, its busiest partners the nearest.

    The traffic of a pair, both ways, is counted at both ends, so half the sum is the bound.
    """
    low, high = np.minimum(flows.source, flows.destination), np.maximum(flows.source, flows.destination)
    pair = low.astype(np.int64) * gpus + high
    pairs, entry = np.unique(pair, return_inverse=True)
    size = np.zeros(len(pairs), np.int64)
    np.add.at(size, entry, flows.size_bytes)
    end, both = np.concatenate((pairs // gpus, pairs % gpus)), np.concatenate((size, size))
    order = np.lexsort((-both, end))
    first = np.searchsorted(end[order], end[order])
    # Two GPUs lie at each distance, so a GPU's two busiest partners may be next to it, the following two one farther.
    distance = (np.arange(len(order)) - first) // 2 + 1
    return -(-int((both[order] * distance).sum()) // 2)
