"""A schedule becomes a Chrome trace, which ui.perfetto.dev and chrome://tracing open: one process per device.

The format is Google's "Trace Event Format": complete events ``X`` and metadata ``M``, times in microseconds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightfabric.flows.report import written_whole
from lightfabric.model.task import Kind, Schedule, TaskGraph

_NAMES = {Kind.COMPUTE: "compute", Kind.TRANSFER: "transfer", Kind.ALL_REDUCE: "all-reduce", Kind.BARRIER: "barrier"}
_MICROSECOND_PS = 1_000_000


def write(path: Path, graph: TaskGraph, schedule: Schedule) -> None:
    """Write the whole trace, or no file: an event per line, so that memory does not grow with their number.

    A task is at its device, an all-reduce at its first member, named in ``args`` with all it has; barriers are left out.
    Thread 0 of a device computes; what it sends is on as many more as there is at the same time.
    """
    with written_whole(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[')
        for number, event in enumerate(_events(graph, schedule)):
            file.write((",\n" if number else "\n") + json.dumps(event, separators=(",", ":")))
        file.write("\n]}\n")


def _events(graph: TaskGraph, schedule: Schedule) -> Iterator[dict[str, Any]]:
    shown = np.flatnonzero(graph.kind != Kind.BARRIER)
    lane = _lanes(graph, schedule, shown)
    threads = dict.fromkeys(zip(graph.device[shown].tolist(), lane[shown].tolist(), strict=True))
    for device in sorted({device for device, _ in threads}):
        yield _metadata("process_name", device, 0, f"device {device}")
    for device, thread in sorted(threads):
        yield _metadata("thread_name", device, thread, f"sends {thread}" if thread else "computes")
    for task in shown.tolist():
        yield _event(graph, schedule, task, int(lane[task]))


def _metadata(name: str, device: int, thread: int, value: str) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": device, "tid": thread, "args": {"name": value}}


def _event(graph: TaskGraph, schedule: Schedule, task: int, thread: int) -> dict[str, Any]:
    kind, start_ps = Kind(graph.kind[task]), int(schedule.start_ps[task])
    args: dict[str, Any] = {"task": task}
    if kind != Kind.COMPUTE:
        args |= {"bytes": int(graph.work[task]), "operations": int(graph.operations[task])}
        args |= {"to" if kind == Kind.TRANSFER else "group": int(graph.peer[task]), "limit": int(schedule.limit[task])}
    return {
        "ph": "X", "name": _NAMES[kind], "cat": _NAMES[kind], "pid": int(graph.device[task]), "tid": thread,
        "ts": start_ps / _MICROSECOND_PS, "dur": (int(schedule.finish_ps[task]) - start_ps) / _MICROSECOND_PS, "args": args,
    }  # fmt: skip


def _lanes(graph: TaskGraph, schedule: Schedule, shown: np.ndarray) -> np.ndarray:
    """Choose the thread of each task: 0 for computation, else the lowest that is free when it starts."""
    lane = np.zeros(len(graph), np.int64)
    free_ps: dict[int, list[int]] = {}
    for task in shown[np.argsort(schedule.start_ps[shown], kind="stable")].tolist():
        if graph.kind[task] == Kind.COMPUTE:
            continue
        ends = free_ps.setdefault(int(graph.device[task]), [])
        start_ps, finish_ps = int(schedule.start_ps[task]), int(schedule.finish_ps[task])
        # The lowest free lane keeps the number of lanes at that of the sends that overlap.
        found = next((index for index, end_ps in enumerate(ends) if end_ps <= start_ps), len(ends))
        ends[found : found + 1] = [finish_ps]
        lane[task] = found + 1
    return lane
