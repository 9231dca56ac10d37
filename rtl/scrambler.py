"""The self-synchronous scrambler of 64b/66b takes a block at a time [IEEE 802.3 49.2.6]."""

from amaranth import Cat, Signal

from lightfabric.model.codec import SCRAMBLER_BITS, SCRAMBLER_TAPS

NEAR = SCRAMBLER_BITS - SCRAMBLER_TAPS[0]
"""The nearer tap is at this place of the history, whose oldest bit is at 0, where the farther tap is."""


def scrambled(history, block):
    """Computes the next history, the last 58 bits of the line, oldest first, and the scrambled block. Combinational."""
    line = history
    # Each step makes as many bits as the nearer tap allows: those after them depend on the first of them.
    while len(line) < SCRAMBLER_BITS + len(block):
        done = len(line) - SCRAMBLER_BITS
        part = block[done : done + SCRAMBLER_TAPS[0]]
        line = Cat(line, part ^ line[done + NEAR :][: len(part)] ^ line[done:][: len(part)])
    return line[-SCRAMBLER_BITS:], line[SCRAMBLER_BITS:]


def descrambled(history, block):
    """Computes the next history and the plain block, of received bits only: an error lives for 58 bits. Combinational."""
    line = Cat(history, block)
    plain = block ^ line[NEAR:][: len(block)] ^ line[: len(block)]
    return line[-SCRAMBLER_BITS:], plain


class Scrambler:
    """Keeps the history of one wavelength and makes ``out`` of ``block``, by one of the functions above."""

    def __init__(self, function, block, name: str):
        self.history = Signal(SCRAMBLER_BITS, name=name)
        self._next, self.out = function(self.history, block)

    def step(self):
        """Makes the statement that takes the block into the history, for ``m.d.sync``."""
        return self.history.eq(self._next)
