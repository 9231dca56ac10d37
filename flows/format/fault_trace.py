"""Traces of nodes that fail and come back are read from CSV files."""

import csv
import math
from array import array
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightfabric.flows.report import InputError, opened, shown

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 1 << 28
MAX_DAYS = 1e6
COLUMNS = ("time_days", "node", "event")
_CHANGE = {"start": 1, "end": -1}


@dataclass(frozen=True)
class FaultTrace:
    """Holds events by rising time: at ``time_days`` a fault of ``node`` begins, ``change`` 1, or ends, ``change`` -1.

    A node is down while more of its faults have begun than have ended, so that they may overlap. Of events at one time only
    the sum counts: a fault that ends as it begins is none.
    """

    time_days: "np.ndarray[Any, Any]"
    node: "np.ndarray[Any, Any]"
    change: "np.ndarray[Any, Any]"


def read(path: Path, nodes: int) -> FaultTrace:
    """Read a CSV with the columns ``time_days``, ``node`` from 0 to ``nodes`` - 1 and ``event``, start or end.

    Rows come in any order, other columns are skipped. InputError names the line and what is wrong. O(rows log rows).
    """
    import numpy as np

    time_days, node, change = array("d"), array("l"), array("b")
    try:
        with opened(path, MAX_BYTES, "a CSV file") as file:
            lines = csv.reader(TextIOWrapper(file, "utf-8-sig", "replace", newline=""))
            places = _places(path, next(lines, []))
            for row in filter(None, lines):
                where = f"{path}: line {lines.line_num}"
                cells = [row[place] if place < len(row) else "" for place in places]
                time_days.append(_days(where, cells[0]))
                node.append(_node(where, cells[1], nodes))
                change.append(_change(where, cells[2]))
    except csv.Error as error:
        raise InputError(f"{path}: must be a CSV file, not: {error}") from None
    if max(time_days, default=0) == 0:
        raise InputError(f"{path}: must have an event after day 0, not none")
    days, numbers, changes = np.array(time_days), np.array(node, np.int64), np.array(change, np.int64)
    _require_pairs(path, days, numbers, changes)
    order = np.argsort(days, kind="stable")
    return FaultTrace(days[order], numbers[order], changes[order])


def _places(path: Path, header: list[str]) -> list[int]:
    names = [name.strip() for name in header]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(f"{path}: must have the columns {', '.join(COLUMNS)}, not without {missing[0]}")
    return [names.index(name) for name in COLUMNS]


def _days(where: str, text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MAX_DAYS:
        raise InputError(f"{where}: time_days must be from 0 to {MAX_DAYS:g}, not {shown(text)}")
    return days


def _node(where: str, text: str, nodes: int) -> int:
    # Longer numbers would be converted in time that grows with the square of their length.
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16 and int(digits) < nodes):
        raise InputError(f"{where}: node must be a whole number from 0 to {nodes - 1}, not {shown(text)}")
    return int(digits)


def _change(where: str, text: str) -> int:
    if text.strip() not in _CHANGE:
        raise InputError(f"{where}: event must be start or end, not {shown(text)}")
    return _CHANGE[text.strip()]


def _require_pairs(path: Path, days: Any, node: Any, change: Any) -> None:
    """Raise an InputError for a fault that ends without having begun."""
    import numpy as np

    order = np.lexsort((days, node))
    days, node, total = days[order], node[order], np.cumsum(change[order])
    first = np.flatnonzero(np.diff(node, prepend=-1))
    before = np.repeat(total[first] - change[order][first], np.diff(first, append=len(node)))
    last = np.append((node[1:] != node[:-1]) | (days[1:] != days[:-1]), True)
    early = np.flatnonzero(last & (total < before))
    if len(early):
        raise InputError(
            f"{path}: node {node[early[0]]} must have a start for each end until day {days[early[0]]:g}, not fewer"
        )
