"""Experiments that meet a slot in too few phases show more than one value where the hardware has one."""

from collections.abc import Iterable


class TooFewPhasesError(RuntimeError):
    """Says that a value which is one number was seen as several, which more phases may mend."""


def same(name: str, values: Iterable[int]) -> int:
    """Return the one value that all of them have; TooFewPhasesError if they differ."""
    different = set(values)
    if len(different) != 1:
        raise TooFewPhasesError(f"Timing.{name} must be one number, but the RTL says {sorted(different)}")
    return different.pop()
