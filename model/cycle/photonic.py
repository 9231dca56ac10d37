"""Passive optics lead light on: an optical circuit switch, and the add-drop nodes of a ring of wavelengths.

Light is neither stored nor arbitrated: what a transmitter sends arrives after the time of flight. Buffers and credits are at
the ends of a circuit, so every Fifo on its way must hold what a flight lasts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.kernel.block import Block, Inputs, Memory, Module, Outputs, Port, connect
from lightfabric.model.kernel.channel import NO_FLIT, Channels, Fifo, forward, has_space, peek, wake_at
from lightfabric.model.kernel.compiled import Records, compiled, from_


@compiled
def _turn(now: int, me: Records, change_cycle: Records) -> bool:
    """Take up the settings that are due; True if the switch carries light."""
    while me.setting + 1 < me.change_cycle_count and change_cycle[me.change_cycle_start + me.setting + 1] <= now:
        me.setting += 1
        me.light_cycle = change_cycle[me.change_cycle_start + me.setting] + me.dark_cycles
    return now >= me.light_cycle


@compiled
def _step_ocs(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    change_cycle, permutation = memory
    i, o = ports
    for index in awake:
        me = state[index]
        carries, waits = _turn(now, me, change_cycle), False
        ends = from_(permutation, me.permutation_start + me.setting * me.ports)
        for port in range(me.ports):
            if peek(now, channels, i[index, port]) == NO_FLIT:
                continue
            waits = True
            if carries and has_space(now, channels, o[index, ends[port]]):
                forward(now, channels, i[index, port], o[index, ends[port]])
                me.passed += 1
        # In the light a flit that stays waits for room, of which its Fifo tells; only the dark needs a clock.
        if waits and not carries:
            wake_at(now, channels, me.block, me.light_cycle)


class Ocs(Block, step=_step_ocs, state=dict.fromkeys(["ports", "dark_cycles", "setting", "light_cycle", "passed"], "i8")):
    """Switches circuits of light: input p leads to output ``permutations[s][p]`` from cycle ``change_cycles[s]`` on.

    The first setting is that of cycle 0. After every other change the switch is dark for ``dark_cycles``. Transmitters know
    the schedule: they hold their flits in the dark, and have stopped so early that none is under way when the switch turns,
    which is part of the dark time. The time of flight, there and on, is the latency of the Fifos at ``o``; those at ``i``
    stand for the transmitters' outputs. One flit per circuit and cycle.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    change_cycle = Memory("i8")
    permutation = Memory("i4")

    def __init__(self, permutations: ArrayLike, change_cycles: Sequence[int] = (0,), dark_cycles: int = 0) -> None:
        ends = np.array(permutations, np.int32)
        ports = ends.shape[-1]
        each: NDArray[np.int32] = np.arange(ports, dtype=np.int32)
        if ends.ndim != 2 or not np.array_equal(np.sort(ends, axis=1), np.tile(each, (len(ends), 1))):
            raise ValueError(f"Ocs.permutations must each have 0 to {ports - 1} once")
        if len(change_cycles) != len(ends) or change_cycles[0] != 0 or (np.diff(change_cycles) <= dark_cycles).any():
            must_be = f"{len(ends)} cycles from 0 on, each more than dark_cycles ({dark_cycles}) after the one before"
            raise ValueError(f"Ocs.change_cycles must be {must_be}, not {list(change_cycles)}")
        super().__init__(
            state={"ports": ports, "dark_cycles": dark_cycles},
            memory={"change_cycle": change_cycles, "permutation": ends.ravel()},
            widths={"i": ports, "o": ports},
        )


@compiled
def _pass_light(now: int, channels: Channels, arrives: int, leaves: int) -> None:
    if peek(now, channels, arrives) != NO_FLIT and has_space(now, channels, leaves):
        forward(now, channels, arrives, leaves)


