"""What was measured on the RTL: the only source of cycle counts for the models."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class LinkTiming:
    """Cycles of one link in one direction, at zero channel delay.

    The line is a train of flit slots, one after the other from reset on. The first group of values says which slot can
    carry what; with the slot times they give every latency. The second group is measured end to end.
    """

    first_beat_cycle: int
    """Cycle, from reset, in which the first beat of the first slot is on the line."""
    accept_cycles: int
    """From a flit at the input to the first beat of the earliest slot that can carry it."""
    deliver_cycles: int
    """From the last beat of a slot to its flit at the output."""
    credit_out_cycles: int
    """From a credit at the output to the first beat of the earliest slot whose header can return it."""
    credit_in_cycles: int
    """From the last beat of a slot that returns a credit to the first beat of the earliest slot that can use it."""
    nak_out_cycles: int
    """From the last beat of a corrupted slot to the first beat of the earliest slot that can carry the nak."""
    nak_in_cycles: int
    """From the last beat of a slot with a nak to the first beat of the earliest slot that can carry the replay."""

    latency_cycles: int
    """Least cycles from a flit at the input to the same flit at the output."""
    cycles_per_flit: Fraction
    """Sustained, with the consumer always ready."""
    credit_loop_cycles: int
    """From a credit at the output to the flit it admits at the output, with the sender waiting."""
    replay_loop_cycles: int
    """From the delivery a corrupted flit would have had to the delivery of its replay."""


@dataclass(frozen=True)
class SwitchTiming:
    """Cycles of the switch."""

    latency_cycles: int
    """From a flit at an input to the same flit at an output that nobody else wants."""
    cycles_per_flit: Fraction
    """Sustained, one input to one output."""
    credit_cycles: int
    """From a flit at an input to the credit that returns its buffer, when its output is free."""
    credit_loop_cycles: int
    """From a credit at an output to the flit it admits at that output, with the flit waiting."""


@dataclass(frozen=True)
class Timing:
    """The measured timing of one chiplet, and where it comes from."""

    link: LinkTiming
    switch: SwitchTiming
    spec_hash: str
    rtl_hash: str
    simulator: str
