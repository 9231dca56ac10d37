"""The shape of codewords says where the bits of words, symbols and units are.

Its words are those of :mod:`lightfabric.rtl.fec.sublayer`.
"""

from dataclasses import dataclass

from lightfabric.model.reed_solomon import KP4, KR4, LIGHT, ReedSolomon
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.fec.regroup import Source

CODES = {"kr4": KR4, "kp4": KP4, "light": LIGHT}
TRANSCODED_WORDS = 4
"""Words that have a header bit in common [802.3 clause 91.5.2.5]."""


@dataclass(frozen=True)
class Shape:
    """Says where the bits of a codeword are: in beats of words, of symbols at the Reed-Solomon blocks, and of units."""

    code: ReedSolomon
    lanes: int
    steps: int
    unit_bits: int

    @staticmethod
    def of(spec: ChipletSpec) -> "Shape":
        """Make the shape of each of the codewords abreast."""
        lanes = spec.wavelengths_per_port // spec.codewords_abreast
        return Shape(CODES[spec.fec], lanes, spec.codeword_beats, spec.block_bits_on_line)

    @property
    def symbols(self) -> int:
        """Count the symbols per clock that the Reed-Solomon blocks need, in one beat for each of units at most."""
        return -(-self.unit_bits * self.lanes // self.code.m)

    @property
    def beats(self) -> int:
        """Count the beats of symbols of a codeword; there are no more than steps."""
        return self.code.beats(self.symbols)

    def words_to_symbols(self) -> list[list[Source]]:
        """List the word's bit that each bit of the message is; the parity's place is left 0."""
        header_words = self.code.k * self.code.m - 64 * self.lanes * self.steps

        def source(at: int) -> Source:
            if at >= self.code.k * self.code.m:
                return 0
            if header_words:
                block, place = divmod(at, 64 * TRANSCODED_WORDS + 1)
                if place == 0:
                    return 1
                at = 64 * TRANSCODED_WORDS * block + place - 1
            return divmod(at, 64 * self.lanes)

        return self._beats(self.symbols * self.code.m, source)

    def symbols_to_units(self) -> list[list[Source]]:
        """List the symbol's bit that each bit of a unit is."""
        return self._beats(self.unit_bits * self.lanes, lambda at: divmod(at, self.symbols * self.code.m))

    def units_to_symbols(self) -> list[list[Source]]:
        """List the unit's bit that each bit of a symbol is, in the room that is left after the last one 0."""

        def source(at: int) -> Source:
            return divmod(at, self.unit_bits * self.lanes) if at < self.code.n * self.code.m else 0

        return self._beats(self.symbols * self.code.m, source)

    def symbols_to_words(self) -> list[list[Source]]:
        """List the symbol's bit that each bit of a word is."""
        transcoded = self.code.k * self.code.m > 64 * self.lanes * self.steps

        def source(at: int) -> Source:
            return divmod(at + transcoded * (at // (64 * TRANSCODED_WORDS) + 1), self.symbols * self.code.m)

        return self._beats(64 * self.lanes, source)

    def _beats(self, bits: int, source) -> list[list[Source]]:
        return [[source(bits * step + at) for at in range(bits)] for step in range(self.steps)]
