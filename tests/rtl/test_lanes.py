"""Lanes: any order, any polarity, any subset; what dies is left out or replaced, what returns is taken back."""

import random
from functools import cache
from itertools import combinations, permutations

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.bonding import Distributor
from lightfabric.rtl.lane import LOCK_BLOCKS
from lightfabric.rtl.line import block_layout
from lightfabric.rtl.register_map import EVENTS, REGISTERS
from lightfabric.rtl.roll_call import HoldOff
from lightfabric.rtl.top import AxiLink
from lightfabric.rtl.training_set import parity_of
from lightfabric.rtl.training_state import Bounds
from lightfabric.sim.bench.bench import Bench, ClientFlit
from lightfabric.sim.bench.link import LinkBench
from lightfabric.sim.bench.training import TrainingBench, frame_word, wait
from lightfabric.sim.channel.fault import Channel, LaneFaults
from lightfabric.sim.channel.fibre import Lane, constant, light, noise

RETURN_CYCLES = 5000
"""10 us at 500 MHz."""


def spec_of(lanes: int, **fields) -> ChipletSpec:
    flit_bytes = 256 if lanes > 8 else 64
    return ChipletSpec(
        ports=1, wavelengths_per_port=lanes, flit_bytes=flit_bytes, virtual_channels=1, buffer_flits=8, **fields
    )


