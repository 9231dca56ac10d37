"""The fluid model at scale: collectives message by message, and GPT-3 on more and more GPUs, folded and unfolded."""

import resource
from collections.abc import Iterable
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.published.figure import DATA
from lightfabric.flows.tool.pool import peak_bytes
from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fluid import engine
from lightfabric.model.fluid.network import Network, pair_ends, star
from lightfabric.model.spec import ACCELERATORS, JobSpec
from lightfabric.placement.graph.fold import Foldable, Linked, folded, unfolded
from lightfabric.placement.graph.message import all_to_all, ring_all_reduce
from lightfabric.placement.job.kind import workload
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.preset import MODELS

BYTES_PER_S, HOP_PS = 50.0 * (1 << 30), 500_000
COLLECTIVES = (
    ("ring all-reduce", ring_all_reduce, 1024, 64 << 20, 12.8, 355),
    ("all-to-all", all_to_all, 256, 1 << 30, 8.2, 258),
)
"""Ranks on a ring of 50 GiB/s and 500 ns a link, bytes of a buffer, CPU-seconds and MB of ASTRA-sim 2, commit 518bd511."""
DLRM, DLRM_S = DATA / "topoopt" / "100dlrm_128.fbuf", 88.0
"""A job of 128 nodes, and the CPU-seconds of the packet simulator of TopoOpt, on a fat tree of 100 Gb/s."""
SIZES, MANY = (64, 256, 1024, 4096, 16_384), 98_304
REPLICA = Plan(dp=1, tp=8, pp=8, micro_batch=1)
SEQUENCES = 16
"""Of each replica of GPT-3 175B."""


class Uniform:
    """Joins GPUs by links alike, and reduces groups in one ring."""

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:  # noqa: ARG002
        """Keep the order of the group."""
        return [members]


class Switch(Uniform):
    """Reaches every GPU over an ideal switch."""

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:  # noqa: ARG002
        """Make a star of the GPUs."""
        return star(gpus, BYTES_PER_S, pairs, up_latency_ps=HOP_PS, down_latency_ps=HOP_PS)


class Ring(Uniform):
    """Links each GPU to both its neighbours; pairs half the ring apart go forward."""

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:  # noqa: ARG002
        """Route the shorter way round: link g leads on from GPU g, link ``gpus + g`` back."""
        source, destination = pair_ends(gpus, pairs)
        ahead = (destination - source) % gpus
        forward = 2 * ahead <= gpus
        hops = np.where(forward, ahead, gpus - ahead)
        here = np.arange(gpus, dtype=np.int32)
        # Twice round on, then twice round back: any way is links in a row.
        way = np.concatenate([here, here, here[::-1] + gpus, here[::-1] + gpus])
        begin = np.where(forward, source, 3 * gpus - 1 - source)
        links = way[np.arange(hops.sum()) + np.repeat(begin - np.cumsum(hops) + hops, hops)]
        return Network(
            gpus, np.tile(here, 2), np.concatenate([np.roll(here, -1), np.roll(here, 1)]),
            np.full(2 * gpus, BYTES_PER_S), np.full(2 * gpus, HOP_PS, np.int64),
            source * gpus + destination, np.append(0, np.cumsum(hops)), links,
        )  # fmt: skip


def measure() -> dict[str, Any]:
    """Measure user CPU-seconds, those of making the graph and the network among them, and ratios to references."""
    collective("all-to-all", all_to_all, 4, 4, 1.0, 1)  # loads what is compiled
    return {
        "collectives": [collective(*row) for row in COLLECTIVES],
        "jobs": [min((dlrm() for _ in range(3)), key=lambda row: row["cpu_s"])] if DLRM.exists() else [],
        "gpts": [*gpts(SIZES), gpt(MANY, whole=False)],
    }


def collective(
    name: str, program: Any, ranks: int, size_bytes: int, reference_s: float, reference_mb: int
) -> dict[str, Any]:
    """Run a collective message by message, of which one rank is simulated if all are alike."""
    before_bytes = peak_bytes()

    def once() -> tuple[float, int, int]:
        begin_s = _user_s()
        makespan_ps, messages = _folded(program(ranks, size_bytes), Plan(ranks, 1, 1, 1), Ring())
        return _user_s() - begin_s, makespan_ps, messages

    cpu_s, makespan_ps, messages = min(once() for _ in range(3))
    return {
        "collective": name, "gpus": ranks, "messages": messages, "seconds": makespan_ps / 1e12, "cpu_s": cpu_s,
        "ratio": reference_s / cpu_s, "reference_cpu_s": reference_s,
        "mb": (peak_bytes() - before_bytes) / 1e6, "reference_mb": reference_mb,
    }  # fmt: skip


def _user_s() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _folded(job: Foldable, plan: Plan, fabric: Linked) -> tuple[int, int]:
    """Makespan in picoseconds, and the tasks that those simulated stand for."""
    run = folded(job, plan, np.arange(plan.gpus, dtype=np.int32), fabric)
    return engine.run(run.graph, run.network, alike=run.alike).makespan_ps, int(run.alike.copies(run.graph).sum())


def dlrm() -> dict[str, Any]:
    """Run the job of 128 nodes on an ideal switch."""
    from lightfabric.placement.format import topoopt

    begin_s = _user_s()
    graph = topoopt.read(DLRM.read_bytes())
    network = star(graph.devices, 100e9 / 8, graph.demand_bytes())
    milliseconds = engine.run(graph, network, message_latency_ps=2_000_000).makespan_ps / 1e9
    cpu_s = _user_s() - begin_s
    return {
        "job": DLRM.name,
        "tasks": len(graph),
        "milliseconds": milliseconds,
        "cpu_s": cpu_s,
        "ratio": DLRM_S / cpu_s,
        "reference_cpu_s": DLRM_S,
    }


def gpts(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Run GPT-3 on more and more GPUs; ``exponent`` says with which power of their number the cost grows up to there."""
    rows = [gpt(gpus, whole=True) for gpus in sizes]
    first = rows[0]
    for row in rows[1:]:
        for cost, exponent in (("cpu_s", "exponent"), ("unfolded_cpu_s", "unfolded_exponent")):
            row[exponent] = log(row[cost] / first[cost]) / log(row["gpus"] / first["gpus"])
    return rows


def gpt(gpus: int, *, whole: bool) -> dict[str, Any]:
    """Run GPT-3 175B with 64 GPUs to a replica on an ideal switch, folded and if ``whole`` unfolded too."""
    replicas = gpus // REPLICA.gpus
    plan, order, fabric = Plan(replicas, REPLICA.tp, REPLICA.pp, 1), np.arange(gpus, dtype=np.int32), Switch()
    job = workload(JobSpec(MODELS["gpt3-175b"], SEQUENCES * replicas), ACCELERATORS["h100"])
    begin_s = _user_s()
    makespan_ps, tasks = _folded(job, plan, fabric)
    folded_s = _user_s()
    found = {"gpus": gpus, "tasks": tasks, "seconds": makespan_ps / 1e12, "cpu_s": folded_s - begin_s}
    if not whole:
        return found | {"mb": peak_bytes() / 1e6}
    graph = unfolded(job, plan, order, fabric)
    same = engine.run(graph, fabric.network(gpus, graph.demand_bytes())).makespan_ps
    return found | {"unfolded_cpu_s": _user_s() - folded_s, "difference_ps": makespan_ps - same}
