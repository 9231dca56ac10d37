"""Four blocks of 64b/66b share a header of one bit in 256b/257b, and a map tells control blocks [802.3 91.5.2.5].

A group with a control block has 0 as header, then a bit per block, 1 for data, and pays for that with the second nibble of
the type of its first control block: the low nibble, which comes first on the line, is different for every type.
"""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SYNC_CONTROL, SYNC_DATA

BLOCKS, BLOCK_BITS, GROUP_BITS = 4, 66, 257
SYNC_INVALID = 0b11
"""The header of a block that cannot be told."""
TYPES = (0x1E, 0x2D, 0x33, 0x66, 0x55, 0x78, 0x4B, 0x87, 0x99, 0xAA, 0xB4, 0xCC, 0xD2, 0xE1, 0xFF)
"""Block types of clause 49; clause 82 has some of them."""
_SECOND = [next((block_type >> 4 for block_type in TYPES if block_type & 15 == first), 0) for first in range(16)]


class Transcoder(wiring.Component):
    """Makes a group of 257 bits of four blocks. Combinational.

    A block is invalid if its header is none, or if it is a control block of no known type. Then the group is marked by the
    map of four data blocks under the header of control blocks, and all its blocks come out as invalid.

    Members
    -------
    blocks : In(264), the first in the low bits, and in each the header in bits 0 and 1
    group : Out(257)
    invalid : Out(1)
    """

    def __init__(self):
        super().__init__({"blocks": In(BLOCKS * BLOCK_BITS), "group": Out(GROUP_BITS), "invalid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        blocks = [self.blocks.word_select(at, BLOCK_BITS) for at in range(BLOCKS)]
        is_data = Cat(block[:2] == SYNC_DATA for block in blocks)
        is_known = Cat((block[:2] == SYNC_CONTROL) & _is_type(block[2:10]) for block in blocks)
        payload = Cat(block[2:] for block in blocks)
        m.d.comb += self.invalid.eq(~(is_data | is_known).all())
        map_bits, first = Signal(BLOCKS), Signal(range(BLOCKS))
        m.d.comb += [map_bits.eq(is_data | self.invalid.replicate(BLOCKS)), first.eq(_first_zero(map_bits))]
        with m.If(is_data.all()):
            m.d.comb += self.group.eq(Cat(1, payload))
        with m.Else():
            kept = (Cat(payload[: 64 * at + 4], payload[64 * at + 8 :]) for at in range(BLOCKS))
            m.d.comb += self.group.eq(Cat(0, map_bits, _of(first, kept)))
        return m


class ReverseTranscoder(wiring.Component):
    """Makes the four blocks of a group of 257 bits. Combinational.

    The group is invalid if the transcoder marked it, or if its first control block begins with a nibble of no type: then
    all four blocks get the header 0b11, which no receiver takes.

    Members
    -------
    group : In(257)
    blocks : Out(264), the first in the low bits, and in each the header in bits 0 and 1
    invalid : Out(1)
    """

    def __init__(self):
        super().__init__({"group": In(GROUP_BITS), "blocks": Out(BLOCKS * BLOCK_BITS), "invalid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        is_data, rest, first = self.group[0], self.group[1 + BLOCKS :], Signal(range(BLOCKS))
        map_bits = self.group[1 : 1 + BLOCKS]
        nibble, second, payload = Signal(4), Signal(4), Signal(64 * BLOCKS)
        m.d.comb += [
            first.eq(_first_zero(map_bits)),
            nibble.eq(_of(first, (rest[64 * at :][:4] for at in range(BLOCKS)))),
            second.eq(Array(_SECOND)[nibble]),
            self.invalid.eq(~is_data & (map_bits.all() | (nibble == 0))),
        ]
        whole = (Cat(rest[: 64 * at + 4], second, rest[64 * at + 4 :]) for at in range(BLOCKS))
        m.d.comb += payload.eq(Mux(is_data, self.group[1:], _of(first, whole)))
        for at in range(BLOCKS):
            header = Mux(self.invalid, SYNC_INVALID, Mux(is_data | map_bits[at], SYNC_DATA, SYNC_CONTROL))
            m.d.comb += self.blocks.word_select(at, BLOCK_BITS).eq(Cat(header, payload.word_select(at, 64)))
        return m


def _is_type(value):
    return Cat(value == block_type for block_type in TYPES).any()


def _first_zero(bits):
    """Finds the place of the first 0, or 0 if there is none."""
    place = 0
    for at in reversed(range(BLOCKS)):
        place = Mux(bits[at], place, at)
    return place


def _of(place, values):
    """Selects one of four values."""
    first, *others = values
    for at, value in enumerate(others, 1):
        first = Mux(place == at, value, first)
    return first
