"""SiP-Ring joins GPUs by a ring of fibres, half of the ports facing each way [SiP-ML, SIGCOMM 2021]."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.fabric import usable_in_parts
from lightfabric.model.fabric.link_group import LinkGroup
from lightfabric.model.fabric.optical.optical import Optical
from lightfabric.model.fluid.network import Network
from lightfabric.model.spec import SipRingSpec


class SipRing(Optical):
    """Makes a circuit of some wavelengths of a pair, as long as the shorter way round the ring."""

    spec: SipRingSpec

    @property
    def lanes_per_port(self) -> int:
        """A lane is one wavelength."""
        return self.chiplet.wavelengths_per_port

    @property
    def turns_as_one(self) -> bool:
        """Wavelengths pass the segments of others, which may still use them in the old circuits."""
        return True

    def lengths_m(self, source: NDArray[np.int64], destination: NDArray[np.int64], gpus: int) -> NDArray[np.float64]:
        """Count as many fibres as the pair is apart, with those that lead past dead nodes."""
        place, ahead = self._places(gpus), np.mod(destination - source, gpus)
        fibres = np.mod(place[destination] - place[source], place[-1] + 1)
        return np.where(self._backward(source, ahead, gpus), place[-1] + 1 - fibres, fibres) * self.spec.fibre_m

    def _backward(self, source: NDArray[np.int64], ahead: NDArray[np.int64], gpus: int) -> NDArray[np.bool_]:
        """Tell which circuits go backward; placement leads every other pair of opposite GPUs so."""
        return (2 * ahead > gpus) | (2 * ahead == gpus) & (source % 2 == 1) & (gpus > 2)

    def _places(self, gpus: int) -> NDArray[np.int64]:
        """Find the place of each GPU on a ring with places for dead ones."""
        size, dead = self.spec.node_gpus, self.spec.dead_nodes
        places = np.arange(gpus + len(dead) * size)
        return places[~np.isin(places // size, dead)][:gpus]

    def link_groups(self, network: Network, gpus: int, size_bytes: NDArray[np.float64]) -> list[LinkGroup]:
        """Put the segments of both ways round before the circuits, with all the light that fits into their fibres."""
        found = super().link_groups(network, gpus, size_bytes)
        # Arcs may pass the last GPU, so the line is two rounds long, and the rounds are added up.
        change = np.zeros((2, 2 * gpus + 1))
        for group in found:
            if group.towards is None:
                continue
            ahead = np.mod(group.towards - group.place, gpus)
            back = self._backward(group.place, ahead, gpus).astype(np.int64)
            first = np.where(back, group.towards, group.place)
            np.add.at(change, (back, first), group.size_bytes)
            np.add.at(change, (back, first + np.where(back, gpus - ahead, ahead)), -group.size_bytes)
        load = np.cumsum(change, axis=1)[:, :-1].reshape(2, 2, gpus).sum(axis=1)
        rate = np.full(gpus, self.chiplet.ports / 2 * self.port_gbps * 1e9 / 8 * self.efficiency)
        segments = (
            LinkGroup(f"segments {way}", np.arange(gpus), None, load[back], rate)
            for back, way in enumerate(("forward", "backward"))
        )
        return [*segments, *(group._replace(towards=None) for group in found)]

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give the members both ways where their ring goes all round that of the fibres, of which half stay dark else.

        What closes another ring goes back over the segments that its members are on, so that it uses both ways as it is.
        """
        ahead = np.mod(np.roll(members, -1) - members, gpus)
        steps = np.where(2 * ahead > gpus, ahead - gpus, ahead)
        # Opposite GPUs send to each other the same way round, so the ring the other way need not be disjoint.
        return [members, members[::-1]] if steps.sum() and not np.any(2 * ahead == gpus) else [members]

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Give groups GPUs in a row, past as many dead nodes as are bypassed; without bypass a fixed block each."""
        if self.spec.bypass_hops == 1:
            return usable_in_parts(alive, group, group)
        state, gpu = np.nonzero(alive)
        node, nodes = gpu // self.spec.node_gpus, -(-alive.shape[1] // self.spec.node_gpus)
        new = np.diff(state, prepend=-1) > 0
        row = np.cumsum(new | (np.diff(node, prepend=0) > self.spec.bypass_hops)) - 1
        length, first, last = np.bincount(row), np.flatnonzero(new), np.flatnonzero(np.roll(new, -1))
        # The ring has no end: the last row of a state goes on in its first, if they are not one already.
        around = (nodes + node[first] - node[last] <= self.spec.bypass_hops) & (row[first] != row[last])
        length[row[first[around]]] += length[row[last[around]]]
        length[row[last[around]]] = 0
        of_row = state[np.flatnonzero(np.diff(row, prepend=-1))]
        usable = np.zeros(len(alive), np.int64)
        np.add.at(usable, of_row, length // group * group)
        return usable
