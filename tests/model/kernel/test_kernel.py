import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcd.reader import TokenKind, tokenize

from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel import channel
from lightfabric.model.kernel.block import Block, Input, Memory, Module, Output, connect
from lightfabric.model.kernel.channel import (
    NEVER,
    NO_FLIT,
    Channels,
    Fifo,
    Signal,
    forward,
    free_space,
    peek,
    read,
    wake_at,
    write,
)
from lightfabric.model.kernel.compiled import PAGE, Records, compiled, from_, look_up
from lightfabric.model.kernel.elaboration import lay_out_pages
from lightfabric.model.kernel.system import DeadlockError, System
from lightfabric.model.kernel.waveform import Trace

ROOT = Path(__file__).parents[3]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _documented_example(folder: Path) -> ModuleType:
    """Runs the code on the page."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "kernel.md").read_text(), re.DOTALL)
    path = folder / "merge_example.py"
    path.write_text(block)
    return _load(path)


naive = _load(ROOT / "tests" / "model" / "kernel" / "naive_kernel.py")


@compiled
def _step_hop(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:  # noqa: ARG001
    i, o = ports
    for index in awake:
        if peek(now, channels, i[index]) != NO_FLIT and free_space(now, channels, o[index]) > 0:
            forward(now, channels, i[index], o[index])


class Hop(Block, step=_step_hop):
    i = Input(Fifo)
    o = Output(Fifo)


@compiled
def _step_increment(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:  # noqa: ARG001
    i, o = ports
    for index in awake:
        write(now, channels, o[index], read(now, channels, i[index]) + 1)


class Increment(Block, step=_step_increment):
    i = Input(Signal)
    o = Output(Signal)


@compiled
def _step_listener(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    cycles, values = memory
    (i,) = ports
    for index in awake:
        me = state[index]
        if me.wake_every_cycles:
            wake_at(now, channels, me.block, now + me.wake_every_cycles)
        if me.heard < me.cycles_count:
            cycles[me.cycles_start + me.heard] = now
            values[me.values_start + me.heard] = read(now, channels, i[index])
            me.heard += 1


class Listener(Block, step=_step_listener, state={"heard": "i8", "wake_every_cycles": "i8"}):
    i = Input(Signal)
    cycles = Memory("i8")
    values = Memory("i8")

    def __init__(self, wake_every_cycles: int = 0, **clock: int) -> None:
        memory = {"cycles": np.zeros(64), "values": np.zeros(64)}
        super().__init__(memory=memory, state={"wake_every_cycles": wake_every_cycles}, **clock)

    def heard(self) -> list[tuple[int, int]]:
        n = int(self.state.heard)
        return list(zip(self.cycles[:n].tolist(), self.values[:n].tolist(), strict=True))


def _seen(sink: Sink) -> list[tuple[int, int]]:
    return list(zip(sink.records["cycle"].tolist(), sink.records["packet"].tolist(), strict=True))


def _source(cycles: Sequence[int], **clock: int) -> Source:
    return Source(cycles, flits(len(cycles), packet=range(len(cycles))), **clock)


def _chain(
    fifos: Sequence[Fifo], cycles: Sequence[int], pauses: Sequence[bool] = (), order: Sequence[int] = ()
) -> tuple[System, Sink]:
    """A source, hops and a sink, added to the hierarchy in the given order."""
    source, sink = _source(cycles), Sink(pauses)
    hops = [Hop() for _ in fifos[1:]]
    for output, input_, fifo in zip([source.o, *(h.o for h in hops)], [*(h.i for h in hops), sink.i], fifos, strict=True):
        connect(output, input_, fifo)
    blocks = [("source", source), *((f"hop[{n}]", hop) for n, hop in enumerate(hops)), ("sink", sink)]
    top = Module()
    for position in order or range(len(blocks)):
        top.add(*blocks[position])
    return System(top), sink


@pytest.mark.parametrize(
    ("depth", "latency", "credit"), [(1, 1, 1), (2, 1, 1), (3, 2, 2), (5, 7, 3), (10, 7, 3), (12, 7, 3)]
)
def test_a_fifo_carries_its_depth_per_round_trip(depth: int, latency: int, credit: int) -> None:
    loop, count = latency + credit, 60
    system, sink = _chain([Fifo(depth, latency, credit)], [0] * count)
    system.run_to_idle(10_000)
    closed_form = [(k // depth) * loop + k % depth if depth < loop else k for k in range(count)]
    assert _seen(sink) == [(cycle + latency, k) for k, cycle in enumerate(closed_form)]
    assert sink.records["injected_cycle"].tolist() == closed_form
    first, last = closed_form[0], closed_form[count // depth * depth - depth]
    assert Fraction(count // depth * depth - depth, last - first) == min(Fraction(1), Fraction(depth, loop))


delays = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 6), delays, delays), min_size=1, max_size=4),
    cycles=st.lists(st.integers(0, 300), max_size=25).map(sorted),
    pauses=st.lists(st.booleans(), max_size=5).filter(lambda p: not p or not all(p)),
    data=st.data(),
)
def test_a_chain_is_its_naive_twin_in_any_order_of_construction(
    shapes: list[tuple[int, int, int]], cycles: list[int], pauses: list[bool], data: Any
) -> None:
    order = data.draw(st.permutations(range(len(shapes) + 1)))
    system, sink = _chain([Fifo(*shape) for shape in shapes], cycles, pauses, order)
    system.run_to_idle(5000)
    assert _seen(sink) == naive.run_chain([naive.NaiveFifo(*shape) for shape in shapes], cycles, pauses, 5000)
    same_system, _ = _chain([Fifo(*shape) for shape in shapes], cycles, pauses)
    assert same_system.run_to_idle(5000) == system.statistics


@given(order=st.permutations(range(4)))
@settings(max_examples=24, deadline=None)
def test_a_signal_is_read_the_cycle_after_it_was_written_in_any_order(order: list[int]) -> None:
    stages = [Increment() for _ in range(3)]
    listener = Listener()
    wires = [Signal(initial=0) for _ in range(4)]
    for stage, before, after in zip(stages, wires, wires[1:], strict=False):
        stage.i.bind(before)
        stage.o.bind(after)
    listener.i.bind(wires[3])
    top = Module()
    for position in order:
        top.add(f"block[{position}]", [*stages, listener][position])
    system = System(top)
    system.at(10, lambda: system.write(wires[0], 100))
    system.at(20, lambda: system.write(wires[0], 100))
    system.run_to_idle(1000)
    assert listener.heard() == [(0, 0), (1, 1), (2, 2), (3, 3), (14, 103)]
    assert system.read(wires[3]) == 103


def test_every_wrong_binding_is_reported_at_once() -> None:
    top, inner = Module(), Module()
    top.add("inner", inner)
    source, other, sink, hop = _source([]), _source([]), Sink(), Hop()
    for name, block in (("source", source), ("other", other), ("sink", sink), ("hop", hop)):
        inner.add(name, block)
    shared = inner.add("shared", Fifo(2))
    inner.add("unused", Fifo(2))
    source.o.bind(shared)
    other.o.bind(shared)
    sink.i.bind(Signal())
    hop.i.bind(shared)
    hop.i.bind(Fifo(1))
    top.add("again", sink)
    with pytest.raises(ValueError, match="must be") as caught:
        System(top)
    assert str(caught.value).splitlines() == [
        "top.again must be in the hierarchy once, not also as top.inner.sink",
        "top.inner.sink.i must be bound to one Fifo, not to a Signal",
        "top.inner.hop.i must be bound to one Fifo, not to 2 channels",
        "top.inner.hop.o must be bound to one Fifo, not left open",
        "top.inner.shared must have one producer, not 2: top.inner.source.o, top.inner.other.o",
        "top.inner.unused must have one producer, not 0: none",
        "top.inner.unused must have one consumer, not 0: none",
        "? -> top.inner.hop.i must have one producer, not 0: none",
    ]


def test_bad_values_name_their_field() -> None:
    with pytest.raises(ValueError, match=re.escape("Fifo.latency_cycles must be from 1 to 1048576, not 0")):
        Fifo(1, latency_cycles=0)
    with pytest.raises(ValueError, match=re.escape("Sink.phase_cycles must be from 0 to 1, not 2")):
        Sink(period_cycles=2, phase_cycles=2)
    with pytest.raises(ValueError, match=re.escape("Source.cycles must have 2 entries, as offered has, not 1")):
        Source([0], flits(2))
    top = Module()
    top.add("a", Module())
    with pytest.raises(ValueError, match=re.escape("Module.a must be added once, not again")):
        top.add("a", Module())
    system = System(top)
    system.run(10)
    with pytest.raises(ValueError, match=re.escape("System.at.cycle must be at least 10, the next cycle, not 9")):
        system.at(9, lambda: None)


def test_idle_time_is_jumped() -> None:
    cycles = [0, 100, 255, 256, 257, 3_000_000, 40_000_000]
    system, sink = _chain([Fifo(2, 300, 1)], cycles)
    statistics = system.run_to_idle(1 << 40)
    assert _seen(sink) == [(cycle + 300, k) for k, cycle in enumerate([0, 100, 301, 401, 602, 3_000_000, 40_000_000])]
    assert statistics.active_cycles < 30
    assert statistics.active_cycles + statistics.jumped_cycles == system.now == 40_000_301


def test_each_block_keeps_its_own_distant_alarm() -> None:
    top = Module()
    sinks = [top.add(f"sink[{n}]", Sink()) for n in range(3)]
    for n, sink in enumerate(sinks):
        connect(top.add(f"source[{n}]", _source([5000 - 1000 * n, 90_000])).o, sink.i, Fifo(1))
    System(top).run_to_idle()
    assert [sink.records["cycle"].tolist() for sink in sinks] == [[5001, 90_001], [4001, 90_001], [3001, 90_001]]


def test_flits_keep_their_cycles_until_slots_hold_no_more() -> None:
    end_cycle = (1 << 61) - (1 << 20)  # of a bit for one of two flits, and a sign
    system, sink = _chain([Fifo(2)], [end_cycle - 2])
    system.run_to_idle(NEVER)
    assert _seen(sink) == [(end_cycle - 1, 0)]
    system, sink = _chain([Fifo(2)], [5, end_cycle])
    with pytest.raises(OverflowError, match=f"^System must have nothing to do from cycle {end_cycle} on, not in cycle "):
        system.run_to_idle(NEVER)
    assert _seen(sink) == [(6, 0)]


@compiled
def _step_reader(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    (i,) = ports
    table, seen = memory
    for index in awake:
        me = state[index]
        for place in range(me.table_count):
            seen[me.seen_start + place] = look_up((from_(table[0], me.table_start), table[1]), place)
        read(now, channels, i[index])


class Reader(Block, step=_step_reader):
    i = Input(Signal)
    table = Memory("i2", is_paged=True)
    seen = Memory("i2")

    def __init__(self, table: Sequence[int]) -> None:
        super().__init__(memory={"table": table, "seen": np.zeros(len(table))})


def test_paged_memory_reads_as_it_was_given_and_equal_pages_are_kept_once() -> None:
    tables = [[*range(150)], [7], [], [*range(64), *range(64), *range(64)], [*range(1000, 1064)]]
    top = Module()
    readers = [top.add(f"reader[{n}]", Reader(table)) for n, table in enumerate(tables)]
    for reader in readers:
        reader.i.bind(Signal())
    system = System(top)
    system.run(1)
    assert [reader.seen.tolist() for reader in readers] == [reader.table.tolist() for reader in readers] == tables
    _, entries = lay_out_pages("table", [Reader(table) for table in tables])
    assert len(entries) == 5 * PAGE


def test_an_idle_block_is_not_stepped() -> None:
    top = Module()
    source, sink, listener = top.add("source", _source([0] * 1000)), top.add("sink", Sink()), top.add("idle", Listener())
    connect(source.o, sink.i, Fifo(2))
    listener.i.bind(Signal())
    statistics = System(top).run_to_idle()
    assert listener.heard() == [(0, 0)]
    assert statistics.steps == 1 + 1001 + 1001


def test_a_run_stops_before_its_cycle_and_goes_on_from_there() -> None:
    system, sink = _chain([Fifo(2)], [0, 5, 9])
    assert system.run(6) == system.statistics
    assert (system.now, _seen(sink), system.occupancy(system.fifos[0])) == (6, [(1, 0)], 1)
    system.run(1000)
    assert (system.now, _seen(sink)) == (1000, [(1, 0), (6, 1), (10, 2)])


def test_a_deadlock_names_the_blocks_that_hold_flits_up() -> None:
    system, _ = _chain([Fifo(2), Fifo(3)], [0] * 9, pauses=[True])
    with pytest.raises(DeadlockError) as caught:
        system.run_to_idle()
    assert caught.value.waiting == [
        "top.hop[0] (2 in top.source.o -> top.hop[0].i)",
        "top.sink (3 in top.hop[0].o -> top.sink.i)",
    ]
    assert caught.value.ring == []
    assert str(caught.value).startswith("deadlock in cycle 6: flits wait for ")


def test_a_run_to_idle_has_a_bound() -> None:
    top = Module()
    listener = top.add("listener", Listener(wake_every_cycles=1))
    listener.i.bind(Signal())
    with pytest.raises(TimeoutError, match="before cycle 50"):
        System(top).run_to_idle(50)


@pytest.mark.parametrize("wake_every_cycles", [1, 7, 256, 1000])
def test_a_block_is_stepped_at_its_own_edges_and_when_it_asked(wake_every_cycles: int) -> None:
    top = Module()
    listener = top.add("listener", Listener(wake_every_cycles, period_cycles=3, phase_cycles=1))
    listener.i.bind(Signal(initial=-5))
    System(top).run(20_000)
    gap = -(-wake_every_cycles // 3) * 3
    assert listener.heard() == [(cycle, -5) for cycle in range(1, 20_000, gap)][:64]


def test_blocks_of_different_clocks_pass_every_flit_at_their_edges() -> None:
    top = Module()
    source = top.add("source", _source([0] * 5, period_cycles=3, phase_cycles=1))
    sink = top.add("sink", Sink(period_cycles=4, phase_cycles=2))
    connect(source.o, sink.i, Fifo(2, latency_cycles=2, credit_cycles=1))
    System(top).run_to_idle(100)
    assert sink.records["injected_cycle"].tolist() == [1, 4, 7, 13, 16]
    assert sink.records["cycle"].tolist() == [6, 10, 14, 18, 22]


def test_processes_and_callbacks_run_at_their_cycles() -> None:
    seen: list[tuple[int, str]] = []
    system, _ = _chain([Fifo(1)], [])

    def process() -> Any:
        for wait_cycles in (5, 3):
            seen.append((system.now, "process"))
            yield wait_cycles
        seen.append((system.now, "end"))

    system.at(5, lambda: seen.append((system.now, "callback")))
    system.start(process())
    system.run_to_idle(100)
    assert seen == [(0, "process"), (5, "callback"), (5, "process"), (8, "end")]


def test_arrays_of_ports_may_differ_in_width(tmp_path: Path) -> None:
    merge_of = _documented_example(tmp_path).Merge
    top = Module()
    merges = [top.add(f"merge[{width}]", merge_of(width)) for width in (3, 1, 2)]
    sink = top.add("sink", Sink())
    connect(merges[0].o, merges[1].i[0], Fifo(2))
    connect(merges[1].o, merges[2].i[1], Fifo(2))
    connect(merges[2].o, sink.i, Fifo(2))
    for n, port in enumerate([*merges[0].i, merges[2].i[0]]):
        connect(top.add(f"source[{n}]", Source([0] * 4, flits(4, source=n))).o, port, Fifo(2))
    System(top).run_to_idle(100)
    assert np.bincount(sink.records["source"]).tolist() == [4, 4, 4, 4]


def test_a_sink_says_when_it_recorded_too_little() -> None:
    top = Module()
    source, sink = top.add("source", _source([0] * 5)), top.add("sink", Sink(capacity_flits=3))
    connect(source.o, sink.i, Fifo(2))
    System(top).run_to_idle(100)
    with pytest.raises(ValueError, match=re.escape("Sink.capacity_flits must be at least 5, not 3")):
        _ = sink.records


def test_the_line_trace_shows_each_cycle() -> None:
    system, _ = _chain([Fifo(1)], [0, 0])
    lines: list[str] = []
    stop = system.observe(lambda _: lines.append(system.line_trace()))
    system.run(3)
    stop()
    system.run_to_idle(10)
    assert lines == [
        "     0: top.source 1 | top.sink 0",
        "     1: top.source 1 | top.sink 1",
        "     2: top.source 2 | top.sink 1",
    ]


def _changes(text: str) -> dict[str, list[tuple[int, int]]]:
    names: dict[str, str] = {}
    changes: dict[str, list[tuple[int, int]]] = {}
    time_ps = 0
    for token in tokenize(io.BytesIO(text.encode())):
        if token.kind is TokenKind.VAR:
            names[token.var.id_code] = token.var.reference
        elif token.kind is TokenKind.CHANGE_TIME:
            time_ps = token.time_change
        elif token.kind is TokenKind.CHANGE_VECTOR:
            changes.setdefault(names[token.vector_change.id_code], []).append((time_ps, token.vector_change.value))
    return changes


def test_a_vcd_shows_occupancy_and_signals_at_their_cycles() -> None:
    top = Module()
    source, sink, stage = top.add("source", _source([0, 1, 2])), top.add("sink", Sink()), top.add("stage", Increment())
    fifo = top.add("fifo", connect(source.o, sink.i, Fifo(4, latency_cycles=2)))
    before, after = top.add("before", Signal()), top.add("after", Signal())
    stage.i.bind(before)
    stage.o.bind(after)
    system, file = System(top), io.StringIO()
    system.at(7, lambda: system.write(before, -3))
    with Trace(system, file, [fifo, before, after], cycle_ps=2000):
        system.run(20)
    changes = _changes(file.getvalue())
    assert changes["fifo"] == [(0, 1), (2000, 2), (6000, 1), (8000, 0)]
    assert changes["before"] == [(0, 0), (16000, 2**64 - 3)]
    assert changes["after"] == [(0, 0), (2000, 1), (18000, 2**64 - 2)]


def scenario() -> str:
    """What a run of everything gives, as text."""
    system, sink = _chain([Fifo(3, 2, 4), Fifo(1, 5, 1), Fifo(6, 1, 1)], [0, 0, 3, 3, 40, 2000, 2001], [True, False, True])
    return f"{system.run_to_idle(5000)} {_seen(sink)}"


def test_the_same_code_runs_without_the_compiler() -> None:
    command = [sys.executable, "-W", "error", __file__]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == scenario()


@pytest.mark.skipif(bool(os.environ.get("NUMBA_DISABLE_JIT")), reason="nothing is compiled")
def test_compiled_code_of_a_block_is_stale_when_the_kernel_has_changed() -> None:
    for function in (_step_hop, channel.push):
        stamp = function._cache._cache_file._source_stamp  # type: ignore[attr-defined]
        assert dict(stamp[1])["kernel/channel.py"] == Path(channel.__file__).stat().st_mtime_ns


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    assert _documented_example(tmp_path).sink.state.taken == 6


if __name__ == "__main__":
    print(scenario())
