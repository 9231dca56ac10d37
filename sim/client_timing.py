"""The client side built from a spec is measured here, ingress and egress each by itself."""

from itertools import pairwise

from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import ClientTiming
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.client import EgressBench, IngressBench, words
from lightfabric.sim.phase import same


def measure_client(spec: ChipletSpec) -> ClientTiming:
    """Measure the timing of the client side of this spec from packets that fill the buffer and wait for its credits."""
    count = spec.buffer_flits + 2
    packets = [ClientFlit(bytes(spec.payload_bytes))] * count
    offered = words(spec, packets)
    per_packet = len(offered) // count
    # Late enough for the buffer to be full and quiet.
    release_cycle = 2 * len(offered) + 40
    bench = IngressBench(spec, 0)
    stream = bench.run(offered)
    held = bench.run(
        offered,
        credit_cycle=lambda number, cycle: max(cycle + 1, release_cycle + 100 * min(number, 1)),
        bound_cycles=2 * release_cycle + 200,
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
