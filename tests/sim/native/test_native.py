"""The native bench of the link: what it delivers under faults, that it sees each kind of damage, and its cache."""

import dataclasses
import json
import os
import secrets
import stat
import time

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from lightfabric.flows.command import sim
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError, RunError
from lightfabric.flows.tool import native as flow
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.lane import LOCK_BLOCKS, SILENT_CYCLES
from lightfabric.rtl.receiver import BAD_FRAMES_TO_RETRAIN
from lightfabric.rtl.top import AxiLink
from lightfabric.sim.native import link as native

PROTOTYPE = load_spec(None, "prototype")
NARROW = ChipletSpec(ports=1, wavelengths_per_port=1, flit_bytes=64)
BEAT_IS_FLIT = ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64)
DAMAGE = ("lost", "corrupted", "duplicated", "reordered", "protocol_errors")
FAULTS = ("bit_errors", "bursts", "dropped_flits", "duplicated_flits", "source_stall_cycles", "sink_stall_cycles")
STORM = {"ber": 1e-5, "ber_back": 1e-5, "bursts": 1e-4, "drops": 1e-3, "duplicates": 1e-3, "stalls": 0.3}
LOSSES = {"darks": 1e-5, "kills": 1e-5}


def damage(seen):
    return {name: seen[name] for name in DAMAGE if seen[name]}


class Tampered(wiring.Component):
    """The link with something done to the words that leave it, at the 20th packet of a single word or always.

    What is done is an input: making the program takes longest, and one serves all kinds.
    """

    KINDS = ("corrupts", "misroutes", "leaks", "wavers", "loses", "repeats", "hangs", "reorders")

    def __init__(self, spec, address=1):
        self.spec, self.address = spec, address
        super().__init__({**AxiLink(spec, address).signature.members, "kind": In(range(len(self.KINDS)))})

    def elaborate(self, _):
        m = Module()
        m.submodules.link = self.link = link = AxiLink(self.spec, self.address)
        self.words = {}
        for name, member in link.signature.members.items():
            inside, outside = getattr(link, name), getattr(self, name)
            m.d.comb += inside.eq(outside) if member.flow is In else outside.eq(inside)
            if name.startswith("m_axis") and member.flow is not In and name != "m_axis_tvalid":
                self.words[name] = inside
        self.taken, self.begins, self.now = Signal(), Signal(init=1), Signal()
        number = Signal(8)
        m.d.comb += self.taken.eq(link.m_axis_tvalid & link.m_axis_tready)
        m.d.comb += self.now.eq(link.m_axis_tvalid & self.begins & link.m_axis_tlast & (number == 20))
        with m.If(self.taken):
            m.d.sync += self.begins.eq(link.m_axis_tlast)
            m.d.sync += number.eq(number + (self.begins & link.m_axis_tlast & (number != 21)))
        with m.Switch(self.kind):
            for n, kind in enumerate(self.KINDS):
                with m.Case(n):
                    getattr(self, kind)(m)
        return m

    def corrupts(self, m):
        m.d.comb += self.m_axis_tdata.eq(self.link.m_axis_tdata ^ self.now)

    def misroutes(self, m):
        m.d.comb += self.m_axis_tdest.eq(self.link.m_axis_tdest ^ self.now)

    def leaks(self, m):
        m.d.comb += self.m_axis_tdata[-8:].eq(self.link.m_axis_tdata[-8:] | ~self.link.m_axis_tkeep[-1].replicate(8))

    def wavers(self, m):
        held = Signal()
        m.d.sync += held.eq(self.m_axis_tvalid & ~self.m_axis_tready)
        m.d.comb += self.m_axis_tdest.eq(self.link.m_axis_tdest ^ (self.m_axis_tvalid & ~self.m_axis_tready & held))
        # Marks are hidden as well, which only resets make.
        m.d.comb += self.m_axis_tuser.eq(self.link.m_axis_tuser[:-1])

    def loses(self, m):
        with m.If(self.now):
            m.d.comb += [self.m_axis_tvalid.eq(0), self.link.m_axis_tready.eq(1)]

    def repeats(self, m):
        again = Signal()
        with m.If(self.now & ~again):
            m.d.comb += self.link.m_axis_tready.eq(0)
            m.d.sync += again.eq(self.m_axis_tready)

    def hangs(self, m):
        with m.If(self.now):
            m.d.comb += [self.m_axis_tvalid.eq(0), self.link.m_axis_tready.eq(0)]

    def reorders(self, m):
        kept = {name: Signal.like(word, name=f"kept_{name}") for name, word in self.words.items()}
        has, passed = Signal(), Signal()
        with m.If(passed):
            m.d.comb += [getattr(self, name).eq(word) for name, word in kept.items()]
            m.d.comb += [self.m_axis_tvalid.eq(1), self.link.m_axis_tready.eq(0)]
            with m.If(self.m_axis_tready):
                m.d.sync += [has.eq(0), passed.eq(0)]
        with m.Elif(self.now):
            m.d.comb += [self.m_axis_tvalid.eq(0), self.link.m_axis_tready.eq(1)]
            m.d.sync += [has.eq(1), *(kept[name].eq(word) for name, word in self.words.items())]
        with m.If(has & self.taken & self.link.m_axis_tlast):
            m.d.sync += passed.eq(self.link.m_axis_tuser == kept["m_axis_tuser"])


