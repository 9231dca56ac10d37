"""``lightfabric faults`` says how many working GPUs of each fabric have no use while nodes of a trace are down."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lightfabric.flows.option import AsJson, SpecFile, count
from lightfabric.flows.report import InputError, print_json, print_table, require_between

MAX_GPUS, MAX_PLACES = 1 << 18, 1000


def main(
    trace: Annotated[Path, typer.Argument(metavar="TRACE.csv", help="Columns time_days, node, event: start or end.")],
    path: SpecFile = None,
    tp: Annotated[
        list[int] | None, count("GPUs of a group, which are used together or not at all; several: 16, 32, 64.")
    ] = None,
    nodes: Annotated[int, count("Nodes, with those that never fail.")] = 400,
    node_gpus: Annotated[int, count("GPUs of a node, which fail together.")] = 8,
    places: Annotated[int, count("Random placings of the nodes, over which means are taken.")] = 10,
    seed: Annotated[int, count("Of all that is random.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Check the options, read spec and trace, and print one row for each fabric and group."""
    require_between("--nodes", 1, MAX_GPUS, nodes)
    require_between("--node-gpus", 1, MAX_GPUS // nodes, node_gpus)
    require_between("--places", 1, MAX_PLACES, places)
    require_between("--seed", 0, 1 << 32, seed)
    for group in tp or ():
        require_between("--tp", 1, nodes * node_gpus, group)
    from lightfabric.flows.format.fault_trace import read
    from lightfabric.flows.format.spec_file import load_spec

    spec = load_spec(path, default="faults")
    events = read(trace, nodes)
    from lightfabric.flows.run import waste
    from lightfabric.model.fabric.fabric import fabric_of

    groups = tp or [each for each in (16, 32, 64) if each <= nodes * node_gpus]
    fabrics = [fabric_of(each, spec.chiplet) for each in spec.fabrics]
    try:
        found = waste.waste(events, nodes, node_gpus, fabrics, groups, places, seed)
    except ValueError as error:
        raise InputError(str(error)) from None
    result = {
        "nodes": nodes,
        "gpus": nodes * node_gpus,
        "faults": int((events.change > 0).sum()),
        "days": float(events.time_days[-1]),
        "nodes_down_percent": waste.down_percent(events, nodes),
        "places": places,
        "waste": [
            {"fabric": fabric.name, "tp": group} | waste.band(found[row, column])
            for row, fabric in enumerate(fabrics)
            for column, group in enumerate(groups)
        ],
    }
    if as_json:
        print_json(result)
    else:
        _print(result, groups)


def _print(result: dict[str, Any], groups: list[int]) -> None:
    down = result["nodes_down_percent"]
    rest = ", ".join(f"{down[name]:.2f} {name}" for name in ("median", "p90", "p99", "most"))
    print(f"{result['faults']} faults in {result['days']:.4g} days; nodes down: {down['mean']:.2f} % mean, {rest}")
    entries = [result["waste"][first : first + len(groups)] for first in range(0, len(result["waste"]), len(groups))]
    rows = ([own[0]["fabric"], *map(_text, own)] for own in entries)
    header = ["working GPUs without use, % of all", *(f"tp {group}" for group in groups)]
    print_table(header, [rows], right=header[1:])


def _text(entry: dict[str, Any]) -> str:
    high = entry["high_percent"]
    return f"{entry['waste_percent']:.2f}" + ("" if high is None else f" ± {high - entry['waste_percent']:.2f}")
