"""Task graphs are read from files for ``replay`` and written to files for ``place --export``."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightfabric.flows.report import InputError, read_bytes, require_file, written_whole
from lightfabric.placement.graph.any_source import NOMINAL, Wire

if TYPE_CHECKING:
    from lightfabric.model.spec import AcceleratorSpec
    from lightfabric.model.task import TaskGraph
    from lightfabric.placement.collective.choice import Choose

# Of a file, or of all streams of a Chakra folder together.
MAX_BYTES = 256 << 20
MAX_GROUPS_BYTES = 16 << 20
MAX_RANKS = 1 << 16
PREFIX, GROUPS = "lightfabric", "comm_groups.json"
GOAL = (".goal", ".bin")

_STREAM = re.compile(r"(.*)\.(0|[1-9][0-9]{0,5})\.e[tg]")


def read(
    path: Path, algorithm: "str | Choose | None" = None, accelerator: "AcceleratorSpec | None" = None, wire: Wire = NOMINAL
) -> tuple["TaskGraph", int]:
    """Return the graph in a file and how many devices of it are nodes.

    A folder, or one of its files ``NAME.RANK.et`` (or .eg), is Chakra's; a name that ends in .goal is GOAL, and so is a
    file that begins as binary GOAL; all else is TopoOpt's. Communicator groups are in comm_groups.json, comm_group.json or
    NAME.json beside the streams. Receives of GOAL from any source get what comes first over ``wire``. Only Chakra leaves
    the algorithm of collectives open, a ring if None, a name or what chooses one for each, and the accelerator of work
    without duration.
    InputError, one line, names the file and the field that is wrong.
    """
    if path.is_dir() or path.suffix in (".et", ".eg"):
        return _read_chakra(path, algorithm or "ring", accelerator)
    for option, value in (("--algorithm", algorithm), ("--accelerator", accelerator and accelerator.name)):
        if value is not None:
            raise InputError(f"{option} must be left out unless the file is a Chakra trace, not {value!r} for {path}")
    from lightfabric.placement.format import goal_binary, topoopt

    data = read_bytes(path, MAX_BYTES, "a GOAL program" if path.suffix in GOAL else "a TopoOpt task graph")
    if path.suffix in GOAL or goal_binary.is_binary(data):
        return _read_goal(path, data, wire)
    with _explained(path, "a whole TopoOpt task graph"):
        graph = topoopt.read(data)
    return graph, topoopt.nodes(graph)


@contextmanager
def _explained(path: Path, must_be: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InputError(f"{path}: must be {must_be}: {error}") from None


def _read_goal(path: Path, data: bytes, wire: Wire) -> tuple["TaskGraph", int]:
    from lightfabric.placement.format import goal

    with _explained(path, "a whole GOAL program"):
        return goal.read(data, wire), goal.rank_count(data)


def _read_chakra(path: Path, algorithm: "str | Choose", accelerator: "AcceleratorSpec | None") -> tuple["TaskGraph", int]:
    from lightfabric.placement.format import chakra

    folder = path if path.is_dir() else path.parent
    job, files = _streams(path, folder)
    groups = _read_groups(folder, job)
    with _explained(path, "whole Chakra traces"):
        graph = chakra.read(_contents(files), groups, algorithm=algorithm, accelerator=accelerator)
    return graph, len(files)


def _streams(path: Path, folder: Path) -> tuple[str, list[Path]]:
    """Name the only job in a folder, or the one that ``path`` is part of, with its streams of rank 0, 1, ..."""
    jobs: dict[str, dict[int, Path]] = {}
    try:
        for entry in folder.iterdir():
            if match := _STREAM.fullmatch(entry.name):
                jobs.setdefault(match[1], {})[int(match[2])] = entry
    except OSError as error:
        raise InputError(f"{folder}: must be a folder that can be read, not: {error.strerror}") from None
    if path != folder:
        match = _STREAM.fullmatch(path.name)
        jobs = {match[1]: jobs[match[1]]} if match and match[1] in jobs else {}
    if len(jobs) != 1:
        raise InputError(f"{path}: must be the files NAME.RANK.et of one job, not of {len(jobs)}")
    ((job, files),) = jobs.items()
    if len(files) > MAX_RANKS or max(files) >= len(files):
        missing = next(rank for rank in range(len(files) + 1) if rank not in files)
        raise InputError(f"{path}: must be files of at most {MAX_RANKS} ranks from 0 on, not without rank {missing}")
    return job, [files[rank] for rank in range(len(files))]


def _contents(files: list[Path]) -> Iterator[bytes]:
    left = MAX_BYTES
    for file in files:
        content = read_bytes(file, left, "a Chakra trace")
        # The bound is on all streams, so that many small files cannot fill the memory either.
        left -= len(content)
        yield content


def _read_groups(folder: Path, job: str) -> dict[str, list[int]]:
    """Return the communicator groups in the folder's JSON file; none without one."""
    there = [path for name in (GROUPS, "comm_group.json", f"{job}.json") if (path := folder / name).exists()]
    if not there:
        return {}
    path = there[0]
    try:
        groups: Any = json.loads(read_bytes(path, MAX_GROUPS_BYTES, "communicator groups"))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: must be JSON, not something else") from None
    if not isinstance(groups, dict) or not all(_is_group(members) for members in groups.values()):
        raise InputError(f"{path}: must be an object of names with lists of ranks, not something else")
    return groups


def _is_group(members: object) -> bool:
    return isinstance(members, list) and all(type(member) is int for member in members)


def require(path: Path) -> None:
    """Raise an InputError if there is something at ``path`` that ``write`` must not replace."""
    if path.suffix in GOAL:
        require_file(path)
    elif path.exists() and not path.is_dir():
        raise InputError(f"--export must be a folder that can be written, not {path}: a file")


def write(path: Path, graph: "TaskGraph") -> None:
    """Write a GOAL program if the name ends in .goal, a binary one if in .bin, else a folder of Chakra's.

    The folder has a stream per device and the groups. Streams of an earlier export with more ranks vanish: a folder holds
    one job.
    """
    if path.suffix in GOAL:
        from lightfabric.placement.format import goal

        lines = goal.write_binary(graph) if path.suffix == ".bin" else (line.encode() for line in goal.write(graph))
        with written_whole(path) as beside, beside.open("wb") as file:
            file.writelines(lines)
        return
    from lightfabric.placement.format import chakra

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--export must be a folder that can be written, not {path}: {error.strerror}") from None
    for rank, stream in enumerate(chakra.write(graph)):
        with written_whole(path / f"{PREFIX}.{rank}.et") as beside:
            beside.write_bytes(stream)
    with written_whole(path / GROUPS) as beside:
        beside.write_text(json.dumps(chakra.groups(graph)) + "\n", encoding="utf-8")
    # Last of all, so that an export that fails leaves the earlier streams whole.
    for old in path.glob(f"{PREFIX}.*.et"):
        match = _STREAM.fullmatch(old.name)
        if match and int(match[2]) >= graph.devices:
            old.unlink()