@pytest.fixture
def tampered(tmp_path, monkeypatch):
    """Runs the tampered link; its C++ takes the kind from the environment when it is reset."""
    files = flow._files(NARROW, Tampered(NARROW))
    before, begins, after = files[native.SHAPE].partition("void set_reset(Top& top, bool level) {")
    assert begins
    files[native.SHAPE] = f'#include <cstdlib>\n{before}{begins} top.kind = std::atoi(std::getenv("KIND"));{after}'
    built = flow.built(native.TOP, files, tmp_path)

    def run(kind, job):
        monkeypatch.setenv("KIND", str(Tampered.KINDS.index(kind)))
        return flow.run(built, job)

    return run


def test_the_header_has_the_shape_of_the_link():
    verilog = "module inner(clk, other);\nmodule link(clk, client_clk, rst,\n client_rst, clkless, rx_data);\n"
    text = native.shape(BEAT_IS_FLIT, AxiLink(BEAT_IS_FLIT, 7), verilog)
    for line in (
        "inline constexpr std::size_t LANES = 8;",
        "inline constexpr std::size_t BEATS_PER_FLIT = 1;",
        f"inline constexpr std::size_t PAYLOAD_BYTES = {BEAT_IS_FLIT.payload_bytes};",
        "inline constexpr std::uint32_t ADDRESS = 7;",
        "template <class Top> void set_clock(Top& top, bool level) { top.clk = level; top.client_clk = level; }",
        "template <class Top> void set_reset(Top& top, bool level) { top.rst = level; top.client_rst = level; }",
    ):
        assert line in text.splitlines()


def test_every_field_of_a_run_is_an_option_of_the_program():
    settings = native.sources()["native.cpp"].partition("struct Settings {")[2].partition("\n};")[0]
    assert all(f'("{field.name}")' in settings for field in dataclasses.fields(native.Run))
    assert native.Run(3, 4, ber=1e-5, saturated=True).arguments()[:8] == [
        "packets", "3", "packets_back", "4", "seed", "1", "ber", "1e-05",
    ]  # fmt: skip
    arguments = native.Run(3, 4, saturated=True).arguments()
    assert arguments[arguments.index("saturated") + 1] == "1"


def program(folder, script):
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_counts_are_given_out_although_packets_were_lost(tmp_path):
    assert flow.run(program(tmp_path, """echo '{"lost": 3}'; exit 1"""), native.Run(1, 1)) == {"lost": 3}


def test_a_program_that_breaks_or_hangs_is_a_failure(tmp_path):
    with pytest.raises(RunError, match=r"^the native bench broke: the option seed is missing$"):
        flow.run(program(tmp_path, "echo the option seed is missing >&2; exit 2"), native.Run(1, 1))
    with pytest.raises(RunError, match=r"^the native bench broke: -9$"):
        flow.run(program(tmp_path, "kill -9 $$"), native.Run(1, 1))
    with pytest.raises(RunError, match=r"^the native bench did not end within 1 s$"):
        flow.run(program(tmp_path, "exec sleep 60"), native.Run(1, 1), bound_s=1)


