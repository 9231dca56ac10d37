"""Sequences and credits as wide as the reach asks: what follows from a spec, and that the RTL counts so."""

import random
from itertools import pairwise

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from lightfabric.model import codec
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import MAX_LUT_RAM_DEPTH, Fifo
from lightfabric.rtl.frame import distance, following, frame_layout
from lightfabric.rtl.line import Framer
from lightfabric.rtl.receiver import Receiver

LONG_M = (22.0, 100.0, 500.0, 2000.0)


def test_a_short_reach_has_the_sequences_of_ucie_and_a_header_of_eight_bytes():
    spec = ChipletSpec()
    assert (spec.sequence_bits, spec.credit_bits, spec.sequences, spec.timeout_slots) == (8, 8, 255, 375)
    assert (spec.header_bytes, spec.payload_bytes, spec.buffer_flits) == (8, 116, 127)


def test_sequences_and_buffers_grow_with_the_reach():
    """Less than half of the sequences are outstanding, and a timeout is longer than two round trips."""
    specs = [ChipletSpec(reach_m=reach_m) for reach_m in LONG_M]
    assert [spec.sequence_bits for spec in specs] == [9, 11, 13, 15]
    for spec in specs:
        round_trip_slots = 2 * spec.reach_cycles / spec.slot_cycles
        assert round_trip_slots < spec.replay_flits <= spec.sequences // 2
        assert round_trip_slots < spec.buffer_flits < 1 << spec.credit_bits
        assert spec.timeout_slots > 2 * round_trip_slots
        assert spec.payload_bytes == 112
    assert all(one.buffer_flits < other.buffer_flits for one, other in pairwise(specs))


@pytest.mark.parametrize("flits", [{"buffer_flits": 128}, {"replay_flits": 128}])
def test_a_deeper_buffer_or_replay_widens_both_counts(flits):
    spec = ChipletSpec(**flits)
    assert spec.sequence_bits == spec.credit_bits == 9


def test_the_greatest_reach_is_told_and_can_be_built():
    with pytest.raises(
        ValueError, match=r"^ChipletSpec.reach_m must be at most 6896, so that .* most 32767 flits, not 7000$"
    ):
        ChipletSpec(reach_m=7000)
    spec = ChipletSpec(reach_m=6895)
    assert spec.sequence_bits == 16
    assert spec.replay_flits < spec.buffer_flits == spec.MAX_OUTSTANDING_FLITS


def simulate(design, testbench) -> None:
    simulator = Simulator(design)
    simulator.add_clock(1e-9)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("bits", [8, 9, 16])
def test_sequences_are_counted_modulo_one_less_than_a_power_of_two(bits):
    """Across the end, where a wrong modulus shows, and at random."""
    m, modulus, rng = Module(), (1 << bits) - 1, random.Random(bits)
    first, last, ahead, after = (Signal(bits) for _ in range(4))
    m.d.comb += [ahead.eq(distance(first, last)), after.eq(following(first))]
    edges = [*range(3), *range(modulus - 3, modulus)]
    pairs = [(a, b) for a in edges for b in edges] + [(rng.randrange(modulus), rng.randrange(modulus)) for _ in range(200)]

    async def testbench(ctx):
        for a, b in pairs:
            ctx.set(first, a)
            ctx.set(last, b)
            assert (ctx.get(ahead), ctx.get(after)) == ((b - a) % modulus, (a + 1) % modulus), f"seed {bits}: {a} to {b}"

    m.d.sync += Signal().eq(0)
    simulate(m, testbench)


