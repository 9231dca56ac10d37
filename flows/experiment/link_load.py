"""How loaded the links of a run of the fluid model are, in so few numbers that a figure of any size of fabric has room."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.experiment.fidelity import Detail
from lightfabric.model.fluid.load import link_bytes

if TYPE_CHECKING:
    from lightfabric.model.fabric.fabric import Fabric
    from lightfabric.model.task import Schedule
    from lightfabric.placement.graph.fold import Folded

BINS = 64
"""Most places along a figure; what lies in one is shown by the busiest of its links."""


def link_load(fabric: "Fabric", gpus: int, run: "Folded", schedule: "Schedule") -> Detail:
    """Divide what each link carries by what it could in the time of the iteration, and bin links by kind and place.

    Links from GPU to GPU become a matrix, all others a strip for each kind. A share of 1 is a link that never rests.
    """
    size_bytes = link_bytes(run.graph, run.network, run.alike)
    seconds = max(schedule.makespan_ps, 1) / 1e12
    strips, matrix = dict[str, NDArray[np.float64]](), np.zeros(0)
    for group in fabric.link_groups(run.network, gpus, size_bytes):
        share = group.size_bytes / (group.bytes_per_s * seconds)
        if group.towards is None:
            strips[group.name] = binned(share, group.place)
        else:
            matrix = binned(share, group.place, group.towards, gpus)
    bins = min(gpus, BINS)
    # The first GPU of each bin.
    nodes = [str(-(-place * gpus // bins)) for place in range(bins)]
    return Detail(nodes, matrix, np.zeros(0, np.int64), strips)


def binned(
    share: NDArray[np.float64], place: NDArray[np.int64], towards: NDArray[np.int64] | None = None, places: int = 0
) -> NDArray[np.float64]:
    """Give the largest share of each bin of places, or of places of both ends; NaN where there is no link."""
    places = places or int(place.max(initial=0)) + 1
    bins = min(places, BINS)
    found = np.full((bins,) if towards is None else (bins, bins), np.nan)
    index = place * bins // places
    np.fmax.at(found, index if towards is None else (index, towards * bins // places), share)
    # Digits that no figure shows would make a journal long.
    return found.round(4)
