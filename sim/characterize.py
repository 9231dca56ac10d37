"""The RTL built from a spec is measured here, for the ``Timing`` that the models run on."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from fractions import Fraction
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise

from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import ClientTiming, SwitchTiming, Timing
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.client import EgressBench, IngressBench, words
from lightfabric.sim.bench.switch import SwitchBench
from lightfabric.sim.link_timing import measure_link, same, submitter

MEASURED_BY = (
    "rtl",
    "sim/bench/bench.py",
    "sim/bench/simulator.py",
    "sim/bench/link.py",
    "sim/bench/switch.py",
    "sim/bench/client.py",
    "sim/characterize.py",
    "sim/link_timing.py",
    "model/codec.py",
)


def rtl_hash() -> str:
    """Hash the hardware's sources, what measures it and the simulator's version into 16 hexadecimal digits."""
    digest = hashlib.sha256(version("amaranth").encode())
    for name in MEASURED_BY:
        folder, _, file = name.rpartition("/")
        package = files(f"lightfabric.{folder or file}".replace("/", "."))
        sources = [package / file] if folder else sorted(package.iterdir(), key=lambda entry: entry.name)
        for source in sources:
            if source.name.endswith(".py"):
                digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def characterize(
    spec: ChipletSpec, progress: Callable[[str], None] = lambda _: None, workers: Executor | None = None
) -> Timing:
    """Simulate link, switch and client side of this spec and return their timing. Takes seconds to a minute by its width.

    ``workers`` may take over what does not wait for the rest.
    """
    submit = submitter(workers)
    switch, client = (submit(measure, spec) for measure in (measure_switch, measure_client))
    progress("link")
    measured_link = measure_link(spec, workers)
    progress("switch")
    measured_switch = switch()
    progress("client")
    by = f"amaranth.sim {version('amaranth')}"
    return Timing(measured_link, measured_switch, client(), spec_hash(spec), rtl_hash(), by)


def measure_switch(spec: ChipletSpec) -> SwitchTiming:
    """Measure the timing of the switch of this spec, from input 0 to output 1 with all other ports quiet."""
    bench, flit, depth = SwitchBench(spec), ClientFlit(b"\1", 1), spec.buffer_flits
    stream = bench.run({0: [(0, flit)] + [(20, flit)] * (depth + 8)})
    release_cycle = 2 * depth + 40
    held = bench.run({0: [(0, flit)] * (depth + 1)}, credit_cycle=lambda number, cycle: release_cycle + 100 * min(number, 1))
    arrivals = [cycle for cycle, _ in stream.received[1]]
    return SwitchTiming(
        latency_cycles=arrivals[0] - stream.sent[0][0][0],
        # The first flit went alone, for the latency: the stream begins with the second and has a gap fewer than flits.
        cycles_per_flit=Fraction(arrivals[-1] - arrivals[1], len(arrivals) - 2),
        # The credit leaves the input's register when the flit has left the queue.
        credit_cycles=stream.credits_back[0][0] - stream.sent[0][0][0],
        credit_loop_cycles=held.received[1][depth][0] - release_cycle,
    )


def measure_client(spec: ChipletSpec) -> ClientTiming:
    """Measure the timing of the client side of this spec from packets that fill the buffer and wait for its credits."""
    count, release_cycle = spec.buffer_flits + 2, 100 * spec.buffer_flits
    packets = [ClientFlit(bytes(spec.payload_bytes))] * count
    offered = words(spec, packets)
    per_packet = len(offered) // count
    bench = IngressBench(spec, 0)
    stream = bench.run(offered)
    held = bench.run(
        offered,
        credit_cycle=lambda number, cycle: max(cycle + 1, release_cycle + 100 * number),
        bound_cycles=release_cycle + 200 * count,
    )
    arrival = EgressBench(spec).run([(0, packets[0])])
    begins = [cycle for cycle, _ in stream.sent[::per_packet]]
    credited = begins[: max(2, spec.buffer_flits)]
    return ClientTiming(
        # From the cycle in which the first word is taken to the one in which the channel's register shows the flit.
        ingress_cycles=stream.received[0][0] - begins[0],
        ingress_cycles_per_flit=same("ingress_cycles_per_flit", (b - a for a, b in pairwise(credited))),
        ingress_credit_cycles=held.sent[spec.buffer_flits * per_packet][0] - release_cycle,
        egress_cycles=arrival.received[-1][0] - arrival.sent[0][0],
    )
