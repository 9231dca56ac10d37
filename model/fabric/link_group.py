"""Links of a network in groups that a person knows: what they are, where they are, and what they carry."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.network import Network


class LinkGroup(NamedTuple):
    """Holds links alike, each at a place along the fabric, such as that of its GPU; ``towards`` which one, if they are many.

    Several links may be at one place. ``size_bytes`` is what each carries of the ``bytes_per_s`` that it could.
    """

    name: str
    place: NDArray[np.int64]
    towards: NDArray[np.int64] | None
    size_bytes: NDArray[np.float64]
    bytes_per_s: NDArray[np.float64]


def link_groups(network: Network, gpus: int, size_bytes: NDArray[np.float64]) -> list[LinkGroup]:
    """Group links by their names, or where they lead if they have none: those of GPUs to GPUs are places of both."""
    source, destination = network.link_source.astype(np.int64), network.link_destination.astype(np.int64)
    ends = (source < network.devices) + 2 * (destination < network.devices)
    kinds = np.where(source == destination, _RELAY, ends)
    named = np.zeros(len(source), np.int64) if network.name_of_link is None else network.name_of_link
    found = list[LinkGroup]()
    for name, kind in np.unique(np.stack([named, kinds], axis=1), axis=0).tolist():
        own = np.flatnonzero((named == name) & (kinds == kind))
        text: str = network.names[int(name)] if kind != _RELAY else ""
        place = source[own] % gpus if kind in (_PAIR, _RELAY) else np.arange(len(own))
        towards = destination[own] % gpus if kind == _PAIR else None
        found.append(LinkGroup(text or _BY_ENDS[kind], place, towards, size_bytes[own], network.bytes_per_s[own]))
    return found


_PAIR, _RELAY = 3, 4
_BY_ENDS = ("between switches", "up", "down", "links", "relays")