def test_the_cache_keeps_the_programs_that_were_used_last(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(flow, "MAX_KEPT", 2)
    built, names = program(tmp_path, "exit 0"), []
    for number in range(3):
        kept = flow.kept_path("link", {"link.v": str(number)}, waves=False)
        assert flow.keep(built, kept) == kept
        assert kept.stat().st_mode & stat.S_IXUSR
        names.append(kept.name)
        time.sleep(0.02)
        kept.touch()
    assert sorted(path.name for path in kept.parent.iterdir()) == sorted(names[1:])
    assert flow.kept_path("link", {"link.v": "1"}, waves=True).name not in names


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    built = program(tmp_path, "exit 0")
    assert flow.keep(built, flow.kept_path("link", {}, waves=False)) == built
    assert "cannot be kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("block", "simulator", "faults", "message"),
    [
        ("link", "amaranth", {"bursts": 0.1}, "--bursts must be 0 but for the link on verilator, not 0.1"),
        ("link", "icarus", {"drops": 0.1}, "--drops must be 0 but for the link on verilator, not 0.1"),
        ("chiplet", "verilator", {"duplicates": 0.1}, "--duplicates must be 0 but for the link on verilator, not 0.1"),
        ("switch", "verilator", {"stalls": float("nan")}, "--stalls must be 0 but for the link on verilator, not nan"),
        ("link", "verilator", {"bursts": 0.5}, "--bursts must be at least 0 and below 0.5, not 0.5"),
        ("link", "verilator", {"drops": -0.1}, "--drops must be at least 0 and below 0.5, not -0.1"),
        ("link", "verilator", {"duplicates": float("nan")}, "--duplicates must be at least 0 and below 0.5, not nan"),
        ("link", "verilator", {"stalls": 0.95}, "--stalls must be from 0 to 0.9, not 0.95"),
    ],
)
def test_a_wrong_fault_names_the_option(block, simulator, faults, message):
    with pytest.raises(InputError) as caught:
        sim.main(block, simulator, PROTOTYPE, None, 0.0, 10, 1, True, **faults)
    assert str(caught.value) == message


def test_a_simulator_without_faults_counts_none(capsys):
    sim.main("switch", "amaranth", PROTOTYPE, None, 0.0, 5, 1, True)
    seen = json.loads(capsys.readouterr().out)
    assert (seen["bursts"], seen["dropped_flits"], seen["duplicated_flits"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "packets"), [(NARROW, 150_000), (BEAT_IS_FLIT, 450_000)], ids=["narrow", "beat is flit"])
def test_a_million_flits_each_way_survive_every_fault(spec, packets, tmp_path):
    """On one wavelength it is a third of as many."""
    built = flow.build(spec, tmp_path)
    begin_s = os.times().children_user
    seen = flow.run(built, native.Run(packets, packets, ppm=300, **STORM, **LOSSES))
    assert (seen["delivered"], damage(seen)) == (2 * packets, {})
    assert seen["flits"] > 4 * packets
    assert all(seen[name] > 100 for name in FAULTS)
    assert all(seen[name] > 10 for name in LOSSES)
    assert seen["replays"] > 1_000
    assert os.times().children_user - begin_s < 120


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crc", "flit_bytes"),
    [("crc32c", 256), ("crc24", 128), ("crc16", 64), ("crc16-umts", 128)],
)
def test_every_crc_and_flit_size_survives_every_fault(crc, flit_bytes, tmp_path):
    spec = ChipletSpec(ports=1, wavelengths_per_port=2, flit_bytes=flit_bytes, crc=crc, virtual_channels=3)
    seen = flow.run(flow.build(spec, tmp_path), native.Run(7_000, 7_000, **STORM))
    assert (seen["delivered"], damage(seen)) == (14_000, {})
    assert seen["flits"] > 20_000
    assert all(seen[name] > 0 for name in FAULTS)


