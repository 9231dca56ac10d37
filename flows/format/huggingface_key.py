"""How a field of a model's shape is said by the keys of a config.json: sources, and what they read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightfabric.flows.report import WrongError, shown

MAX_COUNT = 1 << 22
NEEDED = -1
"""Stands for the default of a key that must not be left out."""

Config = dict[str, Any]


@dataclass(frozen=True)
class Count:
    """Stands for a whole number at the first of ``names``, parted by ``|``, that is there; null, unless needed, is None.

    ``default`` is that of the model's code, a number or what a source reads, which null then means too.
    """

    names: str
    default: Any = NEEDED


@dataclass(frozen=True)
class Flag:
    """Stands for a value, or what its source reads, for true and for false; ``default`` is that of the model's code."""

    name: str
    default: bool
    yes: Any = True
    no: Any = False


@dataclass(frozen=True)
class Rate:
    """Tells whether the number from 0 to 1 at a key is above 0."""

    name: str
    default: float


@dataclass(frozen=True)
class Leading:
    """Counts the layers that a list names, which must be the first ones; none if it is null or left out."""

    name: str


@dataclass(frozen=True)
class Sum:
    """Stands for a count and ``more``, which may be negative."""

    count: Count
    more: int


@dataclass(frozen=True)
class Quotient:
    """Stands for one count by the other, or by a number, which must divide it; 0 if the first is null."""

    count: Count
    by: Count | int


@dataclass(frozen=True)
class Inside:
    """Stands for a count in the table at a key."""

    name: str
    count: Count


def value(source: Any, config: Config, least: int) -> Any:
    """Return what a source reads, a count of at least ``least``, or a plain value as it is.

    None stands for what a ModelSpec takes if the field is left out. A WrongError says key, what it must be and what it is.
    """
    read = _READ.get(type(source))
    return read(source, config, least) if read else source


def key_of(source: Any, config: Config) -> str | None:
    """Name the key that an error of a source is about; None if a value comes from no key."""
    match source:
        case Count():
            keys = source.names.split("|")
            return next((key for key in keys if key in config), keys[0])
        case Sum() | Quotient():
            return key_of(source.count, config)
        case Inside():
            return f"{source.name}.{key_of(source.count, config[source.name])}"
        case Flag() | Rate() | Leading():
            return source.name
        case _:
            return None


def wrong(key: str | None, must_be: str, config: Config) -> WrongError:
    """Return the error for the value at a key of a config."""
    return WrongError(f"{key} must be {must_be}, not {shown(config[key]) if key in config else 'left out'}")


def _count(source: Count, config: Config, least: int) -> int | None:
    key = key_of(source, config)
    held = config.get(str(key))
    if held is None and source.default != NEEDED:
        by_default = key not in config or not isinstance(source.default, int)
        return value(source.default, config, least) if by_default else None
    # A bool is an int to isinstance, and true is no count.
    if type(held) is not int or not least <= held <= MAX_COUNT:
        raise wrong(key, f"a whole number from {least} to {MAX_COUNT}", config)
    return held


def _flag(source: Flag, config: Config, least: int) -> Any:
    held = config.get(source.name, source.default)
    if not isinstance(held, bool):
        raise wrong(source.name, "true or false", config)
    return value(source.yes if held else source.no, config, least)


def _rate(source: Rate, config: Config, _least: int) -> bool:
    held = config.get(source.name, source.default)
    if type(held) not in (int, float) or not 0 <= held <= 1:
        raise wrong(source.name, "a number from 0 to 1", config)
    return held > 0


def _leading(source: Leading, config: Config, _least: int) -> int:
    named = config.get(source.name) or []
    if not isinstance(named, list) or named != list(range(len(named))):
        raise wrong(source.name, "the first layers, [0, 1, ...]", config)
    return len(named)


def _sum(source: Sum, config: Config, least: int) -> int:
    return value(source.count, config, least + max(-source.more, 0)) + source.more


def _quotient(source: Quotient, config: Config, least: int) -> int:
    count, by = value(source.count, config, least) or 0, value(source.by, config, 1)
    if count % by:
        name = key_of(source.by, config)
        raise wrong(key_of(source, config), f"a multiple of {f'{name} ({by})' if name else by}", config)
    return count // by


def _inside(source: Inside, config: Config, least: int) -> Any:
    table = config.get(source.name)
    if not isinstance(table, dict):
        raise wrong(source.name, "a table", config)
    try:
        return value(source.count, table, least)
    except WrongError as error:
        raise WrongError(f"{source.name}.{error}") from None


_READ: dict[type, Callable[[Any, Config, int], Any]] = {
    Count: _count,
    Flag: _flag,
    Rate: _rate,
    Leading: _leading,
    Sum: _sum,
    Quotient: _quotient,
    Inside: _inside,
}
