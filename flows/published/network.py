"""Networks and jobs that others simulated or solved in closed form: BookSim2, TopoOpt, collectives of a flit-level ring."""

import math
from typing import Literal

from lightfabric.flows.format import task_graph
from lightfabric.flows.published.figure import DATA, Figure
from lightfabric.model.fluid import engine
from lightfabric.model.fluid.network import star
from lightfabric.model.router.experiment import Network
from lightfabric.model.router.injection import Traffic
from lightfabric.model.router.topology import topology
from lightfabric.placement.circuit.direct_connect import direct_connect

DEPTH_FLITS, MAX_CYCLES, SEEDS = 8, 60_000, (1, 2, 3)
"""Of synthetic traffic; the latency is their mean."""
BOOKSIM_WITHIN = 0.01
"""And the 95 % intervals of both are about 0.5 % wide."""
BOOKSIM = {
    "torus at load 0.3, mesh at 0.3": ((("torus", 0.3, 1, 8), 28.54), (("mesh", 0.3, 1, 8), 36.88)),
    "packets of 4 flits, torus at 0.4, mesh at 0.3": ((("torus", 0.4, 4, 8), 37.72), (("mesh", 0.3, 4, 8), 45.91)),
    "torus at 0.3 with 3 virtual channels": ((("torus", 0.3, 1, 3), 29.39),),
}
"""Topology, load, flits of a packet, virtual channels: mean latency in cycles, iq router and iSLIP, commit 28f43299."""
MESSAGE_LATENCY_PS = 2_000_000
TOPOOPT_GBPS = (100, 200, 400, 800)
TOPOOPT = {
    "vgg": (210.404, 131.985, 100.481, 100.481),
    "transformer": (63.969, 63.240, 61.434, 60.266),
}
"""Iteration in ms on an ideal switch by the authors' simulator of packets."""
TOPOOPT_WITHIN = 0.005
DIRECT_DEGREES = (4, 8)
DIRECT = {"vgg": (100.559, 100.559), "transformer": (62.815, 62.644)}
"""The same on as many links of 100 Gb/s from each node straight to others."""
DIRECT_WITHIN = 0.0005


def _latency_cycles(name: Literal["torus", "mesh"], load: float, packet_flits: int, channels: int) -> float:
    def of(seed: int) -> float:
        network = Network(topology(name, 8, 2), Traffic(load, packet_flits), channels, DEPTH_FLITS, seed)
        return network.run(MAX_CYCLES).latency_cycles or math.inf

    return sum(map(of, SEEDS)) / len(SEEDS)


def _iteration_ms(job: str, gbps: int, degree: int = 0) -> float:
    graph, nodes = task_graph.read(DATA / "topoopt" / f"{gbps}{job}_16.fbuf")
    rate = gbps * 1e9 / 8
    if degree:
        direct = direct_connect(graph, nodes, degree)
        graph = direct.graph
        network = direct.topology(nodes, rate).network(graph.devices, graph.demand_bytes())
    else:
        network = star(graph.devices, rate, graph.demand_bytes())
    return engine.run(graph, network, message_latency_ps=MESSAGE_LATENCY_PS).makespan_ps / 1e9


def figures() -> list[Figure]:
    """Latencies of routers under uniform traffic, and iterations of jobs on 16 nodes."""
    found = [
        Figure(
            f"mean latency of 8x8 routers, {what}, cycles (BookSim2)",
            f"network --topology --load, mean of {len(SEEDS)} seeds",
            [latency for _, latency in cases],
            lambda cases=cases: [_latency_cycles(*case) for case, _ in cases],
            BOOKSIM_WITHIN,
            ".2f",
        )
        for what, cases in BOOKSIM.items()
    ]
    found += [
        Figure(
            f"{job} on 16 nodes at {', '.join(map(str, TOPOOPT_GBPS))} Gb/s, ms (TopoOpt, NSDI 2023)",
            "replay FILE --bandwidth",
            published_ms,
            lambda job=job: [_iteration_ms(job, gbps) for gbps in TOPOOPT_GBPS],
            TOPOOPT_WITHIN,
            ".3f",
            DATA / "topoopt",
        )
        for job, published_ms in TOPOOPT.items()
    ]
    return found + [
        Figure(
            f"{job} on 16 nodes with 4, 8 links of 100 Gb/s each, its own fabric, ms (TopoOpt, NSDI 2023)",
            "replay FILE --bandwidth 100Gbps --fabric topoopt --degree",
            published_ms,
            lambda job=job: [_iteration_ms(job, 100, degree) for degree in DIRECT_DEGREES],
            DIRECT_WITHIN,
            ".3f",
            DATA / "topoopt",
        )
        for job, published_ms in DIRECT.items()
    ]
