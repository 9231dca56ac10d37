"""Models are compiled, or loaded, in a worker while the RTL is being measured, so that the first run does not wait."""

from dataclasses import fields
from typing import Any

from lightfabric.model.spec import ChipletSpec
from lightfabric.placement.job.kind import workload


def load_fluid() -> None:
    """Compile the fluid model, or load what numba kept of it, on a graph of two devices."""
    from lightfabric.model.fluid import engine as fluid
    from lightfabric.model.fluid.network import star
    from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
    from lightfabric.placement.plan import Plan

    job = JobSpec(ModelSpec(layers=2, hidden=64, heads=2, sequence=64, vocabulary=64), batch=2)
    graph = workload(job, ACCELERATORS["h100"]).task_graph(Plan(dp=1, tp=2, pp=1, micro_batch=1))
    fluid.run(graph, star(2, 1e9, graph.demand_bytes()))


def load_link() -> None:
    """Compile the cycle model of a link, or load it, with a timing that stands for the one not measured yet."""
    from lightfabric.model.cycle.sustained import sustained_cycles_per_flit
    from lightfabric.model.timing import LinkTiming

    one: Any = 1
    sustained_cycles_per_flit(ChipletSpec(), LinkTiming(*[one] * len(fields(LinkTiming))), 0)
