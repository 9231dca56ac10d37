"""The rate that a link sustains over a fibre is found by a simulation of the link's block in the cycle model."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.cycle.link import Link
from lightfabric.model.cycle.slot import Losses, Slots
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.channel import NEVER
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import LinkTiming

LOSS_SPACING = 8
"""Round trips from loss to loss when the cost of one is measured: their replays hardly meet."""
MEASURED_LOSSES = 256
"""So many show all phases of slots against clock and answers."""
FEWEST_LOSSES = 32
"""Over a long fibre a loss costs so many slots that a phase more or less is little: as many flits as over a short one do."""


@cache
def sustained_cycles_per_flit(spec: ChipletSpec, timing: LinkTiming, delay_cycles: int) -> Fraction:
    """Measure the cycles per flit of a long stream on all virtual channels over a fibre, to a consumer that always waits.

    The line, the credits or the replay buffer limit it, whichever is slowest. Bit errors cost more:
    what a lost flit costs is simulated too, how many are lost per flit follows from ``Losses``. So a rate that is too low to
    see in a simulation counts for what it is, and a higher one never helps.
    """
    clean = replace(spec, bit_error_rate=0.0)
    # Links that differ in their errors alone share one simulation of the clean line, which the cache keeps.
    if spec != clean:
        return sustained_cycles_per_flit(clean, timing, delay_cycles) + Fraction(
            _cycles_lost_per_flit(spec, timing, delay_cycles)
        )
    beats = spec.blocks_per_cycle.numerator
    period_flits = beats // gcd(beats, spec.beats_per_flit)  # slots against clock
    count = 8 * period_flits * -(-max(spec.buffer_flits, spec.replay_flits) // period_flits)
    cycles, _ = _stream(Link(spec, timing, delay_cycles), timing, count)
    # The first half fills the fibre and the buffers; the second half is a whole number of periods of slots against clock.
    half = len(cycles) // 2
    return Fraction(int(cycles[-1] - cycles[-1 - half]), half)


def _cycles_lost_per_flit(spec: ChipletSpec, timing: LinkTiming, delay_cycles: int) -> float:
    """Measure what bit errors add to the cycles of a flit, as a mean.

    A miss is the loss of a slot with the flit whose turn it is. Its cost is measured at the losses of the spec, or where
    they are rare at one in ``LOSS_SPACING`` round trips. A flit in the slot after that of the flit before it has no echo of
    an earlier error to fear, nor the codeword that brought that flit; one after an idle slot, or sent again, has.
    """
    losses, clean = Losses.of(spec), Link(spec, timing, delay_cycles, losses=Losses())
    if losses.slot_loss_rate == 0:  # too small for a number
        return 0.0
    spacing_slots = LOSS_SPACING * max(spec.replay_flits, ceil(clean.longest_cycles / spec.slot_cycles))
    rate = max(losses.slot_loss_rate, max(1, losses.codeword_beats / losses.beats_per_flit) / spacing_slots)
    seen = replace(losses, slot_loss_rate=rate, echo_rate=rate * (losses.echo_rate / losses.slot_loss_rate))
    outstanding = max(spec.UCIE_OUTSTANDING_FLITS, spec.replay_flits)
    measured_losses = max(FEWEST_LOSSES, MEASURED_LOSSES * spec.UCIE_OUTSTANDING_FLITS // outstanding)
    count = measured_losses * spacing_slots // spec.virtual_channels
    lossy_cycles, missed = _stream(Link(spec, timing, delay_cycles, losses=seen), timing, count)
    clean_cycles, _ = _stream(clean, timing, count)
    # A gap longer than a slot means that the slot before was idle; each miss makes one gap, which is counted with the miss.
    gaps = np.count_nonzero(np.diff(lossy_cycles) > Slots.of(spec).longest_cycles)
    after_idle = max(0, gaps - missed) / len(lossy_cycles)
    first_rate = losses.next_rate + (losses.slot_loss_rate - losses.next_rate) * after_idle
    # A flit sent again may be lost again: the sum of the geometric series.
    misses_per_flit = first_rate / (1 - losses.slot_loss_rate)
    return misses_per_flit * float(lossy_cycles[-1] - clean_cycles[-1]) / missed


def _stream(link: Link, timing: LinkTiming, count: int) -> tuple[NDArray[np.int64], int]:
    """Send ``count`` flits on each virtual channel, all offered at once: the cycles of their arrivals, and the misses."""
    spec, top, sinks = link.spec, Module(), list[Sink]()
    top.add("link", link)
    for v in range(spec.virtual_channels):
        source = top.add(f"source_{v}", Source(np.zeros(count), flits(count, virtual_channel=v)))
        sinks.append(top.add(f"sink_{v}", Sink(capacity_flits=count)))
        connect(source.o, link.i[v], Link.input_fifo(spec, timing))
        connect(link.o[v], sinks[-1].i, link.output_fifo())
    System(top).run_to_idle(limit_cycle=NEVER)
    return np.sort(np.concatenate([sink.cycles for sink in sinks])), int(link.state["missed"])
