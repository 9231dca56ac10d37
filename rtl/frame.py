"""Frames carry flits and link state: their header, the arithmetic of sequences, and what a receiver tells the far end.

The words:

* *frame*: what one slot of the line carries; it has a flit (*data*) or link state alone
* *sequence*: the number of a flit since the link was reset, modulo 255 or another 2^n - 1, the same when it is sent again
* *answer*: the last sequence received in order; an answer that is a *NAK* asks for what comes after it
* *limit*: how many flits may ever be sent in a virtual channel, modulo 2^n; it takes the place of single credits, of which
  a lost frame would lose some
"""

from amaranth import Mux
from amaranth.lib import data

from lightfabric.model.codec import header_fields
from lightfabric.model.spec import ChipletSpec


def header_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out the fields of a frame's header."""
    return data.StructLayout(header_fields(spec))


def frame_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what the CRC of a frame covers: header and payload."""
    header = header_layout(spec)
    unused_bits = spec.header_bytes * 8 - header.size
    unused = {"unused": unused_bits} if unused_bits else {}
    return data.StructLayout({"header": header, **unused, "payload": spec.payload_bytes * 8})


def never_received(spec: ChipletSpec) -> int:
    """Gives the sequence before the first one, 0: an end that has received nothing says that it was its last."""
    return spec.sequences - 1


def state_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out the state of a receiver, which its end tells the other end's transmitter.

    ``received`` is the last sequence received in order; ``wanting`` is 1 while a NAK is pending, because a later flit is
    known to be missing; ``limits`` are those of each virtual channel.
    """
    limits = data.ArrayLayout(spec.credit_bits, spec.virtual_channels)
    return data.StructLayout({"received": spec.sequence_bits, "wanting": 1, "limits": limits})


def peer_state_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out the state of the other end's receiver as it is heard from its frames.

    ``answer`` comes in the cycle after ``sequence``: it is 1 if that was an answer, in a good frame or at ``resume``, and a
    NAK if ``wanting`` is 1. The delay is the register stage that checks the CRC. ``limits`` stay until newer ones come.
    """
    limits = data.ArrayLayout(spec.credit_bits, spec.virtual_channels)
    return data.StructLayout({"sequence": spec.sequence_bits, "answer": 1, "wanting": 1, "limits": limits})


def following(sequence):
    """Gives the sequence that comes after this one. Combinational."""
    bits = len(sequence)
    return Mux(sequence == (1 << bits) - 2, 0, sequence + 1)[:bits]


def distance(first, last):
    """Counts how many sequences ``last`` is ahead of ``first``. Combinational."""
    # Below 0 the difference modulo 2^n is one more than that modulo 2^n - 1: ~first is -first - 1.
    bits = len(first)
    ahead = (last - first)[: bits + 1]
    return Mux(ahead[-1], last + ~first, ahead)[:bits]
