"""A journal keeps what a long command has finished, so that it is not done again after Ctrl-C or a kill."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from lightfabric.flows.report import read_bytes, say

MAX_BYTES = 1 << 28
PACKAGES = ("lightfabric.model", "lightfabric.placement")
"""Whose sources decide results: kept ones of other sources are worth nothing."""


def key_of(description: Any) -> str:
    """Hash what a result depends on, and the sources that compute it; ``description`` is made of plain values."""
    return hashlib.sha256((json.dumps(description, sort_keys=True) + _sources()).encode()).hexdigest()


def _sources() -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = Path(str(files(package)))
        for source in sorted(root.rglob("*.py")):
            digest.update(str(source.relative_to(root)).encode() + source.read_bytes())
    return digest.hexdigest()


class Journal:
    """Holds by key what an earlier run finished, and appends what this run does to the same file, a line of JSON each.

    InputError if the file cannot be read; lines that are no results are passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: Mapping[str, dict[str, Any]] = self._read() if path.is_file() else {}

    def _read(self) -> dict[str, dict[str, Any]]:
        found = dict[str, dict[str, Any]]()
        for line in read_bytes(self._path, MAX_BYTES, "a journal").splitlines():
            # What a kill cut off is done again.
            with suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                found[str(entry["key"])] = dict(entry["result"])
        return found

    def keep(self, key: str, result: dict[str, Any]) -> None:
        """Append a result; one that cannot be written is said on stderr and does not matter otherwise."""
        line = json.dumps({"key": key, "result": result})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                # On a line of its own, though the one before may have been cut off by a kill.
                file.write(f"\n{line}\n" if file.tell() else f"{line}\n")
        except OSError as error:
            say(f"lightfabric: {self._path}: what is finished cannot be kept: {error.strerror}")

    def end(self) -> None:
        """Remove the file, when all is finished."""
        self._path.unlink(missing_ok=True)
