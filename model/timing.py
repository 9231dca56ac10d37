"""What was measured on the RTL: the only source of cycle counts for the models."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class LinkTiming:
    """Cycles of one link in one direction.

    The line is a train of flit slots, one after the other from reset on. A slot is decided, its flit leaves the queue and
    its credit goes back, ``line_cycles`` before the last beat of the slot before it is on the line at the transmitter. A
    slot arrives when its own last beat is at the receiver. The first group of values says which slot can carry what; with
    the times of the slots (``model.slot``) and the delay of the fibre they give every latency. The second group is measured
    end to end at zero delay.
    """

    first_beat_cycle: int
    """Cycle, from reset, in which the first beat of the first slot is on the line."""
    line_cycles: int
    """From the decision of a slot, seen as the credit at the input, to the last beat on the line of the slot before it."""
    first_credit_slot: int
    """The first slot that returns credits of virtual channel 0; the virtual channels take turns, one per slot."""
    accept_cycles: int
    """From a flit at the input to the decision of the earliest slot that can carry it."""
    deliver_cycles: int
    """From the arrival of a slot to its flit at the output."""
    credit_out_cycles: int
    """From a credit at the output to the decision of the earliest slot whose header can return it."""
    credit_in_cycles: int
    """From the arrival of a slot that returns a credit to the decision of the earliest slot that can use it."""
    ack_out_cycles: int
    """From the arrival of a slot with a flit to the decision of the earliest slot whose header can acknowledge it."""
    ack_in_cycles: int | None
    """From the arrival of a slot that acknowledges a flit to the decision of the earliest slot that can carry a new flit
    when the replay buffer was full. None if it never is, because the credits run out first."""
    nak_out_cycles: int
    """From the arrival of the slot that shows a gap to the decision of the earliest slot that can ask for a replay."""
    nak_in_cycles: int
    """From the arrival of the slot that asks for a replay to the decision of the earliest slot that can carry it."""

    latency_cycles: int
    """Least cycles from a flit at the input to the same flit at the output."""
    cycles_per_flit: Fraction
    """Sustained, with the consumer always ready."""
    credit_loop_cycles: int
    """Most cycles seen from a credit at the output to the flit it admits at the output, with the sender waiting."""
    replay_loop_cycles: int
    """Most cycles seen from the delivery that a corrupted flit would have had to the delivery of its replay."""


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
