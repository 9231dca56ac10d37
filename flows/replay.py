"""``lightfabric replay``: a task graph of a real job on a fabric, as its authors ran it."""

import re
from pathlib import Path
from typing import Any

from lightfabric.flows.report import InputError, RunError, print_json, read_bytes

MESSAGE_LATENCY_PS = 2_000_000
"""2 us per message step: the set-up that reproduces the iteration times published with the TopoOpt files."""
MOST_BYTES = 256 << 20
FABRICS = ("ideal-switch",)

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([MGT])bps")
_GBPS = {"M": 1e-3, "G": 1.0, "T": 1e3}
_LEAST_GBPS, _MOST_GBPS = 1e-3, 1e6


def replay(path: Path, bandwidth_gbps: float, *, message_latency_ps: int = MESSAGE_LATENCY_PS) -> dict[str, Any]:
    """One iteration of a TopoOpt file on an ideal switch, with ``bandwidth_gbps`` per node and direction.

    The published bandwidth is payload: nothing is taken off for coding or headers, and the links themselves have no
    latency. InputError names the file and the field that is wrong.
    """
    from lightfabric.placement import topoopt

    data = read_bytes(path, MOST_BYTES, "a TopoOpt task graph")
    try:
        graph = topoopt.read(data)
    except ValueError as error:
        raise InputError(f"{path}: must be a whole TopoOpt task graph: {error}") from None

    from lightfabric.model import fluid
    from lightfabric.model.network import star

    network = star(graph.devices, bandwidth_gbps * 1e9 / 8, graph.demand_bytes())
    try:
        schedule = fluid.run(graph, network, message_latency_ps=message_latency_ps)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    return {
        "file": str(path),
        "fabric": FABRICS[0],
        "bandwidth_gbps": bandwidth_gbps,
        "devices": topoopt.nodes(graph),
        "tasks": len(graph),
        "iteration_ms": schedule.makespan_ps / 1e9,
    }


def main(path: Path, bandwidth: str, fabric: str, as_json: bool) -> None:
    """The command: checks its options, replays, prints one line or one JSON object."""
    bandwidth_gbps = _gbps(bandwidth)
    if fabric not in FABRICS:
        raise InputError(f"--fabric must be one of {', '.join(FABRICS)}, not {fabric!r}")
    result = replay(path, bandwidth_gbps)
    if as_json:
        print_json(result)
    else:
        print(
            f"{result['iteration_ms']:.3f} ms per iteration of {path.name}: {result['tasks']} tasks, "
            f"{result['devices']} devices on {result['fabric']} at {bandwidth_gbps:g} Gbps each"
        )


def _gbps(bandwidth: str) -> float:
    match = _RATE.fullmatch(bandwidth)
    gbps = float(match[1]) * _GBPS[match[2]] if match else 0.0
    if not _LEAST_GBPS <= gbps <= _MOST_GBPS:
        must_be = f"a rate with unit such as 100Gbps, from {_LEAST_GBPS:g}Gbps to {_MOST_GBPS:.0f}Gbps"
        raise InputError(f"--bandwidth must be {must_be}, not {bandwidth!r}")
    return gbps
