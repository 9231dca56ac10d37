"""What a training set says, and the parameters that the two ends of a line tell each other in sets."""

from amaranth import Const
from amaranth.lib import data

from lightfabric.model.codec import CRCS, CREDIT_BITS, SEQUENCE_BITS
from lightfabric.model.spec import ChipletSpec

PROTOCOL_VERSION = 1

SET_BITS = 32
"""Information in a training set; the other half of its block is the complement."""
LANE_BITS = 5
"""Of a training set, the low ones: the number of the wavelength that carries it."""

PHASES = 16
"""Sets in a cycle."""
MAGIC = 0b10110
TRAINING_SET = data.StructLayout({"lane": LANE_BITS, "phase": 4, "step": 2, "word": 16, "magic": 5})
"""Information in a training set; the low half of a control block, whose high half is the complement.

The sets of a beat differ in the lane only. ``word`` is the parameter word of the number ``phase``; from ``Phase.COUNTED`` on
it is the number of the cycle, by which lanes that are far apart are told from those that are together.
"""
SET = data.StructLayout({"phase": 4, "step": 2, "word": 16})
"""What the sets of a beat say."""
HEARD = data.StructLayout({"valid": 1, "set_valid": 1, "set": SET})
"""Of a received beat, all but its data: ``set_valid`` implies ``valid``."""

TRAININGS = data.StructLayout({"own": 7, "echoes": 1, "other": 7, "reserved": 1})
"""The number of this end's training, and with ``echoes`` that of the other end's training that it takes part in."""


class Phase:
    """The phases whose parameter word has a meaning; those of the limits and of the cycle's number go on from theirs."""

    CONFIG, REQUEST, EXPECTED, NUMBER, LIMITS = range(5)
    COUNTED = 12


def parameters_layout(spec: ChipletSpec) -> data.StructLayout:
    """What an end's receiver tells the other end's transmitter: the sequence it expects, credit limits."""
    return data.StructLayout({"expected": SEQUENCE_BITS, "limits": data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)})


def config_code(spec: ChipletSpec) -> int:
    """16 bits that must be equal at both ends: version, wavelengths, virtual channels, CRC, flit size."""
    fields = (
        (PROTOCOL_VERSION, 6),
        (spec.wavelengths_per_port.bit_length() - 1, 3),
        (spec.virtual_channels - 1, 3),
        (list(CRCS).index(spec.crc), 2),
        ((64, 128, 256).index(spec.flit_bytes), 2),
    )
    code = 0
    for value, bits in fields:
        assert value < 1 << bits
        code = code << bits | value
    return code


def parameter_words(spec: ChipletSpec, local, request, trainings, cycle) -> list:
    """Lists the parameter word of each phase.

    ``request`` says which lanes this end receives on, and whether it was reset; ``trainings`` number this training and that
    of the other end; ``cycle`` is the number of the cycle of sets.
    """
    words = [Const(0, 16)] * Phase.COUNTED + [cycle] * (PHASES - Phase.COUNTED)
    words[Phase.CONFIG] = Const(config_code(spec), 16)
    words[Phase.REQUEST] = request
    words[Phase.EXPECTED] = local.expected
    words[Phase.NUMBER] = trainings.as_value()
    words[Phase.LIMITS : Phase.LIMITS + spec.virtual_channels] = list(local.limits)
    return words