@pytest.mark.parametrize("crc", ["crc32c", "crc24", "crc16", "crc16-umts"])
def test_frames_with_wide_sequences_are_those_of_the_codec(crc):
    """Explicit ones, and implicit ones whose sequence has both of its bytes in the CRC."""
    spec = ChipletSpec(
        ports=1, wavelengths_per_port=1, flit_bytes=256, virtual_channels=1, crc=crc, reach_m=1.0, replay_flits=20_000
    )
    assert spec.sequence_bits == 16
    framer, rng = Framer(spec), random.Random(5)
    explicit = codec.Flit(rng.randbytes(spec.payload_bytes), codec.DATA, 1, sequence=0xA5C3, credits=0xFEDC)
    implicit = codec.Flit(rng.randbytes(9), codec.DATA, 0, codec.ACK, 0x1234, credits=0x8001)
    frames = [(explicit, 0), (implicit, 0xB7E1), (implicit, 0x0100)]
    sent: list[int] = []

    async def testbench(ctx):
        waiting = list(frames)
        while len(sent) < (len(frames) + 1) * spec.beats_per_flit:
            if waiting and ctx.get(framer.load):
                flit, own = waiting.pop(0)
                await ctx.tick()
                ctx.set(framer.frame, int.from_bytes(flit.encode(spec, own)[: -spec.CRC_BYTES], "little"))
                ctx.set(framer.implicit, own)
                if ctx.get(framer.o.valid):
                    sent.append(ctx.get(framer.o.words))
                continue
            await ctx.tick()
            if ctx.get(framer.o.valid):
                sent.append(ctx.get(framer.o.words))

    simulate(framer, testbench)
    line = b"".join(word.to_bytes(8, "little") for word in sent)
    for flit, own in frames:
        encoded = flit.encode(spec, own)
        assert encoded in line, "seed 5"
        assert codec.Flit.decode(spec, encoded, own) == flit
        assert codec.Flit.decode(spec, encoded, own ^ 0x8000) == (None if own else flit)


@pytest.mark.parametrize("depth", [1, 3, MAX_LUT_RAM_DEPTH, MAX_LUT_RAM_DEPTH + 1, MAX_LUT_RAM_DEPTH + 70])
def test_a_fifo_gives_out_what_was_written_however_deep_it_is(depth):
    """Against a list; it is mostly filled at first and mostly emptied then, and rests at both ends."""
    fifo, rng, kept = Fifo(16, depth), random.Random(depth), list[int]()

    async def testbench(ctx):
        for cycle in range(6 * depth + 100):
            fills = cycle // (depth + 20) % 2 == 0
            write, read, value = rng.random() < (0.9 if fills else 0.2), rng.random() < (0.2 if fills else 0.9), cycle
            ctx.set(fifo.w_data, value)
            ctx.set(fifo.w_en, write)
            ctx.set(fifo.r_en, read)
            shown = ctx.get(fifo.r_rdy), ctx.get(fifo.more), ctx.get(fifo.level)
            assert shown == (bool(kept), len(kept) > 1, len(kept)), f"seed {depth}"
            assert not kept or ctx.get(fifo.r_data) == kept[0], f"seed {depth}"
            takes = write and len(kept) < depth
            if read and kept:
                kept.pop(0)
            kept.extend([value] * takes)
            await ctx.tick()

    simulate(fifo, testbench)


@pytest.mark.parametrize("wide", [{}, {"replay_flits": 20_000}], ids=["8 bits", "16 bits"])
def test_a_frame_that_does_not_surely_say_whether_it_is_implicit_is_dropped(wide):
    """Its CRC is right for what it says, and sequence 0 makes implicit and explicit frames alike."""
    spec = ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=1, reach_m=1.0, **wide)
    fields = list(codec.header_fields(spec).items())
    offset = sum(bits for _, bits in fields[:-1])
    assert frame_layout(spec)["header"].shape.size == offset + 9
    receiver, words, got = Receiver(spec), [0], list[tuple[int, int]]()

    async def testbench(ctx):
        ctx.set(receiver.frames, 1)
        ctx.set(receiver.words, words[-1])
        ctx.set(receiver.words_valid, 1)
        for _ in range(6):
            await ctx.tick()
            ctx.set(receiver.words_valid, 0)
            if ctx.get(receiver.received) or ctx.get(receiver.bad):
                got.append((ctx.get(receiver.received), ctx.get(receiver.bad)))

    simulator = Simulator(receiver)
    simulator.add_clock(1e-9)
    simulator.add_testbench(testbench)
    body = int.from_bytes(codec.Flit(b"\1", codec.DATA, 1).encode(spec)[: -spec.CRC_BYTES], "little")
    cases = ((0, 1), (codec.IMPLICIT, 1), (1, 0), (codec.IMPLICIT - 1, 0), (0b1_0000_0000, 0), (0b1111, 0))
    for n, (implicit, accepted) in enumerate(cases):
        content = (body | implicit << offset).to_bytes(spec.flit_bytes - spec.CRC_BYTES, "little")
        encoded = content + codec.crc_field(spec, content).to_bytes(4, "little")
        words.append(int.from_bytes(encoded, "little"))
        if n > 0:
            simulator.reset()
        simulator.run()
        assert got.pop() == (accepted, 1 - accepted), f"{implicit:09b}"
        assert (codec.Flit.decode(spec, encoded) is not None) == bool(accepted)
    assert not got
