"""Random designs and a link behave as in Amaranth's own simulator, cycle by cycle."""

import random

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench import bench
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench
from lightfabric.sim.bench.simulator import simulator

SEED = 20261130


def _expression(rng, leaves, depth):
    """An expression over the leaves, with every kind of operator, in which parts occur again."""
    if depth == 0:
        return rng.choice(leaves)[:70]
    a, b = (_expression(rng, leaves, depth - 1) for _ in range(2))
    shift = b.as_unsigned()[: rng.randrange(1, 4)]
    return rng.choice(
        [
            lambda: a + b,
            lambda: a - b,
            lambda: (a * b)[: min(70, len(a) + len(b))],
            lambda: a & b,
            lambda: (a | b) ^ (a | b)[::-1],
            lambda: ~a,
            lambda: -a,
            lambda: a.as_signed() >> shift,
            lambda: (a << shift)[:70],
            lambda: Mux(a > b, a, b),
            lambda: Mux(b.bool(), a == b, a != b),
            lambda: a // Mux(b == 0, 1, b),
            lambda: a % Mux(b == 0, 1, b),
            lambda: Cat((a & (0x5A5A5A >> n)).xor() for n in range(8)),
            lambda: Cat(a, b.all(), a.any(), a).replicate(3)[:70],
            lambda: a[0].replicate(70) & b,
            lambda: a.as_unsigned().word_select(shift, 5),
            lambda: a.as_unsigned().bit_select(shift, 3).as_signed(),
        ]
    )()


def _design(rng):
    """Registers that feed each other through random expressions, branches and a memory."""
    m = Module()
    registers = [Signal(rng.choice([1, 3, 8, 33, 70, 300]), init=rng.getrandbits(1), name=f"r{n}") for n in range(6)]
    wires = [Signal(rng.choice([2, 9, 40]), name=f"w{n}") for n in range(4)]
    inputs = [Signal(40, name=f"i{n}") for n in range(2)]
    m.submodules.memory = memory = Memory(shape=40, depth=8, init=[])
    write, read = memory.write_port(granularity=8), memory.read_port()
    leaves = [*registers, *inputs, registers[0].as_signed()]
    for wire in wires:
        m.d.comb += wire.eq(_expression(rng, leaves, 2))
    leaves = [*leaves, *wires]
    ports = (write.addr, write.data, write.en, read.addr)
    m.d.comb += [port.eq(_expression(rng, leaves, 2)) for port in ports]
    for register in registers:
        with m.If(_expression(rng, leaves, 2).bool()):
            m.d.sync += register.eq(_expression(rng, leaves, 2))
        with m.Elif(_expression(rng, leaves, 1).bool()):
            m.d.sync += register[: len(register) // 2 + 1].eq(_expression(rng, leaves, 2))
        with m.Switch(inputs[0][:3]):
            with m.Case("1-0"):
                m.d.sync += register.eq(read.data)
            with m.Case(1, 2):  # each changes what the one before it has written
                for part in (inputs[1][:2], inputs[1][2:4]):
                    m.d.sync += register[: 3 * len(register) // 4 + 1].bit_select(part, 1).eq(_expression(rng, leaves, 1))
    return m, inputs, [*registers, *wires, read.data]


def _trace(make, m, inputs, shown, seed):
    rng, trace = random.Random(seed), []

    async def testbench(ctx):
        for _ in range(60):
            for signal in inputs:
                ctx.set(signal, rng.getrandbits(40))
            trace.append((await ctx.tick().sample(*shown))[2:])

    simulation = make(m)
    simulation.add_clock(1e-6)
    simulation.add_testbench(testbench)
    simulation.run()
    return trace


@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_random_designs_behave_as_in_the_simulator_of_amaranth(seed):
    ours, theirs = (_trace(make, *_design(random.Random(seed)), seed) for make in (simulator, Simulator))
    assert len({str(values) for values in theirs}) > 1
    assert ours == theirs


def _still_memory():
    """A memory that is written and read in the same place in every cycle."""
    m = Module()
    m.submodules.memory = memory = Memory(shape=8, depth=2, init=[])
    write, reads = memory.write_port(), (memory.read_port(), memory.read_port(domain="comb"))
    m.d.comb += [write.en.eq(1), write.data.eq(5)]
    return m, [], [read.data for read in reads]


def test_what_is_written_to_a_memory_is_read_though_its_ports_keep_still():
    ours, theirs = (_trace(make, *_still_memory(), SEED) for make in (simulator, Simulator))
    assert theirs[-1] == (5, 5)
    assert ours == theirs


def test_a_link_runs_as_in_the_simulator_of_amaranth(monkeypatch):
    spec = ChipletSpec(wavelengths_per_port=2, flit_bytes=64, buffer_flits=8)
    flits = [(7 * n, ClientFlit(bytes([n] * 9), virtual_channel=n % spec.virtual_channels)) for n in range(20)]

    def run():
        return LinkBench(spec).run(flits, delay_cycles=3, lost_a=lambda beat: beat % 40 == 0, decode=True, settle_cycles=50)

    ours = run()
    monkeypatch.setattr(bench, "simulator", Simulator)
    theirs = run()
    assert theirs.replays > 0
    assert ours == theirs
