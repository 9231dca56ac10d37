"""A dragonfly joins the routers of a group all to all, and the groups all to all."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.electrical.electrical import RELAY_PORT, Electrical
from lightfabric.model.fluid.network import Links
from lightfabric.model.spec import ChipletSpec, DragonflySpec


class Dragonfly(Electrical):
    """Links GPUs to routers and back, routers of a group to each other, then groups to each other.

    Routes are minimal: at most one link in the group of the source, one between groups, one in the group of the destination.
    Of several links between two groups a pair takes one that its router has if there is one, and in any case the one that
    the number of its destination says, so that traffic to all spreads evenly.

    The links of a group that lead out are numbered router by router, and dealt out to the other groups by the distance to
    them, counted upwards and round.
    """

    spec: DragonflySpec

    @property
    def port_gbps(self) -> float:
        """Give the raw rate of a network card."""
        return self.spec.nic_gbps

    @property
    def cycle_chiplet(self) -> ChipletSpec:
        """Give a port with more virtual channels, since routers of a group are joined in circles."""
        return RELAY_PORT

    def links(self, gpus: int) -> list[Links]:
        """Number the links GPU up, down, then those from router to router in groups, then those between groups."""
        spec, (groups, shared) = self.spec, self._sizes(gpus)
        size, on_ps = spec.routers_per_group, self.hop_ps + self.switch_ps
        gpu, rate = np.arange(gpus, dtype=np.int32), self.port_bytes_per_s
        router, between = gpus + gpu // spec.gpus_per_router, spec.link_gbps * 1e9 / 8 * spec.payload_share
        group, here, there = np.ogrid[:groups, :size, : size - 1]
        # A router has no link to itself: those from its own number on are one farther.
        local = np.broadcast_arrays(gpus + group * size + here, gpus + group * size + there + (there >= here))
        group, ahead, link = np.ogrid[:groups, : groups - 1, :shared]
        out, into = self._gateway(ahead, link, shared), self._gateway(groups - 2 - ahead, link, shared)
        far = np.broadcast_arrays(gpus + group * size + out, gpus + (group + ahead + 1) % groups * size + into)
        return [
            Links(gpu, router, rate, self.hop_ps + self.nic_ps, "NIC out"),
            Links(router, gpu, rate, on_ps, "NIC in"),
            Links(local[0].ravel(), local[1].ravel(), between, on_ps, "in groups"),
            Links(far[0].ravel(), far[1].ravel(), between, on_ps, "between groups"),
        ]

    def routes(self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64]) -> NDArray[np.int64]:
        """Route over the routers of both, and over their groups."""
        spec, (groups, shared) = self.spec, self._sizes(gpus)
        size, h = spec.routers_per_group, spec.global_links
        group, router = np.divmod(source // spec.gpus_per_router, size)
        to_group, to_router = np.divmod(destination // spec.gpus_per_router, size)
        apart, ahead = group != to_group, (to_group - group - 1) % groups
        # Links of the pair of groups, from the first to behind the last, those of the own router if there are some.
        first, last = ahead * shared, (ahead + 1) * shared
        own_first, own_last = np.maximum(first, router * h), np.minimum(last, (router + 1) * h)
        own = own_first < own_last
        first, last = np.where(own, own_first, first), np.where(own, own_last, last)
        link = np.where(apart, first - ahead * shared + destination % np.maximum(last - first, 1), 0)
        out = np.where(apart, self._gateway(ahead, link, shared), to_router)
        into = np.where(apart, self._gateway(groups - 2 - ahead, link, shared), to_router)
        first_global = 2 * gpus + groups * size * (size - 1)
        links = [
            source,
            self._local(gpus, group, router, out),
            np.where(apart, first_global + (group * (groups - 1) + ahead) * shared + link, -1),
            self._local(gpus, to_group, into, to_router),
            gpus + destination,
        ]
        return np.stack(links, axis=1)

    def _local(
        self, gpus: int, group: NDArray[np.int64], here: NDArray[np.int64], there: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Number the link between routers of a group, -1 from one to itself."""
        size = self.spec.routers_per_group
        number = 2 * gpus + (group * size + here) * (size - 1) + there - (there > here)
        return np.where(here == there, -1, number)

    def _gateway(self, ahead: NDArray[np.int64], link: NDArray[np.int64], shared: int) -> NDArray[np.int64]:
        """Find the router of a group that has a link to the group so far ahead."""
        return (ahead * shared + link) // self.spec.global_links

    def _sizes(self, gpus: int) -> tuple[int, int]:
        """Count the groups, and the links that each two of them share."""
        spec = self.spec
        group_gpus, links = spec.gpus_per_router * spec.routers_per_group, spec.routers_per_group * spec.global_links
        groups = -(-gpus // group_gpus)
        if groups > links + 1:
            raise ValueError(
                f"a dragonfly of groups with {links} global links has room for {(links + 1) * group_gpus} GPUs, not {gpus}"
            )
        return groups, links // max(groups - 1, 1)