RESETS = {"resets": 3e-4, "settle_cycles": 20_000, "patience_cycles": 100_000}
BROKEN_SILENTLY = ("truncated", "merged", "headless", "lost_unharmed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "packets", "rate"), [(NARROW, 2_000, 3e-4), (BEAT_IS_FLIT, 5_000, 6e-4)], ids=["narrow", "beat is flit"]
)
def test_resets_of_either_end_at_any_time_leave_packets_whole_or_marked(spec, packets, rate, tmp_path):
    """A fixed seed, and one that is new each time: pytest shows it when the test fails."""
    built = flow.build(spec, tmp_path)
    noisy = {"stalls": 0.8, "ber": 1e-5, "ber_back": 1e-5, "drops": 1e-3}
    for faults in ({}, {"stalls": 0.4}, noisy, {"darks": rate / 8, "kills": rate / 8}):
        for seed in (1, secrets.randbits(32)):
            print(f"seed {seed} {faults}")
            seen = flow.run(built, native.Run(packets, packets, seed=seed, **(RESETS | {"resets": rate}), **faults))
            assert seen["seed"] == seed
            assert damage({**seen, "lost": 0}) == {}
            assert [name for name in BROKEN_SILENTLY if seen[name]] == []
            assert seen["resets"] > 5
            assert seen["broken"] > 0
            assert seen["delivered"] > packets


def drop_bound_cycles(spec):
    """From the loss of all light until a link says that it is down.

    Without blocks it waits for SILENT_CYCLES; bad headers unlock a lane within two windows; blocks that look like frames
    are bad ones until there are too many in a row. Then registers on the way, and the bus that reads the status.
    """
    window_cycles, slots = LOCK_BLOCKS / spec.blocks_per_cycle, BAD_FRAMES_TO_RETRAIN + 2
    return max(SILENT_CYCLES, 2 * window_cycles, slots * spec.slot_cycles) + 24


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "packets"), [(NARROW, 8_000), (BEAT_IS_FLIT, 60_000)], ids=["narrow", "beat is flit"])
def test_lost_light_takes_the_link_down_within_its_bound_and_costs_no_packet(spec, packets, tmp_path):
    """With hundreds of losses, so that some of them are silent for long enough whatever the seed."""
    built = flow.build(spec, tmp_path)
    seed = secrets.randbits(32)
    seen = flow.run(built, native.Run(packets, packets, seed=seed, stalls=0.2, darks=4e-4))
    assert (seen["delivered"], damage(seen)) == (2 * packets, {}), seed
    assert seen["darks"] > 150
    assert SILENT_CYCLES < seen["drop_cycles"] < drop_bound_cycles(spec), seed


@pytest.mark.slow
def test_a_million_blocks_of_noise_never_raise_the_link(tmp_path):
    seen = flow.run(flow.build(NARROW, tmp_path), native.Run(100, 100, noise_cycles=1_040_000, patience_cycles=1_100_000))
    assert (seen["delivered"], damage(seen)) == (200, {})
    assert seen["cycles"] * NARROW.blocks_per_cycle > 1_000_000
    assert seen["drop_cycles"] == 0


@pytest.mark.slow
def test_a_thousand_wavelengths_that_die_and_return_under_load_cost_no_packet(tmp_path):
    seed = secrets.randbits(32)
    seen = flow.run(flow.build(BEAT_IS_FLIT, tmp_path), native.Run(30_000, 30_000, seed=seed, kills=3e-3))
    assert (seen["delivered"], damage(seen)) == (60_000, {}), seed
    assert seen["kills"] > 1000


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-300, 300, 0.99])
def test_idle_cycles_absorb_the_frequency_offset(ppm, tmp_path):
    """In parts per million, or of the headroom: both directions see the offset, one with each sign."""
    offset = ppm if abs(ppm) > 1 else ppm * NARROW.clock_headroom_ppm
    seen = flow.run(flow.build(NARROW, tmp_path), native.Run(3_000, 3_000, ppm=offset))
    assert (seen["delivered"], damage(seen), seen["crc_errors"]) == (6_000, {}, 0)
    assert seen["waiting_beats"] == 1


@pytest.mark.slow
def test_blocks_pile_up_at_a_receiver_that_is_slower_than_the_headroom(tmp_path):
    offset = NARROW.clock_headroom_ppm + 1000
    seen = flow.run(flow.build(NARROW, tmp_path), native.Run(3_000, 3_000, ppm=offset))
    assert seen["waiting_beats"] == pytest.approx(seen["cycles"] * 1000 * 1e-6, rel=0.2)


