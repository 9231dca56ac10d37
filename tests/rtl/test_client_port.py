# amaranth: UnusedElaboratable=no
"""Client ports: the streams of one client do not wait for each other, if there is one for each virtual channel."""

import random
from dataclasses import replace

import pytest
from amaranth import Module
from amaranth.lib import wiring

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client_port import ClientPort, streams_of
from lightfabric.sim.bench.bench import Bench, BenchTimeoutError, Driver, Monitor
from lightfabric.sim.bench.client import StreamSink, StreamSource, never, words
from lightfabric.sim.bench.packet import Packet, Tally, assembled

ADDRESS = 5
ONE = ChipletSpec(
    ports=1,
    wavelengths_per_port=1,
    wavelength_gbps=10.0,
    core_clock_mhz=156.25,
    flit_bytes=64,
    virtual_channels=3,
    buffer_flits=4,
)
MANY = replace(ONE, channel_streams=True)


class PortBench:
    """The port alone, its channels in the hands of the test, or led back to it."""

    def __init__(self, spec: ChipletSpec, *, looped: bool = True):
        self.spec, m = spec, Module()
        m.submodules.port = self.port = port = ClientPort(spec, ADDRESS)
        if looped:
            wiring.connect(m, port.sent, port.received)
        self._bench = Bench(m)

    def exchange(self, packets, *, source_pauses=never, sink_pauses=lambda _: never, stop=None, bound_cycles=5000):
        """Send the packets, each on the stream of its virtual channel, until all or ``stop`` have come."""
        count = streams_of(self.spec)
        of_stream = [[p for p in packets if count == 1 or p.virtual_channel == n] for n in range(count)]
        offered = [words(self.spec, [f for p in mine for f in p.flits(self.spec)]) for mine in of_stream]
        self.sources = [StreamSource(self.spec, self.port.i[n], offered[n], source_pauses) for n in range(count)]
        self.sinks = [StreamSink(self.spec, self.port.o[n], sink_pauses(n)) for n in range(count)]
        wanted = len(packets) if stop is None else stop
        done = lambda _: sum(sink.packets for sink in self.sinks) >= wanted  # noqa: E731
        self._bench.run([*self.sources, *self.sinks], done, bound_cycles)
        assert not any(sink.changed for sink in self.sinks)
        return [assembled(word for _, word in sink.received) for sink in self.sinks]


def some_packets(count: int, seed: int) -> list[Packet]:
    rng = random.Random(seed)
    contents = [n.to_bytes(4, "little") + rng.randbytes(rng.randrange(170)) for n in range(count)]
    return [Packet(content, ADDRESS, ADDRESS, rng.randrange(3)) for content in contents]


@pytest.fixture(scope="module")
def many():
    return PortBench(MANY)


@pytest.mark.parametrize("odds", [0.0, 0.5])
@pytest.mark.parametrize("spec", [ONE, MANY], ids=["one stream", "a stream per channel"])
def test_packets_pass_unchanged_and_in_order_on_the_stream_of_their_channel(spec, odds):
    packets, rng = some_packets(40, 3), random.Random(4)
    pauses = lambda _: rng.random() < odds  # noqa: E731
    arrived = PortBench(spec).exchange(packets, source_pauses=pauses, sink_pauses=lambda _: pauses)
    assert Tally.of(packets, [p for of_stream in arrived for p in of_stream]).clean
    if spec.channel_streams:
        assert [{p.virtual_channel for p in of_stream} for of_stream in arrived] == [{0}, {1}, {2}]


def test_a_client_that_takes_nothing_of_one_channel_gets_all_of_the_others(many):
    packets = some_packets(60, 5)
    others = [p for p in packets if p.virtual_channel]
    arrived = many.exchange(packets, sink_pauses=lambda n: lambda _: n == 0, stop=len(others))
    assert arrived[0] == []
    assert Tally.of(others, [*arrived[1], *arrived[2]]).clean


def test_with_one_stream_a_word_that_is_not_taken_stops_all_channels():
    """What the streams are for: a client that waits for channel 1 before it takes more of channel 0 waits for ever."""
    bench = PortBench(ONE)

    def takes_no_zero(_):
        # The word at hand is of channel 0, as that of a request whose client is busy until an answer comes.
        return bool(bench.sinks[0].received)

    packets = [Packet(bytes(200), ADDRESS, ADDRESS, 0), Packet(b"answer", ADDRESS, ADDRESS, 1)]
    with pytest.raises(BenchTimeoutError):
        bench.exchange(packets, sink_pauses=lambda _: takes_no_zero, bound_cycles=500)
    assert len(bench.sinks[0].received) == 1


def test_a_channel_without_credits_keeps_no_other_waiting():
    """No flit of channel 0 is ever credited: its stream stops, the others go on, each in its turn."""
    bench = PortBench(MANY, looped=False)
    port, packets = bench.port, [Packet(bytes([v]) * 60, ADDRESS, 1, v) for _ in range(12) for v in range(3)]
    sources = [
        StreamSource(MANY, port.i[v], words(MANY, [f for p in packets if p.virtual_channel == v for f in p.flits(MANY)]))
        for v in range(3)
    ]
    never_cycle = 1 << 40
    seen = Monitor(MANY, port.sent, lambda n, cycle: never_cycle if seen.received[n][1].virtual_channel == 0 else cycle + 1)
    done = lambda _: sum(f.last and f.virtual_channel > 0 for _, f in seen.received) == 24  # noqa: E731
    bench._bench.run([*sources, seen], done, 2000)
    per_channel = [[f for _, f in seen.received if f.virtual_channel == v] for v in range(3)]
    assert len(per_channel[0]) == MANY.buffer_flits
    for v in (1, 2):
        assert per_channel[v] == [f for p in packets if p.virtual_channel == v for f in p.flits(MANY)]


def test_what_comes_for_a_channel_goes_to_its_stream_and_its_credits_come_back():
    bench = PortBench(MANY, looped=False)
    packets = [Packet(bytes([n]) * (n + 1), 9, ADDRESS, n % 3) for n in range(90)]
    driver = Driver(MANY, bench.port.received, [(0, f) for p in packets for f in p.flits(MANY)])
    sinks = [StreamSink(MANY, stream) for stream in bench.port.o]
    bench._bench.run([driver, *sinks], lambda _: sum(sink.packets for sink in sinks) == 90, 3000)
    for v, sink in enumerate(sinks):
        assert assembled(word for _, word in sink.received) == [p for p in packets if p.virtual_channel == v]


@pytest.mark.parametrize(("spec", "more_cycles"), [(ONE, 0), (MANY, 2)])
def test_the_merge_takes_two_cycles_and_one_stream_none(spec, more_cycles):
    bench = PortBench(spec)
    bench.exchange([Packet(b"short", ADDRESS, ADDRESS, 0)])
    # A flit in the cycle after its word, a word 4 cycles after its flit.
    assert bench.sinks[0].received[0][0] - bench.sources[0].sent[0][0] == 5 + more_cycles
