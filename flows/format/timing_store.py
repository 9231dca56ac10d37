"""Timing that was measured once is kept in the user's cache folder, by the hashes of spec and RTL."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from lightfabric.flows.report import InputError, RunError, read_bytes, say, written_whole
from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing

MOST_BYTES = 1 << 16

_Part = TypeVar("_Part", LinkTiming, SwitchTiming, ClientTiming)


def measured_timing(chiplet: ChipletSpec, progress: Callable[[str], None] = lambda _: None) -> Timing:
    """Timing of the RTL built from ``chiplet``: from the cache, or simulated now and kept there.

    ``progress`` hears what is being simulated. A cache that cannot be read, used or written is said on stderr and does
    not matter otherwise.
    """
    from lightfabric.sim.characterize import characterize, rtl_hash

    timing = _kept(spec_hash(chiplet), rtl_hash())
    if timing is None:
        try:
            timing = characterize(chiplet, progress)
        except RuntimeError as error:
            raise RunError(f"the RTL of this chiplet could not be measured: {error}") from None
        _keep(timing)
    return timing


def to_json(timing: Timing) -> dict[str, Any]:
    """All fields, fractions as text: ``"33/32"``."""
    return _plain(asdict(timing))


def from_json(tables: dict[str, Any]) -> Timing:
    """What ``to_json`` gave; ValueError, TypeError or KeyError from anything else."""
    texts = {name: tables[name] for name in ("spec_hash", "rtl_hash", "simulator")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("hashes and simulator must be text")
    kinds = {"link": LinkTiming, "switch": SwitchTiming, "client": ClientTiming}
    return Timing(**{name: _part(kind, tables[name]) for name, kind in kinds.items()}, **texts)


def _path(spec: str, rtl: str) -> Path:
    """Where timing is kept, by XDG: a relative XDG_CACHE_HOME is ignored. RuntimeError if there is no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = named if named.is_absolute() else Path.home() / ".cache"
    return folder / "lightfabric" / f"timing-{spec}-{rtl}.json"


def _kept(spec: str, rtl: str) -> Timing | None:
    try:
        path = _path(spec, rtl)
        if not os.path.lexists(path):
            return None
        timing = from_json(json.loads(read_bytes(path, MOST_BYTES, "a measured timing")))
        if (timing.spec_hash, timing.rtl_hash) == (spec, rtl):
            return timing
        say(f"lightfabric: {path} is of other hardware, so the timing is measured again")
    except (InputError, ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError) as error:
        say(f"lightfabric: the timing is measured again, for its cache is damaged: {error}")
    except RuntimeError:
        pass
    return None


def _keep(timing: Timing) -> None:
    try:
        path = _path(timing.spec_hash, timing.rtl_hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as beside:
            beside.write_text(json.dumps(to_json(timing), indent=2) + "\n")
    except (InputError, OSError, RuntimeError) as error:
        say(f"lightfabric: the measured timing cannot be kept: {error}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return str(value) if isinstance(value, Fraction) else value


def _part(kind: type[_Part], table: dict[str, Any]) -> _Part:
    return kind(**{entry.name: _value(entry.type, table[entry.name]) for entry in fields(kind)})


def _value(kind: Any, value: object) -> Any:
    if kind is Fraction and isinstance(value, str):
        return Fraction(value)
    if isinstance(value, bool) or kind is Fraction or not isinstance(value, kind):
        raise TypeError(f"{value!r} must be a {kind}")
    return value
