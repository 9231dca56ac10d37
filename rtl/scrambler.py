"""The self-synchronous scrambler of 64b/66b, a block at a time [IEEE 802.3 49.2.6]."""

from amaranth import Cat, Signal

from lightfabric.model.codec import SCRAMBLER_BITS, SCRAMBLER_TAPS

NEAR = SCRAMBLER_BITS - SCRAMBLER_TAPS[0]
"""Place in the history, oldest bit first, of the nearer tap; the farther one is at 0."""


def scrambled(history, block):
    """Next history and scrambled block. ``history`` is the line's last 58 bits, the oldest in bit 0. Combinational."""
    line = history
    while len(line) < SCRAMBLER_BITS + len(block):  # as many bits at once as the nearer tap allows
        done = len(line) - SCRAMBLER_BITS
        part = block[done : done + SCRAMBLER_TAPS[0]]
        line = Cat(line, part ^ line[done + NEAR :][: len(part)] ^ line[done:][: len(part)])
    return line[-SCRAMBLER_BITS:], line[SCRAMBLER_BITS:]


def descrambled(history, block):
    """Next history and plain block; depends on received bits only, so an error lives for 58 bits. Combinational."""
    line = Cat(history, block)
    plain = block ^ line[NEAR:][: len(block)] ^ line[: len(block)]
    return line[-SCRAMBLER_BITS:], plain


class Scrambler:
    """History of one wavelength and ``out`` for ``block``, by one of the functions above."""

    def __init__(self, function, block, name: str):
        self.history = Signal(SCRAMBLER_BITS, name=name)
        self._next, self.out = function(self.history, block)

    def step(self):
        """Statement that takes the block into the history, for ``m.d.sync``."""
        return self.history.eq(self._next)
