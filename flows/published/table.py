"""All published figures in one table, in the order in which the README quotes it."""

from typing import Any

from lightfabric.flows.published import count, direct, expert, faults, light, network, schedule, training

HEAD = "| what | published | lightfabric | ratio | set-up |\n|---|---|---|---|---|"


def rows() -> list[dict[str, Any]]:
    """Run every figure again, see ``Figure.row``."""
    kinds = network, direct, schedule, light, training, expert, faults, count
    return [figure.row() for kind in kinds for figure in kind.figures()]


def text(row: dict[str, Any]) -> str:
    """A row of the table in Markdown."""
    return f"| {row['line']} | `{row['set_up']}` |"
