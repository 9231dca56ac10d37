"""Timing holds what was measured on the RTL: the only source of cycle counts for the models."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, cast


@dataclass(frozen=True)
class LinkTiming:
    """Holds the measured cycles of one link in one direction.

    The line is trained, and then a train of flit slots, one after the other. A flit is *staged* when it is taken from its
    queue, its credit goes back and one of the far end is spent; then a slot is *decided* to carry it, ``line_cycles`` before
    the last beat of the slot before is on the line at the transmitter. A slot *arrives* when its own last beat is at the
    receiver. The first group of values says which slot can carry what; with the times of the slots (``model.cycle.slot``)
    and the delay of the fibre they give every latency. The second group is measured end to end at zero delay.
    """

    first_beat_cycle: int
    """Cycle, from reset, in which the first beat is on the line."""
    line_cycles: int
    """From the decision of a slot to the last beat on the line of the slot before it."""
    first_credit_slot: int
    """A slot that tells the limit of virtual channel 0; the virtual channels take turns, one per slot."""
    first_answer_slot: int
    """The first slot that can answer; every other one does, until a replay shifts their turn."""
    start_cycles: int
    """From the end of the exchange of parameters, when the line is trained for the first time, to the first staging."""
    accept_cycles: int
    """From a flit at the input to its staging."""
    stage_cycles: int
    """From the staging of a flit to the decision of the earliest slot that can carry it."""
    next_cycles: int
    """From the decision of a slot with a new flit to the decision of the earliest slot that can carry the next one."""
    deliver_cycles: int
    """From the arrival of a slot to its flit at the output."""
    credit_out_cycles: int
    """From a credit at the output to the decision of the earliest slot whose header can return it."""
    credit_in_cycles: int
    """From the arrival of a slot that returns a credit to the staging of the flit that spends it."""
    ack_out_cycles: int
    """From the arrival of a slot with a flit to the decision of the earliest slot whose header can acknowledge it."""
    ack_in_cycles: int
    """From the arrival of a slot that acknowledges a flit to the decision of the earliest slot that can carry a new flit
    when the replay buffer was full."""
    nak_out_cycles: int
    """From the arrival of a slot with a wrong CRC to the decision of the earliest slot that can ask for a replay."""
    halt_in_cycles: int
    """From the arrival of the slot that asks for a replay to the decision of the earliest slot that carries no new flit."""
    nak_in_cycles: int
    """From the arrival of the slot that asks for a replay to the decision of the earliest slot that can carry it."""
    cut_cycles: int
    """From the cycle in which the link is told to train again to the first beat that the line takes up for a set."""
    retrain_cycles: int
    """From the same cycle to the end of the exchange of parameters, at zero delay."""
    retrain_cycles_per_delay: Fraction
    """How much longer that takes for each cycle of delay, over the longest fibre that the replay buffer is made for."""

    latency_cycles: int
    """Least cycles from a flit at the input to the same flit at the output."""
    cycles_per_flit: Fraction
    """Sustained, with the consumer always ready."""
    credit_loop_cycles: int
    """Most cycles seen from a credit at the output to the flit it admits at the output, with the sender waiting."""
    replay_loop_cycles: int
    """Most cycles seen from the delivery that a corrupted flit would have had to the delivery of its replay."""
    pointer_loop_cycles: int
    """Fewest cycles seen from the decision of a slot with a flit to the decision of a slot that needs its place in the
    replay buffer, or would if the buffer were full: when a slot with an answer comes just in time."""
    lock_cycles: int
    """From reset to the lock of all wavelengths."""
    align_cycles: int
    """From there to the alignment of all wavelengths, both ends hearing each other."""
    exchange_cycles: int
    """From there to frames in both directions."""
    recovery_cycles: int
    """From the cycle in which a link in use is told to train again to frames in both directions."""


@dataclass(frozen=True)
class SwitchTiming:
    """Holds the measured cycles of the switch."""

    latency_cycles: int
    """From a flit at an input to the same flit at an output that nobody else wants."""
    cycles_per_flit: Fraction
    """Sustained, one input to one output."""
    credit_cycles: int
    """From a flit at an input to the credit that returns its buffer, when its output is free."""
    credit_loop_cycles: int
    """From a credit at an output to the flit it admits at that output, with the flit waiting."""


@dataclass(frozen=True)
class ClientTiming:
    """Holds the cycles of the client side, for packets of one full flit from and to a client that is always ready."""

    ingress_cycles: int
    """From the first word of a packet taken to its flit at the output."""
    ingress_cycles_per_flit: int
    """Sustained."""
    ingress_credit_cycles: int
    """From a credit to the first word that it admits, with the word waiting."""
    egress_cycles: int
    """From a flit at the input to the last word of its packet offered."""

    @property
    def latency_cycles(self) -> int:
        """Add what both ends of the client side take."""
        return self.ingress_cycles + self.egress_cycles


@dataclass(frozen=True)
class Timing:
    """Holds the measured timing of one chiplet, and where it comes from."""

    link: LinkTiming
    switch: SwitchTiming
    client: ClientTiming
    spec_hash: str
    rtl_hash: str
    simulator: str

    def to_dict(self) -> dict[str, Any]:
        """Give all fields as plain values, fractions as text: ``"33/32"``."""
        return plain(asdict(self))


def plain(value: Any) -> Any:
    """Return what holds fractions with their text in their place, as JSON takes it."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in cast(dict[str, Any], value).items()}
    return str(value) if isinstance(value, Fraction) else value
