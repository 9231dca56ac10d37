"""The list of links of a custom fabric, taken from a topology of InfraGraph."""

from pathlib import Path
from typing import Any

import numpy as np

from lightfabric.flows.format import infragraph
from lightfabric.flows.report import WrongError, shown


def expand(fabrics: object, folder: Path) -> None:
    """Replace ``file`` of each custom fabric by the ``gpus`` and ``links`` in that file, its path relative to ``folder``."""
    for index, fabric in enumerate(fabrics if isinstance(fabrics, list) else []):
        if fabric["kind"] != "custom" or "file" not in fabric:
            continue
        where, name = f"fabrics[{index}].file", fabric.pop("file")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise WrongError(f"{where} must be the path of an InfraGraph topology, not {shown(name)}")
        if beside := sorted(fabric.keys() & {"gpus", "links"}):
            raise WrongError(f"{where} must be left out beside {beside[0]}, not {shown(name)}")
        fabric.update(_fields(folder / name, where))


def _fields(path: Path, where: str) -> dict[str, Any]:
    topology = infragraph.read(path, np.nan)
    if np.isnan(topology.bytes_per_s).any():
        raise WrongError(f"{where} must say the bandwidth of each link in use, not leave one out")
    # GPUs are the first vertices of a fabric, in the order of their ranks.
    order = np.concatenate([topology.ranks, np.setdiff1d(np.arange(topology.vertices), topology.ranks)])
    vertex = np.argsort(order)
    one_way = slice(len(topology.source) // 2)
    columns = vertex[topology.source], vertex[topology.destination], topology.bytes_per_s * 8e-9, topology.latency_ps / 1e3
    links = zip(*(column[one_way].tolist() for column in columns), strict=True)
    return {"gpus": len(topology.ranks), "links": [list(link) for link in links]}
