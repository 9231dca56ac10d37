"""An all-to-all on a lattice in which GPUs send to their neighbours only, and pass on what is for others."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.direct.lattice import Lattice
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.graph.builder import Builder, Ids

_Ints = NDArray[np.int64]


def all_to_all_by_neighbours(lattice: Lattice, size_bytes: int) -> TaskGraph:
    """Send so many bytes from each GPU to each other one, a link at a time, so that messages never share one.

    In step t each GPU sends a message each way with all that has its hop t there. It does so when its message of the step
    before is sent that way, and what it passes on has come. Links carry as much as if all went straight along ways that load
    them evenly. O(gpus x hops).
    """
    parts, gpus = lattice.directions, lattice.gpus
    way = ways(lattice)
    _, ahead = lattice.neighbours()
    to = lattice.gpu(ahead).astype(np.int32).T
    came_from = np.argsort(to, axis=1)
    builder, here, before = Builder(), np.arange(gpus, dtype=np.int32), dict[int, Ids]()
    for step in range(way.shape[1]):
        now = dict[int, Ids]()
        for direction in range(lattice.directions):
            going = way[:, step] == direction
            if not going.any():
                continue
            sent_bytes = -(-size_bytes * int(going.sum()) // parts)
            now[direction] = builder.add(Kind.TRANSFER, Part.EXCHANGE, here, sent_bytes, to[direction])
            if direction in before:
                builder.link(before[direction], now[direction])
            if step:
                for came in np.unique(way[going, step - 1]).tolist():
                    builder.link(before[came][came_from[came]], now[direction])
        before |= now
    return builder.graph(gpus, [])


def ways(lattice: Lattice) -> _Ints:
    """List the directions of the hops of each part of each displacement, ``[part, hop]``, filled up with -1.

    A displacement has a part for each direction of the lattice. All go one shortest way, or share all of them, whichever
    leaves less to the busiest links of all steps.
    """
    parts = range(lattice.directions)
    shared = [each[part % len(each)] for each in lattice.shortest() for part in parts]
    options = [_hops(vectors, len(parts)) for vectors in (np.repeat(lattice.chosen, len(parts), axis=0), np.array(shared))]
    return min(options, key=lambda found: sum(np.bincount(step[step >= 0]).max() for step in found.T))


def _hops(vectors: _Ints, directions: int) -> _Ints:
    """Let every hop take the axis that fewer others take in its step, short vectors first, which choose less."""
    hops = np.abs(vectors).sum(axis=1)
    found = np.full((len(vectors), int(hops.max())), -1, np.int64)
    load = np.zeros((found.shape[1], directions), np.int64)
    for each in np.argsort(hops, kind="stable").tolist():
        left = np.abs(vectors[each])
        direction = 2 * np.arange(len(left)) + (vectors[each] < 0)
        for step in range(int(hops[each])):
            axis = int(np.lexsort((-left, load[step, direction], left == 0))[0])
            found[each, step] = direction[axis]
            load[step, direction[axis]] += 1
            left[axis] -= 1
    return found