@pytest.fixture(scope="module")
def benches():
    """With a shorter wait for lanes that do not come; those of these tests lock at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bounds, "lock", 256)
        yield cache(
            lambda lanes, spares=0, **fields: TrainingBench(spec_of(lanes, spare_wavelengths=spares, **dict(fields)))
        )


def any_skew(rng: random.Random, bench: TrainingBench) -> int:
    return rng.randrange(bench.spec.max_skew_blocks + 1)


def assert_frames_are_whole(end, least: int = 20):
    last, count = end.frames[-1], end.spec.wavelengths_per_port
    assert len(last) > least
    assert last == [sum(frame_word(beat, place) << 64 * place for place in range(count)) for beat in range(len(last))]


def assert_comes_up(bench, order, inverted=0):
    """At full width, and says in which order and polarity its lanes came."""
    rng = random.Random(str((order, inverted)))
    there = [Lane(0, any_skew(rng, bench), inverted=bool(inverted >> n & 1)) for n in range(len(order))]
    run = bench.run(there=there, order=tuple(order), script=lambda _: bench.up(40), bound_cycles=1500)
    assert run.b.lanes_in == run.a.lanes_out == (1 << len(order)) - 1
    assert (run.b.order, run.b.inverted) == (list(order), inverted)
    assert_frames_are_whole(bench.b)
    assert_frames_are_whole(bench.a)


@pytest.mark.parametrize(("inverted", "order"), [(n % 16, order) for n, order in enumerate(permutations(range(4)))], ids=str)
def test_lanes_come_in_any_order_and_polarity(benches, inverted, order):
    assert_comes_up(benches(4), order, inverted)


@pytest.mark.parametrize("shift", range(1, 8))
def test_lanes_of_a_ring_come_in_cyclic_order(benches, shift):
    """16 lanes by hand: they take half a minute to elaborate."""
    assert_comes_up(benches(8), [(n + shift) % 8 for n in range(8)])


def test_a_lane_that_comes_twice_is_used_once_and_reported(benches):
    bench, split = benches(4), [0]

    def splits(_, sent):
        split[0] = sent
        return sent

    def script(ctx):
        yield from bench.up(100)
        assert ctx.get(bench.b.training.doubles) == 0b0100

    there = [Lane(), Lane(fault=splits), Lane(fault=lambda *_: split[0]), Lane()]
    run = bench.run(there=there, script=script)
    assert run.b.lanes_in == 0b1011
    assert_frames_are_whole(bench.b)


@pytest.mark.parametrize("dead", [(1,), (0, 2), (1, 3), (2, 3), *combinations(range(4), 3)], ids=str)
def test_any_lanes_that_are_left_carry_their_share(benches, dead):
    bench, window = benches(4), 600

    def script(_):
        yield from bench.up()
        for n in dead:
            bench.there.lanes[n].fault = (noise, constant(0))[n % 2]
        yield from wait(100)
        yield from bench.up(50)
        before = len(bench.b.frames[-1])
        yield from wait(window)
        rates.append((len(bench.b.frames[-1]) - before) / window / float(bench.spec.blocks_per_cycle))

    rates: list[float] = []
    run = bench.run(script=script, seed=len(dead))
    assert run.b.lanes_in == run.a.lanes_out == 15 - sum(1 << n for n in dead)
    assert rates[0] == pytest.approx((4 - len(dead)) / 4, rel=0.05)
    assert_frames_are_whole(bench.b)
    assert_frames_are_whole(bench.a)


def test_lanes_that_return_are_taken_back_within_10_us_and_a_flapping_one_after_ever_longer(benches):
    bench, taken = benches(4), []

    def script(ctx):
        yield from bench.up()
        for dead in ((1, 2), (0,), (0,)):
            for n in dead:
                bench.there.lanes[n].fault = noise
            yield from wait(100)
            yield from bench.up(20)
            for n in dead:
                bench.there.lanes[n].fault = light
                bench.there.lanes[n].offset = 17
            cycles = 0
            while ctx.get(bench.b.training.lanes_in) != 15 or not bench.both_active:
                yield
                cycles += 1
            taken.append(cycles)
            yield from bench.up(30)

    bench.run(script=script, bound_cycles=30_000)
    assert max(taken) < RETURN_CYCLES
    assert taken[2] > taken[1]
    assert_frames_are_whole(bench.b)


def test_a_burst_on_all_lanes_costs_no_lane(benches):
    bench = benches(4)

    def script(_):
        for _ in range(3):
            yield from bench.up(30)
            for lane in bench.there.lanes:
                lane.fault = noise
            yield from wait(200)
            for lane in bench.there.lanes:
                lane.fault = light
            yield from wait(5)
        yield from bench.up(30)

    run = bench.run(script=script)
    assert run.b.lanes_in == 15
    assert_frames_are_whole(bench.b)


def test_spare_lanes_take_the_place_of_dead_ones_at_full_rate(benches):
    bench = benches(2, 2)

    def script(ctx):
        yield from bench.up(30)
        assert ctx.get(bench.b.training.lanes_in) == 0b0011
        bench.there.lanes[0].fault = constant(0)
        bench.there.lanes[1].fault = noise
        cycles = 0
        while ctx.get(bench.b.training.lanes_in) != 0b1100 or not bench.both_active:
            yield
            cycles += 1
        switches.append(cycles)
        yield from bench.up(30)
        assert ctx.get(bench.b.training.width) == 2

    switches: list[int] = []
    run = bench.run(script=script)
    assert run.b.lanes_in == run.a.lanes_out == 0b1100
    assert switches[0] < MAX_SWITCH_CYCLES
    assert_frames_are_whole(bench.b)
    assert_frames_are_whole(bench.a)


MAX_SWITCH_CYCLES = 600
"""To lose the lock takes 64 blocks, the training over a short fibre 150, and both may come to each dead lane by itself."""


@pytest.mark.parametrize("skew", [20, 21])
def test_the_skew_that_is_borne_is_a_field_of_the_spec(benches, skew):
    bench = benches(2, max_skew_blocks=20)
    run = bench.run(there=[Lane(), Lane(skew_blocks=skew)], script=lambda _: bench.up(60))
    assert run.b.lanes_in == (0b11 if skew == 20 else 0b10)
    assert bool(bench.b.cycles_of("skew_overflow")) == (skew > 20)
    assert_frames_are_whole(bench.b)


def test_of_lanes_far_apart_the_many_stay(benches):
    bench = benches(4)
    run = bench.run(there=[Lane(), Lane(), Lane(skew_blocks=30), Lane(skew_blocks=2)], script=lambda _: bench.up(60))
    assert run.b.lanes_in == 0b1011
    assert_frames_are_whole(bench.b)


def test_bit_errors_are_told_of_their_lane(benches):
    bench = benches(4)

    def script(ctx):
        yield from bench.up(100)
        bench.there.lanes[2].fault = lambda _, sent: sent ^ 1 << 20
        yield from wait(5)
        bench.there.lanes[2].fault = light
        yield from wait(20)
        ctx.set(bench.b.training.retrain, 1)
        yield
        ctx.set(bench.b.training.retrain, 0)
        yield from wait(10)
        errors = 0
        while not bench.both_active:
            errors |= ctx.get(bench.b.aligner.errors)
            yield
        seen.append(errors)

    seen: list[int] = []
    bench.run(script=script)
    assert seen == [0b0100]


LINKS = {
    "a flit in half a beat of the line": spec_of(4, reach_m=1.0),
    "a spare wavelength": spec_of(2, reach_m=1.0, spare_wavelengths=1),
    "error correction": spec_of(2, reach_m=1.0, fec="light"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "error correction")) for name in LINKS]
)
def test_kills_and_returns_under_load_lose_no_flit(name):
    spec, rng = LINKS[name], random.Random(name)
    link = LinkBench(spec)
    flits = [(0, ClientFlit(rng.randbytes(rng.randint(1, spec.payload_bytes)))) for _ in range(100 if spec.code else 300)]
    faults = {"losses": 4e-4, "loss_blocks": 200.0, "lost": "noise"}
    channels = (Channel.uniform(spec.lanes_per_port, **faults), Channel.uniform(spec.lanes_per_port, **faults))
    run = link.run(flits, channels=channels, seed=3, bound_cycles=60_000)
    assert [flit for _, flit in run.received] == [flit for _, flit in flits]


class LoopWithSoftware:
    """Leads a link's line back to itself, kills lane 1 when told to, and enables one interrupt as software does."""

    def __init__(self, top, enabled: int):
        self.top, self.enabled, self.dead, self.interrupts = top, enabled, False, []
        self.samples = (top.tx_data, top.tx_valid, top.irq)

    def step(self, ctx, cycle: int, sent: int | None, valid: int | None, irq: int | None) -> None:
        if cycle == 0:
            for name, value in {"awvalid": 1, "awaddr": ENABLE, "wvalid": 1, "wdata": self.enabled, "wstrb": 15}.items():
                ctx.set(getattr(self.top, f"s_axil_{name}"), value)
            return
        for name in ("awvalid", "wvalid"):
            ctx.set(getattr(self.top, f"s_axil_{name}"), 0)
        if irq:
            self.interrupts.append(cycle)
        self.dead |= cycle > KILLED_CYCLE
        ctx.set(self.top.rx_data, sent & (1 << 66) - 1 if self.dead else sent)
        ctx.set(self.top.rx_valid, valid)


