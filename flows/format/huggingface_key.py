"""How a field of a model's shape is said by the keys of a config.json: a ``Source`` reads its value and names its key."""

from dataclasses import dataclass
from typing import Any, Protocol

from lightfabric.flows.report import WrongError, shown

MAX_COUNT = 1 << 22
NEEDED = -1
"""Stands for the default of a key that must not be left out."""

Config = dict[str, Any]


class Source(Protocol):
    """Reads a value from a config; a WrongError says key, what it must be and what it is."""

    def read(self, config: Config, least: int) -> Any:
        """Return the value, a count of at least ``least``, or None for what a ModelSpec takes if the field is left out."""
        ...

    def key(self, config: Config) -> str:
        """Name the key that an error is about."""
        ...


@dataclass(frozen=True)
class Count:
    """A whole number at the first of ``names``, parted by ``|``, that is there; null, but for a needed one, is None.

    ``default`` is that of the model's code, a number or what a source reads, which null then means too.
    """

    names: str
    default: Any = NEEDED

    def read(self, config: Config, least: int) -> int | None:
        key = self.key(config)
        held = config.get(key)
        if held is None and self.default != NEEDED:
            by_default = key not in config or isinstance(self.default, SOURCES)
            return value(self.default, config, least) if by_default else None
        # A bool is an int to isinstance, and true is no count.
        if type(held) is not int or not least <= held <= MAX_COUNT:
            raise wrong(key, f"a whole number from {least} to {MAX_COUNT}", config)
        return held

    def key(self, config: Config) -> str:
        keys = self.names.split("|")
        return next((key for key in keys if key in config), keys[0])


@dataclass(frozen=True)
class Flag:
    """The value, or what its source reads, for true or for false at a key; ``default`` is that of the model's code."""

    name: str
    default: bool
    yes: Any = True
    no: Any = False

    def read(self, config: Config, least: int) -> Any:
        held = config.get(self.name, self.default)
        if not isinstance(held, bool):
            raise wrong(self.name, "true or false", config)
        return value(self.yes if held else self.no, config, least)

    def key(self, config: Config) -> str:
        return self.name


@dataclass(frozen=True)
class Rate:
    """Whether the number from 0 to 1 at a key is above 0."""

    name: str
    default: float

    def read(self, config: Config, least: int) -> bool:
        held = config.get(self.name, self.default)
        if type(held) not in (int, float) or not 0 <= held <= 1:
            raise wrong(self.name, "a number from 0 to 1", config)
        return held > 0

    def key(self, config: Config) -> str:
        return self.name


@dataclass(frozen=True)
class Sum:
    """A count and ``more``, which may be negative."""

    count: Count
    more: int

    def read(self, config: Config, least: int) -> int:
        found = self.count.read(config, least + max(-self.more, 0))
        return (found or 0) + self.more

    def key(self, config: Config) -> str:
        return self.count.key(config)


@dataclass(frozen=True)
class Quotient:
    """One count by the other, or by a number, which must divide it; 0 if the first is null."""

    count: Count
    by: Count | int

    def read(self, config: Config, least: int) -> int:
        count, by = self.count.read(config, least) or 0, value(self.by, config, 1) or 1
        if count % by:
            name = f"{self.by.key(config)} ({by})" if isinstance(self.by, Count) else by
            raise wrong(self.key(config), f"a multiple of {name}", config)
        return count // by

    def key(self, config: Config) -> str:
        return self.count.key(config)


@dataclass(frozen=True)
class Leading:
    """How many layers a list of layers names, which must be the first ones; none if it is null or left out."""

    name: str

    def read(self, config: Config, least: int) -> int:
        named = config.get(self.name) or []
        if not isinstance(named, list) or named != list(range(len(named))):
            raise WrongError(f"{self.name} must be the first layers, [0, 1, ...], not {shown(config[self.name])}")
        return len(named)

    def key(self, config: Config) -> str:
        return self.name


@dataclass(frozen=True)
class Inside:
    """What a source reads in the table at a key."""

    name: str
    source: Count

    def read(self, config: Config, least: int) -> Any:
        table = config.get(self.name)
        if not isinstance(table, dict):
            raise wrong(self.name, "a table", config)
        try:
            return self.source.read(table, least)
        except WrongError as error:
            raise WrongError(f"{self.name}.{error}") from None

    def key(self, config: Config) -> str:
        return f"{self.name}.{self.source.key(config.get(self.name, {}))}"


SOURCES = Count, Flag, Rate, Sum, Quotient, Leading, Inside


def value(source: Any, config: Config, least: int) -> Any:
    """Return what a source reads, or a plain value as it is."""
    return source.read(config, least) if isinstance(source, SOURCES) else source


def wrong(key: str, must_be: str, config: Config) -> WrongError:
    """Return the error for the value at a key of a config."""
    return WrongError(f"{key} must be {must_be}, not {shown(config[key]) if key in config else 'left out'}")
