"""A line with error correction is read here as a receiver without errors reads it, and wrong words are put on it."""

from collections.abc import Callable, Iterable

from lightfabric.model import codec
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.fec.shape import Shape
from lightfabric.rtl.fec.sublayer import seed
from lightfabric.rtl.training_set import SET_BITS


class SetFinder:
    """Tells beats of training sets from those of frames by their first lane: units have no sync headers."""

    def __init__(self, spec: ChipletSpec):
        self._coded, self._state = spec.code is not None, 0

    def is_frame(self, bits: int) -> bool:
        """Take the next beat of the line."""
        sync = bits & 0b11
        if not self._coded:
            return sync == codec.SYNC_DATA
        self._state, block = codec.descramble(self._state, bits >> 2 & (1 << 64) - 1)
        low, high = block & (1 << SET_BITS) - 1, block >> SET_BITS
        return sync != codec.SYNC_CONTROL or low ^ high != (1 << SET_BITS) - 1


class Codewords:
    """Knows which bits of words and units are the same, on all lanes of a spec with a code."""

    def __init__(self, spec: ChipletSpec):
        self.spec, self.shape = spec, Shape.of(spec)
        # The place of each word's bit in the codeword; of several abreast, each has some of the lanes.
        room = self.shape.symbols * self.shape.code.m
        self._places = [[beat * room + bit for beat, bit in step] for step in self.shape.symbols_to_words()]
        self._masks = [[seed(lane), list[int]()] for lane in range(spec.wavelengths_per_port)]

    def words(self, units: Iterable[int]) -> list[list[int]]:
        """Decode beats of units without errors, from the first one of frames on: the words of each beat."""
        beats, bits = list[list[int]](), [0] * self.spec.codewords_abreast
        width, lanes = self.shape.unit_bits * self.shape.lanes, self.shape.lanes
        for number, unit in enumerate(units):
            step, words = number % self.shape.steps, list[int]()
            for part in range(self.spec.codewords_abreast):
                seen = unit >> part * width & (1 << width) - 1
                bits[part] = (bits[part] if step else 0) | seen << step * width
                places = self._places[step]
                for lane in range(lanes):
                    # A word's bits lie together, but for the header bit that may come in before its first one.
                    word = bits[part] >> places[64 * lane] & (1 << 64) - 1
                    words.append(word ^ self._mask(part * lanes + lane, number))
            beats.append(words)
        return beats

    def _mask(self, lane: int, number: int) -> int:
        state, masks = self._masks[lane]
        while len(masks) <= number:
            state, mask = codec.scramble(state, 0)
            masks.append(mask)
        self._masks[lane][0] = state
        return masks[number]

    def flips(self, is_wrong: Callable[[int], bool], lane: int) -> list[int]:
        """Make a mask for each beat of a codeword that flips the first bit of the word of a lane in beats that are wrong.

        The parity is flipped with it, so that the code finds nothing wrong.
        """
        part, place = divmod(lane, self.shape.lanes)
        at = [self._places[step][64 * place] for step in range(self.shape.steps) if is_wrong(step)]
        code, width = self.shape.code, self.shape.unit_bits * self.shape.lanes
        if not at:
            return [0] * self.shape.steps
        symbols = [0] * code.k
        for bit in at:
            symbols[bit // code.m] ^= 1 << bit % code.m
        line = sum(symbol << code.m * n for n, symbol in enumerate([*symbols, *code.parity(symbols)]))
        return [(line >> step * width & (1 << width) - 1) << part * width for step in range(self.shape.steps)]
