"""What the two ends of a link tell each other: the header of a frame, its sequence, and the state of a receiver."""

from amaranth import Mux
from amaranth.lib import data

from lightfabric.model.codec import CREDIT_BITS, HEADER_FIELDS, SEQUENCE_BITS, SEQUENCES
from lightfabric.model.spec import ChipletSpec

HEADER = data.StructLayout(HEADER_FIELDS)
NEVER_RECEIVED = SEQUENCES - 1
"""The last sequence in order of an end that has received none: the one before the first, 0."""


def frame_layout(spec: ChipletSpec) -> data.StructLayout:
    """What the CRC covers: header and payload."""
    return data.StructLayout({"header": HEADER, "payload": spec.payload_bytes * 8})


def state_layout(spec: ChipletSpec) -> data.StructLayout:
    """What a receiver tells the other end's transmitter.

    ``received`` is the last sequence received in order, ``wanting`` is 1 while a later flit is known to be missing,
    ``limits`` are the flits that may ever be sent in each virtual channel since the link was reset, modulo 256.
    """
    limits = data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)
    return data.StructLayout({"received": SEQUENCE_BITS, "wanting": 1, "limits": limits})


def news_layout(spec: ChipletSpec) -> data.StructLayout:
    """What a receiver hears of the other end's.

    In the cycle after ``sequence``, with ``answer``, that is its ``received``, and ``wanting`` is new. ``limits`` hold.
    """
    limits = data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)
    return data.StructLayout({"sequence": SEQUENCE_BITS, "answer": 1, "wanting": 1, "limits": limits})


def following(sequence):
    """The sequence after this one. Combinational."""
    return Mux(sequence == SEQUENCES - 1, 0, sequence + 1)[:SEQUENCE_BITS]


def distance(first, last):
    """How many sequences ``last`` is ahead of ``first``, modulo 255. Combinational."""
    ahead = (last - first)[: SEQUENCE_BITS + 1]
    return Mux(ahead[-1], last + ~first, ahead)[:SEQUENCE_BITS]
