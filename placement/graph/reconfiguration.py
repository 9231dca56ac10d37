"""Task graphs on circuits that change: traffic of each configuration is on links of its own, and waits for its light.

A *run* is the traffic that a GPU sends, receives or relays one after the other in one configuration. A *turn* is the task
between two runs: it waits for all of the first and is waited for by all of the second. So traffic waits in the dark and is
never lost, computation goes on, and both models run the graph as it is.

A task of an exchange stands for one in each layer of a pass. Each of these goes through all of its steps, every second one
from the last to the first, so that a turn between two steps stands for as many, and so does one behind sums in the layers.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.task import Kind, Part, TaskGraph

_Ints = NDArray[np.int64]


def in_configurations(graph: TaskGraph, circuits: Circuits) -> TaskGraph:
    """Move the traffic of each part to the nodes that GPUs are in its configuration, see ``Circuits``. O(tasks + members).

    Computations, and tasks whose bytes pass no circuit, stay on the first ``graph.devices`` nodes. ValueError for a graph
    whose tasks have no part.
    """
    if graph.part is None:
        raise ValueError("TaskGraph.part must be given, not None")
    traffic = np.flatnonzero((graph.kind == Kind.TRANSFER) | (graph.kind == Kind.ALL_REDUCE))
    of_task = np.zeros(len(graph), np.int64)
    of_task[traffic] = circuits.configuration_of(graph.part[traffic], graph.device[traffic], graph.peer[traffic])
    moved = _moved(graph, circuits.configurations, of_task)
    of_task[np.setdiff1d(traffic, _passed(moved, circuits)[1])] = 0
    return _moved(graph, circuits.configurations, of_task)


def _moved(graph: TaskGraph, count: int, of_task: _Ints) -> TaskGraph:
    """Number devices and groups by the configuration of each task, of so many."""
    gpus, groups = graph.devices, len(graph.member_start) - 1
    transfer, reduces = graph.kind == Kind.TRANSFER, graph.kind == Kind.ALL_REDUCE
    peer = graph.peer + of_task * np.select([transfer, reduces], [gpus, groups], 0)
    starts = [graph.member_start[:-1] + c * len(graph.members) for c in range(count)]
    return replace(
        graph,
        devices=count * gpus,
        device=(graph.device + of_task * gpus).astype(np.int32),
        peer=peer.astype(np.int32),
        member_start=np.concatenate([*starts, [count * len(graph.members)]]),
        members=np.concatenate([graph.members + c * gpus for c in range(count)]).astype(np.int32),
    )


def with_turns(graph: TaskGraph, circuits: Circuits, dark_ps: int, begin: _Ints, *, as_one: bool) -> TaskGraph:
    """Add the turns of each GPU's ports to a graph that is ``in_configurations``, each of ``dark_ps``.

    Traffic of different configurations at one GPU goes in the order of ``begin``, by task. The ports are back in the first
    configuration in the end, as the next iteration needs them. Traffic waits for the turns of all GPUs that it passes, for
    both ends of a circuit must be dark to turn; ``as_one`` all GPUs turn together, once nothing is under way. A turn is on
    the node of its GPU in the second configuration, which computes nothing else. O(passed log passed) for the GPUs that
    tasks pass.
    """
    assert graph.part is not None, "turns are of parts"
    gpus = graph.devices // circuits.configurations
    node, task = _passed(graph, circuits)
    if as_one:
        node, task = np.zeros(len(np.unique(task)), np.int64), np.unique(task)
    begin, step = _steps(graph, circuits, begin, gpus)
    order = np.lexsort((task, step[task], begin[task], node % gpus))
    node, task = node[order] % gpus, task[order]
    configuration = graph.device[task] // gpus
    opens = np.ones(len(node), bool)
    opens[1:] = (np.diff(node) != 0) | (np.diff(configuration) != 0)
    run, first = np.cumsum(opens) - 1, np.flatnonzero(opens)
    # A turn follows each run but the last of a GPU in the configuration in which that GPU began.
    last = np.append(np.diff(node[first]) != 0, True)
    began = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    back = configuration[first] != np.repeat(configuration[first[began]], np.diff(np.append(began, len(first))))
    turns = ~last | back
    turn = len(graph) + np.cumsum(turns) - 1
    before, after = turns[run], np.append(False, ~last[:-1])[run]
    edges = [(task[before], turn[run[before]]), (turn[run[after] - 1], task[after])]
    # What stands for several exchanges comes behind as many turns: from the step before, or from sums of the same layers.
    exchanges = np.where(_exchanged(graph)[task], graph.operations[task].astype(np.int64), 1)
    again = (step[task[first]] > 0) | (graph.part[task[first - 1]] == Part.TENSOR)
    times = np.where(again, np.maximum.reduceat(exchanges, first) if len(first) else 0, 1)
    return _added(graph, gpus + node[first[turns]], dark_ps * np.where(last, 1, np.roll(times, -1))[turns], edges)


def _steps(graph: TaskGraph, circuits: Circuits, begin: _Ints, gpus: int) -> tuple[_Ints, _Ints]:
    """For each task when it begins, all of an exchange as its last one does, and its step of an exchange."""
    assert graph.part is not None, "steps are of parts"
    own = np.flatnonzero(_exchanged(graph) & (graph.kind == Kind.TRANSFER))
    begin, step = begin.copy(), np.zeros(len(graph), np.int64)
    if circuits.steps and len(own):
        step[own] = np.maximum(graph.device[own] // gpus - circuits.of_part[Part.EXCHANGE], 0)
        end, latest = graph.successors[graph.successor_start[own]], np.zeros(len(graph), np.int64)
        # What some message of an exchange waits for has begun before that, so that no two wait for each other.
        np.maximum.at(latest, end, begin[own])
        begin[own] = latest[end]
    return begin, step


def _exchanged(graph: TaskGraph) -> NDArray[np.bool_]:
    """Tell which tasks are of exchanges, of keys and values too."""
    return (graph.part == Part.EXCHANGE) | (graph.part == Part.CONTEXT)


def with_turns_of_blocks(graph: TaskGraph, circuits: Circuits, dark_ps: int, hidden_share: float) -> TaskGraph:
    """Add turns of ``dark_ps`` for each two all-to-alls that an exchange of a graph ``in_configurations`` stands for.

    What comes back does so on the circuits of what went there. A ``hidden_share`` goes on beside the computation before the
    exchange, whose circuits nobody uses then, the rest between the two. O(passed log passed) for the GPUs that tasks pass.
    """
    node, task = _passed(graph, circuits)
    end = graph.successors[graph.successor_start[task]]
    _, first, turn = np.unique(end * graph.devices + node, return_index=True, return_inverse=True)
    before, gpus = _Predecessors(graph), graph.devices // circuits.configurations
    operations = np.zeros(len(first), np.int64)
    np.maximum.at(operations, turn, graph.operations[task])
    own = np.flatnonzero(graph.device[task] == node)
    sent = np.full(len(first), -1)
    sent[turn[own]] = task[own]
    hidden, shown = len(graph) + np.arange(len(first)), len(graph) + len(first) + np.arange(len(first))
    edges = [(hidden, shown), (shown[turn], task)]
    for number, (at, message) in enumerate(zip((node[first] % gpus).tolist(), sent.tolist(), strict=True)):
        # Who gets tokens but sends none waits for no computation of its own.
        waits = before.of(message) if message >= 0 else np.zeros(0, np.int64)
        begins = before.of(before.computation(message, at, gpus)) if message >= 0 else waits
        edges += [(waits, np.full(len(waits), shown[number])), (begins, np.full(len(begins), hidden[number]))]
    work_ps = dark_ps * operations // 2
    hidden_ps = np.rint(hidden_share * work_ps).astype(np.int64)
    return _added(graph, np.tile(node[first], 2), np.concatenate([hidden_ps, work_ps - hidden_ps]), edges)


class _Predecessors:
    """Lists what a task waits for."""

    def __init__(self, graph: TaskGraph) -> None:
        self._graph, before = graph, np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
        self._task = before[np.argsort(graph.successors, kind="stable")]
        self._start = np.searchsorted(np.sort(graph.successors), np.arange(len(graph) + 1))

    def of(self, task: int) -> _Ints:
        return self._task[self._start[task] : self._start[task + 1]]

    def computation(self, task: int, gpu: int, gpus: int) -> int:
        """Go back from a task to the first computation of a GPU, or to the task that waits for nothing."""
        while self._graph.kind[task] != Kind.COMPUTE and len(waits := self.of(task)):
            task = int(waits[np.argmax(self._graph.device[waits] % gpus == gpu)])
        return task


def _passed(graph: TaskGraph, circuits: Circuits) -> tuple[_Ints, _Ints]:
    """For each task that sends bytes, and each node at an end of the circuits that these pass: the node, the task."""
    sends = graph.work > 0
    transfers = np.flatnonzero(sends & (graph.kind == Kind.TRANSFER) & (graph.device != graph.peer))
    reduces = np.flatnonzero(sends & (graph.kind == Kind.ALL_REDUCE))
    keys, pair = np.unique(
        graph.device[transfers].astype(np.int64) * graph.devices + graph.peer[transfers], return_inverse=True
    )
    groups, group = np.unique(graph.peer[reduces], return_inverse=True)
    ways = [[divmod(key, graph.devices)] for key in keys.tolist()]
    rings = [_around(graph.group(each).tolist()) for each in groups.tolist()]
    found = [_ends(pairs, circuits) for pairs in (*ways, *rings)]
    which = np.concatenate([pair, len(ways) + group])
    nodes: list[_Ints] = [found[each] for each in which.tolist()]
    task = np.repeat(np.concatenate([transfers, reduces]), list(map(len, nodes)))
    return np.concatenate([np.zeros(0, np.int64), *nodes]), task


def _around(members: list[int]) -> list[Pair]:
    """List the pairs of a ring; none for a single member."""
    return list(pairwise([*members, members[0]])) if len(members) > 1 else []


def _ends(pairs: list[Pair], circuits: Circuits) -> _Ints:
    """List the ends of all circuits between pairs; those that talk without circuits have no stops."""
    hops = (hop for pair in pairs for hop in pairwise(circuits.stops.get(pair, ())))
    return np.array(sorted({end for hop in hops if hop in circuits.lanes for end in hop}), np.int64)


def _added(graph: TaskGraph, device: _Ints, work_ps: _Ints, edges: list[tuple[_Ints, _Ints]]) -> TaskGraph:
    """Append reconfigurations on these devices, and edges."""
    assert graph.part is not None, "turns are of parts"
    total, old = len(graph) + len(device), np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    before = np.concatenate([old, *(edge[0] for edge in edges)])
    after = np.concatenate([graph.successors, *(edge[1] for edge in edges)])
    order = np.argsort(before, kind="stable")

    def longer(column: NDArray[np.int8 | np.int32 | np.int64], value: int) -> NDArray[np.int8 | np.int32 | np.int64]:
        return np.append(column, np.full(len(device), value, column.dtype))

    return replace(
        graph,
        kind=longer(graph.kind, Kind.COMPUTE),
        device=np.append(graph.device, device).astype(np.int32),
        work=np.append(graph.work, work_ps),
        peer=longer(graph.peer, -1),
        operations=longer(graph.operations, 1),
        successor_start=np.searchsorted(before[order], np.arange(total + 1)).astype(np.int64),
        successors=after[order].astype(np.int32),
        part=longer(graph.part, Part.RECONFIGURATION),
    )
