"""Timing that was measured once is kept in the user's cache folder, by the hashes of spec and RTL."""

import json
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import TypeAdapter, ValidationError

from lightfabric.flows.report import InputError, RunError, read_bytes, say, written_whole
from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import Timing

MAX_BYTES = 1 << 16

_TIMING = TypeAdapter(Timing)


def measured_timing(
    chiplet: ChipletSpec, progress: Callable[[str], None] = lambda _: None, workers: Executor | None = None
) -> Timing:
    """Return the timing of the RTL built from ``chiplet``: from the cache, or simulated now and kept there.

    ``progress`` hears what is being simulated, ``workers`` may do a part of it. A cache that cannot be read, used or written
    is said on stderr and does not matter otherwise.
    """
    from lightfabric.sim.characterize import characterize, rtl_hash

    timing = _kept(spec_hash(chiplet), rtl_hash())
    if timing is None:
        try:
            timing = characterize(chiplet, progress, workers)
        except RuntimeError as error:
            raise RunError(f"the RTL of this chiplet could not be measured: {error}") from None
        _keep(timing)
    return timing


def from_json(text: str | bytes) -> Timing:
    """Return the timing in the JSON text of ``Timing.to_dict``; ValueError, a line that names the field, for all else."""
    try:
        return _TIMING.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'timing'}: {first['msg']}") from None
    except ZeroDivisionError:
        raise ValueError("a fraction must not be over 0") from None


def path(spec: str, rtl: str) -> Path:
    """Return where timing is kept; a relative XDG_CACHE_HOME is ignored. RuntimeError if there is no home."""
    return user_cache_path("lightfabric", appauthor=False) / f"timing-{spec}-{rtl}.json"


def _kept(spec: str, rtl: str) -> Timing | None:
    try:
        file = path(spec, rtl)
        if not os.path.lexists(file):
            return None
        timing = from_json(read_bytes(file, MAX_BYTES, "a measured timing"))
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


def _keep(timing: Timing) -> None:
    try:
        file = path(timing.spec_hash, timing.rtl_hash)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as beside:
            beside.write_text(json.dumps(timing.to_dict(), indent=2) + "\n")
    except (InputError, OSError, RuntimeError) as error:
        say(f"lightfabric: the measured timing cannot be kept: {error}")
