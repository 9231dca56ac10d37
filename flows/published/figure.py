"""A published result and the code that runs its set-up again: one row of the table of ``lightfabric bench published``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path("../shared/data")
"""Published inputs that are not in this repository, from the folder that a command runs in."""


@dataclass(frozen=True)
class Figure:
    """Holds published values of one kind and ``ours``, which runs their ``set_up``; ``what`` tells the unit and the source.

    ``within`` is the greatest deviation of a value that is accepted, as a share of it; 0 asks for the same number. ``needs``
    is a file or folder without which nothing can be run, and ``form`` prints a value.
    """

    what: str
    set_up: str
    published: Sequence[float]
    ours: Callable[[], Sequence[float]]
    within: float
    form: str = ".4g"
    needs: Path | None = None

    def row(self) -> dict[str, Any]:
        """Run the set-up again; ``ours`` is None if what it needs is not there."""
        there = self.needs is None or self.needs.exists()
        ours = list(self.ours()) if there else None
        ratios = ours and [value / known for value, known in zip(ours, self.published, strict=True)]
        return {
            "what": self.what,
            "set_up": self.set_up,
            "published": list(self.published),
            "ours": ours,
            "ratio": ratios,
            "within": self.within,
            "line": self._line(ours, ratios),
        }

    def _line(self, ours: Sequence[float] | None, ratios: Sequence[float] | None) -> str:
        cells = [self._texts(self.published), "not measured", "-"]
        if ours is not None and ratios is not None:
            told = self._texts(ours)
            cells[1] = "the same" if told == cells[0] else told
            low, high = f"{min(ratios):.3f}", f"{max(ratios):.3f}"
            cells[2] = low if low == high else f"{low} to {high}"
        return " | ".join([self.what, *cells])

    def _texts(self, values: Sequence[float]) -> str:
        return ", ".join(format(value, self.form) for value in values)
