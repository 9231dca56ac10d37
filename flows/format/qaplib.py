"""Quadratic assignment problems are read from files of QAPLIB."""

import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightfabric.flows.report import InputError, read_bytes

if TYPE_CHECKING:
    import numpy as np

MAX_FACILITIES = 2048
_MAX_BYTES = 1 << 28
_MAX_NUMBER_CHARACTERS = 40
_PART_BYTES = 1 << 20
_SPACE = re.compile(rb"\s")


@dataclass(frozen=True)
class Instance:
    """Holds a problem and its name: ``flow`` and ``distance`` are [n, n], of int64 if the file has integers only."""

    name: str
    flow: "np.ndarray[Any, Any]"
    distance: "np.ndarray[Any, Any]"


def read(path: Path) -> Instance:
    """Read a file of QAPLIB (Burkard, Karisch and Rendl, 1997): n, n x n numbers of the first matrix, n x n of the second.

    A mark of UTF-8 at its begin is skipped. InputError names the file and what is wrong.
    """
    data = read_bytes(path, _MAX_BYTES, "a QAPLIB file").removeprefix(BOM_UTF8)
    words = data.split(None, 1)
    n = _size(path, words[0] if words else b"")
    numbers = _numbers(path, words[1] if len(words) > 1 else b"", 2 * n * n)
    return Instance(path.stem, numbers[: n * n].reshape(n, n), numbers[n * n :].reshape(n, n))


def _size(path: Path, word: bytes) -> int:
    if not word.isdigit() or len(word) > _MAX_NUMBER_CHARACTERS or not 1 <= int(word) <= MAX_FACILITIES:
        raise InputError(f"{path}: n must be a whole number from 1 to {MAX_FACILITIES}, not {_shown(word)}")
    return int(word)


def _shown(word: bytes) -> str:
    return repr(word.decode("ascii", "replace"))[:60] if word else "an empty file"


def _numbers(path: Path, data: bytes, count: int) -> "np.ndarray[Any, Any]":
    """Read so many numbers, as int64 if all are written as such, else doubles."""
    import numpy as np

    numbers = [np.zeros(0, np.int64)]
    found = 0
    for words in _parts(data):
        numbers.append(_converted(path, words, found))
        found += len(words)
        if found > count:
            break
    if found != count:
        more = "more" if found > count else str(found)
        raise InputError(f"{path}: must hold n and two n x n matrices, {count} numbers after n, not {more}")
    return np.concatenate(numbers)


def _parts(data: bytes) -> Iterator[list[bytes]]:
    """Yield the words of one part of the file at a time: all at once would take ten times its memory."""
    start = 0
    while start < len(data):
        space = _SPACE.search(data, start + _PART_BYTES)
        end = space.start() if space else len(data)
        yield data[start:end].split()
        start = end


def _converted(path: Path, words: list[bytes], before: int) -> "np.ndarray[Any, Any]":
    import numpy as np

    try:
        return np.array([int(word) for word in words if _whole(word)], np.int64)
    except (ValueError, OverflowError):
        return np.array([_number(path, word, before + place) for place, word in enumerate(words)], np.float64)


def _whole(word: bytes) -> bool:
    if b"_" in word:
        raise ValueError
    return True


def _number(path: Path, word: bytes, place: int) -> float:
    try:
        number = float(word) if b"_" not in word else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}: number {place + 1} after n must be a finite number, not {_shown(word)}")
    return number