@pytest.mark.slow
def test_the_bench_sees_ends_that_are_not_marked(tampered):
    """Without the mark the beginnings of packets look like packets."""
    seen = tampered("wavers", native.Run(4_000, 4_000, **RESETS))
    assert damage({**seen, "lost": 0}).keys() <= {"corrupted", "protocol_errors"}
    assert seen["truncated"] > 0
    assert seen["broken"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("corrupts", {"lost": 2, "corrupted": 2}),
        ("misroutes", {"lost": 2, "corrupted": 2}),
        ("loses", {"lost": 2}),
        ("repeats", {"duplicated": 2}),
        ("reorders", {"reordered": 2}),
    ],
)
def test_the_bench_sees_damage_at_each_end(kind, expected, tampered):
    seen = tampered(kind, native.Run(400, 400, stalls=0.3, patience_cycles=30_000))
    assert damage(seen) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["leaks", "wavers"])
def test_the_bench_sees_a_breach_of_the_protocol(kind, tampered):
    seen = tampered(kind, native.Run(400, 400, stalls=0.3))
    assert damage(seen).keys() == {"protocol_errors"}


@pytest.mark.slow
def test_a_link_that_hangs_gives_its_counts(tampered):
    seen = tampered("hangs", native.Run(400, 400, patience_cycles=30_000))
    assert 20 <= seen["delivered"] == 800 - seen["lost"] < seen["accepted"] <= 800
    assert seen["cycles"] < 200_000
    assert tampered("hangs", native.Run(400, 400, bound_cycles=77))["cycles"] == 77


@pytest.mark.slow
def test_the_program_is_built_once_and_its_runs_repeat(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = flow.build(NARROW, tmp_path)
    monkeypatch.setattr(flow, "_made", lambda *_: pytest.fail("built again"))
    again = flow.build(NARROW, tmp_path)
    assert first == again
    one, same, other = (flow.run(again, native.Run(200, 100, seed=seed, **STORM)) for seed in (3, 3, 4))
    del one["cycles_per_s"], same["cycles_per_s"], other["cycles_per_s"]
    assert one == same != other


@pytest.mark.slow
@pytest.mark.parametrize("delay_cycles", [0, 10])
def test_a_saturated_line_carries_a_full_flit_in_every_slot(delay_cycles, tmp_path):
    job = native.Run(1 << 40, 1 << 40, saturated=True, delay_cycles=delay_cycles, warm_up_flits=1_000, window_flits=50_000)
    seen = flow.run(flow.build(BEAT_IS_FLIT, tmp_path), job)
    assert 50_000 * BEAT_IS_FLIT.payload_bytes <= seen["window_payload_bytes"]
    assert seen["window_payload_bytes"] / BEAT_IS_FLIT.payload_bytes / seen["window_slots"] > 0.995
    assert damage({**seen, "lost": 0}) == {}


@pytest.mark.slow
def test_the_command_counts_the_faults_and_writes_waves(tmp_path, capsys):
    spec = dataclasses.replace(PROTOTYPE, chiplet=NARROW)
    faults = {"bursts": 1e-3, "drops": 1e-2, "duplicates": 1e-2, "stalls": 0.2}
    sim.main("link", "verilator", spec, tmp_path / "waves.vcd", 1e-5, 101, 1, True, **faults)
    seen = json.loads(capsys.readouterr().out)
    assert (seen["packets"], seen["delivered"], damage(seen)) == (101, 101, {})
    assert all(seen[name] > 0 for name in (*FAULTS, "replays", "crc_errors", "cycles"))
    with (tmp_path / "waves.vcd").open() as waves:
        text = waves.read(1 << 20)
    assert "$scope module a $end" in text
    assert "$scope module b $end" in text


@pytest.mark.slow
def test_the_command_fails_on_a_line_that_destroys_all(capsys):
    spec = dataclasses.replace(PROTOTYPE, chiplet=NARROW)
    with pytest.raises(RunError, match=r"^the link did not deliver 10 packets once, in order and unchanged$"):
        sim.main("link", "verilator", spec, None, 0.4, 10, 1, True)
    assert json.loads(capsys.readouterr().out)["lost"] == 10
