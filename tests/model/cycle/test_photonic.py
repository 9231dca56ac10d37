"""Passive optics against closed forms: time of flight, one flit per cycle, reuse of wavelengths, dark time."""

import re

import numpy as np
import pytest

from lightfabric.model.cycle.photonic import Circuit, Ocs, WavelengthRing
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.channel import Fifo
from lightfabric.model.kernel.system import System

HOP, ADD, DROP = 7, 2, 3


def ring_system(nodes, wavelengths, circuits, cycles):
    top = Module()
    ring = top.add("ring", WavelengthRing(nodes, wavelengths, circuits, HOP))
    sinks = []
    for n, circuit in enumerate(circuits):
        go_in, come_out = ring.ends[circuit]
        source = top.add(f"source[{n}]", Source(cycles, flits(len(cycles), source=n, packet=range(len(cycles)))))
        sinks.append(top.add(f"sink[{n}]", Sink()))
        connect(source.o, go_in, Fifo(2 * ADD, ADD, ADD))
        connect(come_out, sinks[-1].i, Fifo(2 * DROP, DROP, DROP))
    return System(top), sinks


def test_light_flies_from_node_to_node_at_one_flit_per_cycle_and_wavelength():
    """Wavelength 0 is used three times round the ring, wavelength 1 goes nearly all the way."""
    circuits = [Circuit(0, 2, 0), Circuit(2, 3, 0), Circuit(3, 0, 0), Circuit(1, 0, 1)]
    system, sinks = ring_system(5, 2, circuits, [0] * 40)
    system.run_to_idle()
    for n, (circuit, hops) in enumerate(zip(circuits, (2, 1, 2, 4), strict=True)):
        assert sinks[n].records["cycle"].tolist() == [ADD + hops * HOP + DROP + k for k in range(40)]
        assert set(sinks[n].records["source"].tolist()) == {n}
        assert len(circuit.hops(5)) == hops


@pytest.mark.parametrize(
    ("circuits", "message"),
    [
        (
            [Circuit(0, 3, 1), Circuit(2, 4, 1)],
            "WavelengthRing.circuits must be one on wavelength 1 after node 2, not "
            "Circuit(source=0, destination=3, wavelength=1) and Circuit(source=2, destination=4, wavelength=1)",
        ),
        (
            [Circuit(1, 1, 0)],
            "WavelengthRing.circuits must join two nodes from 0 to 4, not Circuit(source=1, destination=1, wavelength=0)",
        ),
        (
            [Circuit(0, 1, 2)],
            "WavelengthRing.circuits must have wavelengths from 0 to 1, not Circuit(source=0, destination=1, wavelength=2)",
        ),
    ],
)
def test_circuits_that_cannot_be_are_named(circuits, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WavelengthRing(5, 2, circuits, HOP)


def ocs_system(ocs, ports, cycles, there=6):
    top, sinks = Module(), []
    top.add("ocs", ocs)
    for n in range(ports):
        source = top.add(f"source[{n}]", Source(cycles, flits(len(cycles), source=n, packet=range(len(cycles)))))
        sinks.append(top.add(f"sink[{n}]", Sink()))
        connect(source.o, ocs.i[n], Fifo(4))
        connect(ocs.o[n], sinks[-1].i, Fifo(2 * there, there, there))
    return System(top), sinks


def test_a_circuit_switch_follows_its_schedule_and_holds_flits_in_the_dark():
    """Ports turn from n + 1 to n + 2 in cycle 20 and see no light for 11 cycles: what was offered in 19 waits until 31."""
    settings = [[1, 2, 3, 0], [2, 3, 0, 1]]
    system, sinks = ocs_system(Ocs(settings, [0, 20], 11), 4, [0, 5, 18, 19, 25, 40])
    system.run_to_idle()
    for n, sink in enumerate(sinks):
        assert sink.records["cycle"].tolist() == [1 + 6, 6 + 6, 19 + 6, 31 + 6, 32 + 6, 41 + 6]
        assert sink.records["source"].tolist() == [(n - 1) % 4] * 3 + [(n - 2) % 4] * 3
    assert int(system.blocks[0].state.passed) == 24


def test_circuits_carry_a_flit_per_cycle_each():
    system, sinks = ocs_system(Ocs([np.roll(np.arange(8), 3)]), 8, [0] * 50)
    system.run_to_idle()
    assert all(sink.records["cycle"].tolist() == list(range(7, 57)) for sink in sinks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1, 1]],), "Ocs.permutations must each have 0 to 2 once"),
        (
            ([[0, 1], [1, 0]], [0, 5], 5),
            "Ocs.change_cycles must be 2 cycles from 0 on, each more than dark_cycles (5) after the one before, not [0, 5]",
        ),
        (
            ([[0, 1]], [1]),
            "Ocs.change_cycles must be 1 cycles from 0 on, each more than dark_cycles (0) after the one before, not [1]",
        ),
    ],
)
def test_schedules_that_cannot_be_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Ocs(*arguments)
