"""``lightfabric collective`` compares the algorithms of a collective on the fabrics of a spec."""

import re
from collections.abc import Sequence
from dataclasses import asdict
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
from lightfabric.placement.collective.sends import Collective

if TYPE_CHECKING:
    from lightfabric.model.fluid.network import Network
    from lightfabric.placement.collective.choice import Networks
    from lightfabric.placement.fabric.fabric import Fabric

KINDS = {
    each.name.lower().replace("_", "-"): each
    for each in (
        Collective.ALL_REDUCE, Collective.ALL_GATHER, Collective.REDUCE_SCATTER, Collective.ALL_TO_ALL, Collective.BROADCAST,
    )
}  # fmt: skip
MAX_MEMBERS = 1024
MAX_BYTES = 1 << 50
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGT]i?)?B")
_UNITS = {"": 1, **{unit: 1000**power for power, unit in enumerate("kMGT", 1)}, "K": 1000}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)} | {"ki": 1024}


def main(
    path: SpecFile = None,
    gpus: Annotated[int | None, count("Members, GPUs 0 and on; the spec's largest number if left out.")] = None,
    fabric: Annotated[str | None, typer.Option(help="Name of one of the spec's fabrics; all if left out.")] = None,
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS)}.")] = "all-reduce",
    size: Annotated[str, typer.Option("--bytes", help="The whole buffer of a member, such as 64MiB or 1GB.")] = "64MiB",
    as_json: AsJson = False,
) -> None:
    """Check the options, predict all algorithms and print a table or one JSON object."""
    require_one_of("--kind", KINDS, kind)
    size_bytes = bytes_of(size)
    spec = chosen(load_spec(path), gpus, fabric)
    members = max(spec.gpus)
    if not 2 <= members <= MAX_MEMBERS:
        raise InputError(f"--gpus must be from 2 to {MAX_MEMBERS}, not {members}")
    rows = compare(spec, members, KINDS[kind], size_bytes)
    if as_json:
        print_json({"spec": spec.name, "gpus": members, "kind": kind, "bytes": size_bytes, "fabrics": rows})
    else:
        _print(f"{kind} of {size} among {members} GPUs of {spec.name}", rows)


def bytes_of(size: str) -> int:
    """Return the bytes that a text such as 64MiB stands for; InputError for any other."""
    match = _SIZE.fullmatch(size)
    found = round(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if not 1 <= found <= MAX_BYTES:
        raise InputError(f"--bytes must be a size with unit such as 64MiB, from 1B to 1024TiB, not {size!r}")
    return found


def compare(spec: StudySpec, members: int, kind: Collective, size_bytes: int) -> list[dict[str, Any]]:
    """Predict every algorithm on each fabric of a spec; ``best`` needs no switch that reduces."""
    from lightfabric.flows.format.timing_store import measured_timing
    from lightfabric.placement.collective.choice import predictions
    from lightfabric.placement.fabric.fabric import fabric_of

    timing = measured_timing(spec.chiplet, lambda block: say(f"simulating the RTL of the {block}, once for this chiplet"))
    rows = list[dict[str, Any]]()
    for each in spec.fabrics:
        found = predictions(kind, range(members), size_bytes, networks(fabric_of(each, spec.chiplet, timing), members))
        best = next((one for one in found if one.algorithm != IN_NETWORK), None)
        if best is None:
            raise InputError(f"fabric {each.name!r} must serve {members} GPUs, but it can by no algorithm")
        rows.append({"fabric": each.name, "best": best.algorithm, "algorithms": [asdict(one) for one in found]})
    return rows


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


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    header = ("fabric", "algorithm", "ms", "latencies", "share")
    sections = [
        [
            (row["fabric"], one["algorithm"], f"{1e3 * one['seconds']:.4g}", str(one["latencies"]), f"{one['share']:.4g}")
            for one in row["algorithms"]
        ]
        for row in rows
    ]
    print_table(header, sections, title, right=header[2:])
    print("share: bytes that the busiest member sends or receives, of its buffer. in-network: if the switch reduces.")
