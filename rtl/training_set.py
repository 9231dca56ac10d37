"""Training sets carry the parameters that the two ends of a line tell each other.

A *set* is one block on each lane; 16 sets are a *cycle*, and the place of a set in it, its *phase*, says which parameter its
*word* is.
"""

from amaranth import Cat, Const
from amaranth.lib import data

from lightfabric.model.codec import CRCS
from lightfabric.model.spec import FEC_CODES, ChipletSpec

PROTOCOL_VERSION = 1

SET_BITS = 32
"""A training set has so many bits of information; the other half of its block is the complement."""
LANE_BITS = 5
"""The lowest bits of a training set are the number of the lane that carries it."""

PHASES = 16
"""A cycle has so many sets."""
MAGIC = 0b10110
"""Each set ends with this pattern, which tells it from other control blocks."""
TRAINING_SET = data.StructLayout({"lane": LANE_BITS, "phase": 4, "step": 2, "word": 16, "magic": 5})
"""The information of a set is the low half of a control block, whose high half is the complement.

``word`` is the parameter word of the number ``phase``. From ``Phase.COUNTED`` on its low byte is the number of the cycle,
by which lanes that are far apart are told from those that are together, and its high byte the parity of the lane. All but
that and the lane's number is the same in the sets of a beat.
"""
PARITY = slice(TRAINING_SET["word"].offset + 8, TRAINING_SET["word"].offset + 16)
"""A counted set has here the parity of the blocks of its lane, from the one before the last counted set to the second but
one before this."""
SET = data.StructLayout({"phase": 4, "step": 2, "word": 16})
"""The sets of a beat say this, all the same."""
HEARD = data.StructLayout({"valid": 1, "set_valid": 1, "set": SET})
"""This is heard of a beat, all but its data; ``set_valid`` implies ``valid``."""

TRAININGS = data.StructLayout({"own": 7, "echoes": 1, "other": 7, "reserved": 1})
"""An end says the number of its training and, with ``echoes``, that of the other end's training that it takes part in."""


class Phase:
    """Names the phases whose word has a meaning; those of limits, lanes and the cycle's number go on from theirs."""

    CONFIG, REQUEST, EXPECTED, NUMBER, LIMITS = range(5)
    LANES, COUNTED = 12, 14


def parameters_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what a receiver tells the other end's transmitter: the sequence received last, and credit limits."""
    limits = data.ArrayLayout(spec.credit_bits, spec.virtual_channels)
    return data.StructLayout({"expected": spec.sequence_bits, "limits": limits})


def config_code(spec: ChipletSpec) -> int:
    """Packs into 16 bits what must be equal at both ends: code, sequences, version, wavelengths, channels, CRC, flit."""
    fields = (
        (PROTOCOL_VERSION, 3),
        (("none", *FEC_CODES).index(spec.fec), 4),
        (spec.sequence_bits - 8, 9),
        (spec.wavelengths_per_port.bit_length() - 1, 6),
        (spec.virtual_channels - 1, 8),
        (list(CRCS).index(spec.crc), 4),
        ((64, 128, 256).index(spec.flit_bytes), 3),
    )
    code = 0
    for value, values in fields:
        # A value out of its range would make two different configurations look equal.
        assert value < values
        code = code * values + value
    return code


def parity_of(block):
    """Computes the eight parities of a block as it is on the line [IEEE 802.3 82.2.8]; combinational."""
    # Bits 2, 10, .. 58 make the first; the two bits of the sync header belong to the fourth and the fifth.
    header, behind = {3: block.sync[0], 4: block.sync[1]}, block.as_value()[len(block.sync) :]
    return Cat(behind[n::8].xor() ^ header.get(n, 0) for n in range(8))


def parameter_words(spec: ChipletSpec, local, unsynced, lanes, trainings, cycle) -> list:
    """Lists the parameter word of each phase.

    ``unsynced`` says whether this end was reset, and ``lanes`` on which lanes it receives, by the other end's numbers;
    ``trainings`` number this training and that of the other end; ``cycle`` is the number of the cycle of sets.
    """
    words = [Const(0, 16)] * Phase.COUNTED + [cycle] * (PHASES - Phase.COUNTED)
    words[Phase.CONFIG] = Const(config_code(spec), 16)
    words[Phase.REQUEST] = unsynced
    words[Phase.LANES : Phase.COUNTED] = [lanes[:16], lanes[16:]]
    words[Phase.EXPECTED] = local.expected
    words[Phase.NUMBER] = trainings.as_value()
    words[Phase.LIMITS : Phase.LIMITS + spec.virtual_channels] = list(local.limits)
    return words
