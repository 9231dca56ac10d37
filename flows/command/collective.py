"""``lightfabric collective`` compares the algorithms of a collective on fabrics, beside the least time that it can take."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lightfabric.flows.command.place import chosen
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.option import AsJson, SpecFile, count
from lightfabric.flows.report import InputError, print_json, print_table, require_one_of, say
from lightfabric.model.circuit import Pair
from lightfabric.model.spec import StudySpec
from lightfabric.placement.collective.algorithm import IN_NETWORK
from lightfabric.placement.collective.choice import MAX_MEMBERS
from lightfabric.placement.collective.sends import Collective
from lightfabric.placement.synthesis.synthesis import KINDS as SYNTHESISED

if TYPE_CHECKING:
    from lightfabric.model.fluid.network import Network
    from lightfabric.placement.collective.choice import Networks
    from lightfabric.placement.fabric.fabric import Fabric
    from lightfabric.placement.synthesis.links import Links

KINDS = {each.name.lower().replace("_", "-"): each for each in SYNTHESISED}
MAX_BYTES = 1 << 50
DEFAULT_GBPS = 100.0
"""Of a link for which a file of InfraGraph says no bandwidth."""
TOPOLOGIES = (".yaml", ".yml", ".json")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGT]i?)?B")
_UNITS = {"": 1, **{unit: 1000**power for power, unit in enumerate("kMGT", 1)}, "K": 1000}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)} | {"ki": 1024}

Joined = tuple[str, "Networks", Callable[[], "Links | None"]]
"""The name of a fabric, what makes its networks, and its links if these do not depend on what is sent."""


def main(
    path: SpecFile = None,
    gpus: Annotated[int | None, count("Members, GPUs 0 and on; as many as there are if left out.")] = None,
    fabric: Annotated[
        str | None, typer.Option(help="One of the spec's fabrics, all if left out; or a file .yaml or .json of InfraGraph.")
    ] = None,
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS)}.")] = "all-reduce",
    size: Annotated[str, typer.Option("--bytes", help="The whole buffer of a member, such as 64MiB or 1GB.")] = "64MiB",
    as_json: AsJson = False,
) -> None:
    """Check the options, predict all algorithms, synthesise a schedule and print a table or one JSON object."""
    require_one_of("--kind", KINDS, kind)
    size_bytes = bytes_of(size)
    if fabric is not None and Path(fabric).suffix in TOPOLOGIES:
        members, joined = _of_file(Path(fabric), gpus)
    else:
        spec = chosen(load_spec(path), gpus, fabric)
        members, joined = max(spec.gpus), lambda: _of_spec(spec)
        _require_members(members)
    rows = [_row(each, members, KINDS[kind], size_bytes) for each in joined()]
    if as_json:
        print_json({"gpus": members, "kind": kind, "bytes": size_bytes, "fabrics": rows})
    else:
        _print(f"{kind} of {size} among {members} GPUs", rows)


def bytes_of(size: str) -> int:
    """Return the bytes that a text such as 64MiB stands for; InputError for any other."""
    match = _SIZE.fullmatch(size)
    found = round(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if not 1 <= found <= MAX_BYTES:
        raise InputError(f"--bytes must be a size with unit such as 64MiB, from 1B to 1024TiB, not {size!r}")
    return found


def _require_members(members: int, most: int = MAX_MEMBERS) -> None:
    if not 2 <= members <= most:
        raise InputError(f"--gpus must be from 2 to {most}, not {members}")


def _of_file(path: Path, gpus: int | None) -> tuple[int, Callable[[], list[Joined]]]:
    from lightfabric.flows.format import infragraph

    topology = infragraph.read(path, DEFAULT_GBPS)
    members = len(topology.ranks) if gpus is None else gpus
    _require_members(members, min(MAX_MEMBERS, len(topology.ranks)))
    topology = replace(topology, ranks=topology.ranks[:members])

    def networks(demand: dict[Pair, int]) -> "Sequence[Network]":
        try:
            return [topology.network(members, demand)]
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None

    def links() -> "Links":
        from lightfabric.placement.synthesis.links import links_of

        return links_of(topology)

    return members, lambda: [(str(path), networks, links)]


def _of_spec(spec: StudySpec) -> list[Joined]:
    from lightfabric.flows.format.timing_store import measured_timing
    from lightfabric.placement.fabric.fabric import fabric_of

    timing = measured_timing(spec.chiplet, lambda block: say(f"simulating the RTL of the {block}, once for this chiplet"))
    fabrics, members = [fabric_of(each, spec.chiplet, timing) for each in spec.fabrics], max(spec.gpus)
    return [(each.name, networks(each, members), lambda each=each: _links(each, members)) for each in fabrics]


def networks(fabric: "Fabric", members: int) -> "Networks":
    """Return what makes the networks of a fabric for pairs with bytes; none where it cannot serve them."""
    from lightfabric.placement.mapping.traffic import DATA, Traffic
    from lightfabric.placement.plan import Plan

    def of(demand: dict[Pair, int]) -> "Sequence[Network]":
        source, destination = np.array(list(demand), np.int32).reshape(-1, 2).T
        flows = Traffic(source, destination, np.array(list(demand.values()), np.int64), np.full(len(demand), DATA, np.int8))
        try:
            options = fabric.rate_options(Plan(members, 1, 1, 1), flows)
            return [fabric.network(members, demand, circuits) for _, circuits in options]
        except ValueError:
            return []  # too few lanes for so many pairs

    return of


def _links(fabric: "Fabric", members: int) -> "Links | None":
    """Return the links of a fabric; None where they are circuits, which are chosen by what is sent."""
    from lightfabric.placement.synthesis.links import links_between

    try:
        return links_between(fabric.network(members, ()))
    except ValueError:
        return None


def _row(joined: Joined, members: int, kind: Collective, size_bytes: int) -> dict[str, Any]:
    """Predict every algorithm on a fabric; ``best`` needs no switch that reduces, and ``bound_s`` holds without one."""
    from lightfabric.placement.collective.choice import predictions
    from lightfabric.placement.synthesis.synthesis import synthesised

    name, made, links_of = joined
    found = predictions(kind, range(members), size_bytes, made)
    best = next((one for one in found if one.algorithm != IN_NETWORK), None)
    if best is None:
        raise InputError(f"fabric {name!r} must serve {members} GPUs, but it can by no algorithm")
    links, bound_s, synthesised_s = links_of(), None, None
    if links is not None:
        try:
            result = synthesised(kind, links, size_bytes)
            bound_s, synthesised_s = result.bound_seconds, result.seconds
        except ValueError as error:
            say(f"{name}: no bound, {error}")
    return {
        "fabric": name, "best": best.algorithm, "bound_s": bound_s, "synthesised_s": synthesised_s,
        "algorithms": [asdict(one) for one in found],
    }  # fmt: skip


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    header = ("fabric", "algorithm", "ms", "latencies", "share")
    sections = list[list[tuple[str, ...]]]()
    for row in rows:
        cells = [
            (row["fabric"], one["algorithm"], f"{1e3 * one['seconds']:.4g}", str(one["latencies"]), f"{one['share']:.4g}")
            for one in row["algorithms"]
        ]
        extra = [(word, row[f"{word}_s"]) for word in ("synthesised", "bound") if row[f"{word}_s"] is not None]
        sections.append([*cells, *((row["fabric"], word, f"{1e3 * seconds:.4g}", "-", "-") for word, seconds in extra)])
    print_table(header, sections, title, right=header[2:])
    print(
        "share: bytes that the busiest member sends or receives, of its buffer; in-network: if the switch reduces; bound: "
        "nothing is faster unless switches reduce; synthesised: the fastest schedule found for these links, by pieces"
    )
