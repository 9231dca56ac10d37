"""The commands share how wrong input is told, files are written whole or not at all, and results are printed."""

import contextlib
import csv
import json
import os
import sys
import tempfile
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MAX_SHOWN = 60


class InputError(Exception):
    """Says that the input was wrong. The text is one line: file, field, what it must be, what it is. Exit code 2."""


class WrongError(Exception):
    """Says what is wrong in a file before the name of the file is put in front of it."""


class RunError(Exception):
    """Says that a run failed although its input was right. One line. Exit code 1."""


def read_bytes(path: Path, limit_bytes: int, what: str) -> bytes:
    """Return the content of a file of at most ``limit_bytes``; ``what`` names the format in the error."""
    with opened(path, limit_bytes, what) as file:
        return file.read(limit_bytes)


@contextlib.contextmanager
def opened(path: Path, limit_bytes: int, what: str) -> Iterator[BinaryIO]:
    """Open a file of at most ``limit_bytes``; ``what`` names the format in the error, also of what is read later."""
    try:
        size_bytes = path.stat().st_size
        if path.is_dir():
            raise InputError(f"{path}: must be {what}, not a folder")
        if size_bytes > limit_bytes:
            raise InputError(f"{path}: must be {what} of at most {limit_bytes} bytes, not {size_bytes} bytes")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: must be {what} that can be read, not: {error.strerror}") from None


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces ``path`` when the block ends well and vanishes when it does not.

    InputError if ``path`` cannot be written, or is a folder or a device; what a link leads to is replaced, not the link.
    """
    try:
        require_file(path)
        target = Path(os.path.realpath(path))
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be written, not: {error.strerror}") from None
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def require_file(path: Path) -> None:
    """Raise an InputError if there is something at ``path`` that a file must not replace."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: must be a file that can be written, not a {'folder' if path.is_dir() else 'device'}")


def require_one_of(option: str, known: Collection[str], value: str) -> None:
    """Raise an InputError that lists the known values unless ``value`` is one of them."""
    if value not in known:
        raise InputError(f"{option} must be one of {', '.join(known)}, not {value!r}")


def require_between(option: str, least: float, most: float, value: float) -> None:
    """Raise an InputError that gives both bounds unless ``value`` lies between them or is one of them."""
    if not least <= value <= most:
        raise InputError(f"{option} must be from {least} to {most}, not {value!r}")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file in UTF-8 whose lines end alike on every system."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def print_json(result: dict[str, Any] | list[Any]) -> None:
    """Print one JSON value with indentation to stdout."""
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(
    header: Sequence[str],
    sections: Iterable[Iterable[Iterable[str]]],
    title: "str | Text" = "",
    right: Container[str] = (),
    console: "Console | None" = None,
) -> None:
    """Print a table to stdout with a rule below each section of rows and the columns ``right`` aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None)
    for name in header:
        table.add_column(name, justify="right" if name in right else "left")
    for rows in sections:
        for row in rows:
            # As Text: what a file says may hold brackets, which rich would take for markup.
            table.add_row(*map(Text, row))
        table.add_section()
    (console or Console()).print(table)


def say(message: str) -> None:
    """Print a message on a line of stderr."""
    print(message, file=sys.stderr)


def shown(value: object) -> str:
    """Return a value of a file as an error says it: in one line, cut to ``MAX_SHOWN`` characters."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return cut(text, MAX_SHOWN)


def cut(text: str, most: int) -> str:
    """Return the text, or its first ``most`` characters and three dots."""
    return text if len(text) <= most else f"{text[:most]}..."
