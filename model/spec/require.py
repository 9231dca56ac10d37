"""Specs check themselves when they are made: an error says owner, field, what it must be and what it is."""

import math
from typing import Any

FORBID: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""How pydantic reads these classes from a file: no unknown keys, no conversion of types."""


class SpecError(ValueError):
    """Says which field of a spec is wrong: ``ChipletSpec.ports must be from 1 to 32, not 0``.

    ``owner`` is the class of the spec, ``field`` its field, ``must_be`` and ``value`` are said as in the sentence.
    """

    def __init__(self, owner: str, field: str, must_be: str, value: str) -> None:
        super().__init__(f"{owner}.{field} must be {must_be}, not {value}")
        self.owner, self.field, self.must_be, self.value = owner, field, must_be, value

    def of(self, owner: str) -> str:
        """Say the error with another name for the owner, such as its place in a file; none if it is empty."""
        return f"{owner}{'.' if owner else ''}{self.field} must be {self.must_be}, not {self.value}"

    def __reduce__(self) -> tuple[type["SpecError"], tuple[str, str, str, str]]:
        return SpecError, (self.owner, self.field, self.must_be, self.value)


def require(owner: object, name: str, holds: bool, must_be: str) -> None:
    """Raise SpecError unless a field of ``owner`` holds what it must."""
    if not holds:
        raise SpecError(type(owner).__name__, name, must_be, repr(getattr(owner, name)))


def require_between(owner: object, low: float, high: float, *names: str) -> None:
    """Raise SpecError unless all of these fields are in the range, both ends included."""
    for name in names:
        require(owner, name, low <= getattr(owner, name) <= high, f"from {low} to {high}")


def require_counts(owner: object, name: str, least: int, most: int, largest: int) -> None:
    """Raise SpecError unless a field has ``least`` to ``most`` counts from 1 to ``largest``."""
    counts: tuple[int, ...] = getattr(owner, name)
    holds = least <= len(counts) <= most and all(1 <= count <= largest for count in counts)
    require(owner, name, holds, f"{least} to {most} counts from 1 to {largest}")


def require_name(owner: object) -> None:
    """Raise SpecError unless the name of ``owner`` can be printed."""
    # A name goes into tables, file names and lines of a terminal, which control characters would spoil.
    name: str = getattr(owner, "name")  # noqa: B009
    require(owner, "name", bool(name.strip()) and name.isprintable(), "a name of printable characters")


def require_positive(owner: object, *names: str) -> None:
    """Raise SpecError unless all of these fields are finite and above 0."""
    for name in names:
        value = getattr(owner, name)
        require(owner, name, math.isfinite(value) and value > 0, "above 0")
