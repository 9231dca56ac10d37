"""A trace of errors replays on a channel what was measured on another one; it is read as far as it is needed.

It is a text file: in each row the number of a block, of a lane and of a bit of that block, apart by spaces, all from 0 and
by rising block; rows that begin with # say nothing.
"""

from collections.abc import Iterator
from pathlib import Path

MAX_ROW_BYTES = 80


class Trace:
    """Gives the errors of a file block by block, and never holds more of it than a row and the errors of a block."""

    def __init__(self, file: Path, lanes: int, block_bits: int):
        self._file, self._lanes, self._block_bits = file, lanes, block_bits
        self._rows = self._read()
        self._next = next(self._rows, None)

    def flips(self, block: int) -> dict[int, int]:
        """Return the mask of flips of each lane that has some in this block; blocks must be asked for by rising number.

        ValueError, with file and row, if the next row is not as it must be; OSError if there is no such file.
        """
        flips = dict[int, int]()
        while self._next and self._next[0] <= block:
            at, lane, bit = self._next
            if at == block:
                flips[lane] = flips.get(lane, 0) ^ 1 << bit
            self._next = next(self._rows, None)
        return flips

    def _read(self) -> Iterator[tuple[int, int, int]]:
        before = 0
        with self._file.open("rb") as rows:
            number = 0
            while row := rows.readline(MAX_ROW_BYTES):
                number += 1
                if row.startswith(b"#") or not row.strip():
                    continue
                words = row.split()
                right = len(row) < MAX_ROW_BYTES and len(words) == 3 and all(word.isdigit() for word in words)
                block, lane, bit = map(int, words) if right else (-1, 0, 0)
                if not (before <= block and lane < self._lanes and bit < self._block_bits):
                    must_be = f"a block from {before} on, a lane below {self._lanes} and a bit below {self._block_bits}"
                    said = row[:40].decode(errors="replace").strip()
                    raise ValueError(f"{self._file}: row {number} must be {must_be}, not {said!r}")
                before = block
                yield block, lane, bit
