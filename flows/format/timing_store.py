"""Timing that was measured once is kept in the user's cache folder, by the hashes of spec and RTL.

A chiplet that was measured is one file; so is each block of it, under the hash of the fields that the block is built from,
for the next chiplet that has the same block.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from platformdirs import user_cache_path
from pydantic import TypeAdapter, ValidationError

from lightfabric.flows.report import InputError, RunError, read_bytes, say, written_whole
from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing, plain

MAX_BYTES = 1 << 16

Kept = TypeVar("Kept")
Progress = Callable[[str], None]
"""Hears which block is being simulated."""

_TIMING = TypeAdapter(Timing)


@dataclass(frozen=True)
class _Block(Generic[Kept]):
    """Holds what a file of one block has."""

    timing: Kept
    spec_hash: str
    rtl_hash: str


_BLOCKS: dict[str, TypeAdapter[Any]] = {
    "link": TypeAdapter(_Block[LinkTiming]),
    "switch": TypeAdapter(_Block[SwitchTiming]),
    "client": TypeAdapter(_Block[ClientTiming]),
}


def measured_timing(chiplet: ChipletSpec, progress: Progress = lambda _: None, workers: Executor | None = None) -> Timing:
    """Return the timing of the RTL built from ``chiplet``, as ``measured_timings`` does."""
    return measured_timings([chiplet], progress, workers)[0]


def measured_timings(
    chiplets: Sequence[ChipletSpec], progress: Progress = lambda _: None, workers: Executor | None = None
) -> list[Timing]:
    """Return the timing of the RTL built from each of the ``chiplets``: from the cache, or simulated now and kept there.

    ``progress`` hears what is being simulated, ``workers`` may do a part of it. A cache that cannot be read, used or written
    is said on stderr and does not matter otherwise.
    """
    from lightfabric.sim.characterize import BLOCKS, characterize, rtl_hash

    by_hash = {spec_hash(chiplet): chiplet for chiplet in chiplets}
    found = {key: _kept(_TIMING, "timing", key, rtl_hash()) for key in by_hash}
    missing = [by_hash[key] for key, timing in found.items() if timing is None]
    begin = _Measurement(workers, len(missing) > 1)
    if workers:
        for chiplet in missing:
            for name in BLOCKS:
                begin(name, chiplet, progress)
    for chiplet in missing:
        try:
            timing = characterize(chiplet, progress, begin)
        except RuntimeError as error:
            raise RunError(f"the RTL of this chiplet could not be measured: {error}") from None
        _keep("timing", timing.spec_hash, timing.rtl_hash, timing.to_dict())
        found[spec_hash(chiplet)] = timing
    timings = (found[spec_hash(chiplet)] for chiplet in chiplets)
    return [timing for timing in timings if timing is not None]


class _Measurement:
    """Takes each block from its file, or begins to measure it, once however many chiplets have it."""

    def __init__(self, workers: Executor | None, many: bool) -> None:
        self._workers, self._many = workers, many
        self._begun = dict[tuple[str, str], Callable[[], Any]]()

    def __call__(self, name: str, spec: ChipletSpec, progress: Progress) -> Callable[[], Any]:
        from lightfabric.sim.characterize import BLOCKS

        key = BLOCKS[name].key(spec)
        if (name, key) not in self._begun:
            self._begun[name, key] = self._begin(name, key, spec, progress)
        return self._begun[name, key]

    def _begin(self, name: str, key: str, spec: ChipletSpec, progress: Progress) -> Callable[[], Any]:
        from lightfabric.sim.characterize import BLOCKS

        block = BLOCKS[name]
        kept = _kept(_BLOCKS[name], name, key, block.source_hash)
        if kept is not None:
            return lambda: kept.timing
        measured = self._started(name, block.measure, spec)

        @cache
        def wait() -> Any:
            progress(name)
            timing = measured()
            _keep(name, key, block.source_hash, plain(asdict(_Block(timing, key, block.source_hash))))
            return timing

        return wait

    def _started(self, name: str, measure: Callable[..., Any], spec: ChipletSpec) -> Callable[[], Any]:
        if not self._workers:
            return partial(measure, spec)
        # A single link is cut: this process has nothing else to do than the part that must come first.
        if name == "link" and not self._many:
            return partial(measure, spec, self._workers)
        return self._workers.submit(measure, spec).result


def from_json(text: str | bytes, adapter: TypeAdapter[Kept] = _TIMING) -> Kept:
    """Return the timing in the JSON text of ``Timing.to_dict``; ValueError, a line that names the field, for all else."""
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'timing'}: {first['msg']}") from None
    except ZeroDivisionError:
        raise ValueError("a fraction must not be over 0") from None


def path(spec: str, rtl: str, name: str = "timing") -> Path:
    """Return where timing is kept; a relative XDG_CACHE_HOME is ignored. RuntimeError if there is no home."""
    return user_cache_path("lightfabric", appauthor=False) / f"{name}-{spec}-{rtl}.json"


def _kept(adapter: TypeAdapter[Kept], name: str, spec: str, rtl: str) -> Kept | None:
    try:
        file = path(spec, rtl, name)
        if not os.path.lexists(file):
            return None
        timing: Any = from_json(read_bytes(file, MAX_BYTES, "a measured timing"), adapter)
        # The name of the file has both hashes, too, but a file may have been copied under another name.
        if (timing.spec_hash, timing.rtl_hash) == (spec, rtl):
            return timing
        say(f"lightfabric: {file} is of other hardware, so the timing is measured again")
    except (InputError, ValueError) as error:
        say(f"lightfabric: the timing is measured again, for its cache is damaged: {error}")
    # Without a home there is no cache, which is no fault.
    except RuntimeError:
        pass
    return None


def _keep(name: str, spec: str, rtl: str, content: dict[str, Any]) -> None:
    try:
        file = path(spec, rtl, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as beside:
            beside.write_text(json.dumps(content, indent=2) + "\n")
    except (InputError, OSError, RuntimeError) as error:
        say(f"lightfabric: the measured timing cannot be kept: {error}")