@compiled
def _step_add_drop(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    drop_of, wavelength_of = memory
    ring_i, ring_o, add, drop = ports
    for index in awake:
        me = state[index]
        for wavelength in range(me.drop_of_count):
            place = drop_of[me.drop_of_start + wavelength]
            leaves = ring_o[index, wavelength] if place < 0 else drop[index, place]
            _pass_light(now, channels, ring_i[index, wavelength], leaves)
        for place in range(me.wavelength_of_count):
            leaves = ring_o[index, wavelength_of[me.wavelength_of_start + place]]
            _pass_light(now, channels, add[index, place], leaves)


class AddDrop(Block, step=_step_add_drop):
    """Adds and drops wavelengths at a node of a ring: ``drop[k]`` takes ``dropped[k]``, ``add[k]`` joins as ``added[k]``.

    Passive: what comes in cycle t goes on in t, by ``ring_o`` where it is not dropped; the way to the next node is the
    latency of the Fifo there. A wavelength that is added must not also pass: :class:`WavelengthRing` sees to that.
    """

    ring_i = Inputs(Fifo)
    ring_o = Outputs(Fifo)
    add = Inputs(Fifo)
    drop = Outputs(Fifo)
    drop_of = Memory("i4")
    wavelength_of = Memory("i4")

    def __init__(self, wavelengths: int, added: Sequence[int], dropped: Sequence[int]) -> None:
        drop_of = np.full(wavelengths, -1)
        drop_of[list(dropped)] = np.arange(len(dropped))
        super().__init__(
            memory={"drop_of": drop_of, "wavelength_of": list(added)},
            widths={"ring_i": wavelengths, "ring_o": wavelengths, "add": len(added), "drop": len(dropped)},
        )


@dataclass(frozen=True)
class Circuit:
    """Names a wavelength from one node of a ring to another, in the direction of rising numbers."""

    source: int
    destination: int
    wavelength: int

    def hops(self, nodes: int) -> list[int]:
        """List the nodes from which the circuit goes to the next one."""
        return [(self.source + step) % nodes for step in range((self.destination - self.source - 1) % nodes + 1)]


class WavelengthRing(Module):
    """Joins nodes by a ring of fibre and circuits on it; a wavelength is used again where its circuits do not meet.

    ``ends[circuit]`` are the ports where its flits go in and come out: one per cycle at most, after ``hop_cycles`` for each
    hop and the latencies of the Fifos to ``add`` and from ``drop``. What is not taken from ``drop`` waits on the ring.
    """

    def __init__(self, nodes: int, wavelengths: int, circuits: Sequence[Circuit], hop_cycles: int) -> None:
        super().__init__()
        _require_disjoint(nodes, wavelengths, circuits)
        self.ends = dict[Circuit, tuple[Port, Port]]()
        added = [[c.wavelength for c in circuits if c.source == n] for n in range(nodes)]
        dropped = [[c.wavelength for c in circuits if c.destination == n] for n in range(nodes)]
        ring = [self.add(f"node[{n}]", AddDrop(wavelengths, added[n], dropped[n])) for n in range(nodes)]
        for n, node in enumerate(ring):
            for w in range(wavelengths):
                # Light is never held up: with both delays of a hop in flight the Fifo still takes a flit in every cycle.
                connect(node.ring_o[w], ring[(n + 1) % nodes].ring_i[w], Fifo(2 * hop_cycles, hop_cycles, hop_cycles))
        for c in circuits:
            add, drop = added[c.source].index(c.wavelength), dropped[c.destination].index(c.wavelength)
            self.ends[c] = ring[c.source].add[add], ring[c.destination].drop[drop]


def _require_disjoint(nodes: int, wavelengths: int, circuits: Sequence[Circuit]) -> None:
    lit = dict[tuple[int, int], Circuit]()
    for circuit in circuits:
        if not (0 <= circuit.source < nodes and 0 <= circuit.destination < nodes and circuit.source != circuit.destination):
            raise ValueError(f"WavelengthRing.circuits must join two nodes from 0 to {nodes - 1}, not {circuit}")
        if not 0 <= circuit.wavelength < wavelengths:
            raise ValueError(f"WavelengthRing.circuits must have wavelengths from 0 to {wavelengths - 1}, not {circuit}")
        # A hop is the fibre behind a node: behind its destination the wavelength is free for another circuit.
        for node in circuit.hops(nodes):
            other = lit.setdefault((circuit.wavelength, node), circuit)
            if other is not circuit:
                where = f"wavelength {circuit.wavelength} after node {node}"
                raise ValueError(f"WavelengthRing.circuits must be one on {where}, not {other} and {circuit}")