KILLED_CYCLE = 500
ENABLE = 4 * [register.name for register in REGISTERS].index("interrupt_enable")


@pytest.mark.usefixtures("benches")
def test_software_hears_that_lanes_were_reduced():
    spec, m = spec_of(2, reach_m=1.0), Module()
    m.submodules.top = top = AxiLink(spec)
    loop = LoopWithSoftware(top, 1 << [name for name, _ in EVENTS].index("lanes_reduced"))
    Bench(m).run([loop], lambda _: bool(loop.interrupts), bound_cycles=3000)
    assert loop.interrupts[0] > KILLED_CYCLE + 100


@pytest.mark.usefixtures("benches")
def test_a_link_goes_on_with_what_a_dead_wavelength_leaves():
    """For good, so that nothing but frames on three of four lanes can bring the flits."""
    spec = spec_of(4, reach_m=1.0)
    dead, whole = LaneFaults(losses=1.0, loss_blocks=1 << 20), LaneFaults()
    flits = [(0, ClientFlit(bytes([n]))) for n in range(60)]
    channels = (Channel((whole, dead, whole, whole)), Channel((whole, whole, whole, dead)))
    run = LinkBench(spec).run(flits, channels=channels, bound_cycles=3000)
    assert [flit for _, flit in run.received] == [flit for _, flit in flits]


@pytest.mark.parametrize(("fec", "width"), [("none", 66), ("kp4", 68)])
def test_block_lock_finds_sync_headers_nowhere_else_in_sets(fec, width):
    """At any other bit, some header in a window of 64 blocks has equal bits, so that no lane locks there."""
    spec, line = spec_of(1, fec=fec, reach_m=1.0), []

    async def send(ctx):
        for name, value in (("set", 0x12345678), ("is_set", 1), ("valid", 1)):
            ctx.set(distributor.i[name], value)
        ctx.set(distributor.lanes, 1)
        for _ in range(LOCK_BLOCKS + 6):
            *_, sent = await ctx.tick().sample(distributor.line.blocks[0].as_value())
            line.append(sent)

    m = Module()
    m.submodules.distributor = distributor = Distributor(spec)
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.run()
    bits = "".join(f"{block:0{width}b}"[::-1] for block in line[4:])
    locks = [at for at in range(width) if all(bits[n] != bits[n + 1] for n in range(at, width * LOCK_BLOCKS, width))]
    assert locks == [0]


PARITY_BITS = {n: list(range(n + 2, 68, 8)) for n in range(8)}
PARITY_BITS[3], PARITY_BITS[4] = [0, *range(5, 66, 8)], [1, *range(6, 66, 8)]


@pytest.mark.parametrize(("fec", "width"), [("none", 66), ("kp4", 68)])
def test_the_parity_of_a_block_is_that_of_clause_82(fec, width):
    """Table 82-4 of IEEE 802.3 for 66 bits; those of longer blocks go on with the first parities."""
    rng, shown = random.Random(82), []

    async def check(ctx):
        for _ in range(20):
            bits = rng.getrandbits(width)
            ctx.set(block.as_value(), bits)
            shown.append((bits, ctx.get(out)))

    m, block, out = Module(), Signal(block_layout(ChipletSpec(fec=fec))), Signal(8)
    m.d.comb += out.eq(parity_of(block))
    simulator = Simulator(m)
    simulator.add_testbench(check)
    simulator.run()
    for bits, parity in shown:
        assert parity == sum((sum(bits >> bit & 1 for bit in PARITY_BITS[n]) & 1) << n for n in range(8))


def test_each_flap_doubles_the_hold_off():
    waits: list[int] = []

    async def flap(ctx):
        for signal in (hold_off.beat, hold_off.active, hold_off.more):
            ctx.set(signal, 1)
        for _ in range(3):
            waits.append(0)
            while not ctx.get(hold_off.asks):
                await ctx.tick()
                waits[-1] += 1
            await ctx.tick().repeat(50)
            ctx.set(hold_off.lost, 1)
            ctx.set(hold_off.more, 0)
            await ctx.tick()
            ctx.set(hold_off.lost, 0)
            await ctx.tick()
            ctx.set(hold_off.more, 1)

    hold_off = HoldOff()
    simulator = Simulator(hold_off)
    simulator.add_clock(2e-9)
    simulator.add_testbench(flap)
    simulator.run()
    assert waits == [128, 256, 512]
