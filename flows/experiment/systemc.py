"""A ring of switches and links runs on the cycle kernel and in SystemC: the counts must agree, the speeds are compared."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.report import RunError
from lightfabric.flows.tool.executable import printed_json
from lightfabric.model.cycle.switch import Switch
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.channel import Fifo
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import SwitchTiming

MISSING = "SystemC is not installed: apt install libsystemc-dev, or set SYSTEMC_HOME to where it was built"
BUILD_BOUND_S, BOUND_S = 300, 600
CHIPLET = ChipletSpec(ports=2, virtual_channels=1)
# Of the ring's switches, not of the RTL: the bench compares simulators.
TIMING = SwitchTiming(latency_cycles=1, cycles_per_flit=Fraction(1), credit_cycles=1, credit_loop_cycles=1)


@dataclass(frozen=True)
class Ring:
    """Describes ``nodes`` switches with two clients each, and links of ``link_cycles`` for flits and for credits.

    Each client offers flits to others at most ``reach`` nodes away by Bernoulli trials; ``offers[c]`` has a row (cycle,
    destination) for each. Nothing keeps a ring that is
    full from a deadlock: the load must be one that it carries.
    """

    nodes: int = 64
    depth_flits: int = 16
    link_cycles: int = 8
    load: float = 0.2
    reach: int = 4
    cycles: int = 10_000
    seed: int = 1

    def offers(self) -> list[NDArray[np.int64]]:
        """Return the traffic, which is the same for the same ring."""
        draw = np.random.default_rng(self.seed)
        return [self._offers_of(client, draw) for client in range(2 * self.nodes)]

    def _offers_of(self, client: int, draw: np.random.Generator) -> NDArray[np.int64]:
        cycles = np.flatnonzero(draw.random(self.cycles) < self.load)
        ahead = draw.integers(1, self.reach, len(cycles), endpoint=True) * draw.choice([-1, 1], len(cycles))
        node = (client // 2 + ahead) % self.nodes
        return np.stack([cycles, 2 * node + draw.integers(0, 2, len(cycles))], axis=1)


def ours(ring: Ring) -> dict[str, Any]:
    """Return the counts of the ring on the cycle kernel, and the seconds of the processor for the cycles alone."""
    system, switches, sinks = _system(ring)
    begin_s = time.process_time()
    system.run(ring.cycles)
    cpu_s = time.process_time() - begin_s
    pushed = system.channels.fifo["tail"]
    records = [sink.records for sink in sinks]
    return {
        "delivered": sum(map(len, records)),
        "hops": int(sum(pushed[port.bound[0].index] for switch in switches for port in switch.o)),
        "arrival_cycles": sum(int(seen["cycle"].sum()) for seen in records),
        "check": sum(_check(client, seen) for client, seen in enumerate(records)) % (1 << 64),
        "cpu_s": cpu_s,
    }


def _check(client: int, seen: Any) -> int:
    return int(((seen["cycle"] + 1) * (client + 1) * (seen["packet"] + 1)).sum())


def _system(ring: Ring) -> tuple[System, list[Switch], list[Sink]]:
    top, offers = Module(), ring.offers()
    switches = [top.add(f"node[{n}]", Switch(CHIPLET, TIMING, _routes(ring, n))) for n in range(ring.nodes)]
    arrivals = np.bincount(np.concatenate(offers)[:, 1], minlength=len(offers))
    sinks = list[Sink]()
    for client, offered in enumerate(offers):
        node, port = switches[client // 2], client % 2
        sent = flits(len(offered), destination=offered[:, 1], packet=np.arange(len(offered)), last=True)
        source = top.add(f"source[{client}]", Source(offered[:, 0], sent))
        sinks.append(top.add(f"sink[{client}]", Sink(capacity_flits=int(arrivals[client]))))
        connect(source.o, node.i[port], Fifo(ring.depth_flits))
        connect(node.o[port], sinks[-1].i, Fifo(ring.depth_flits))
    for n, switch in enumerate(switches):
        for port, other in ((2, n + 1), (3, n - 1)):
            # Port 2 leads forward and 3 back: what leaves by one arrives at the other of the neighbour.
            there = switches[other % ring.nodes].i[5 - port]
            connect(switch.o[port], there, Fifo(ring.depth_flits, ring.link_cycles, ring.link_cycles))
    return System(top), switches, sinks


def _routes(ring: Ring, node: int) -> tuple[int, ...]:
    """Return the output of a switch for each client: itself, or the shorter way round."""
    ahead = (np.arange(2 * ring.nodes) // 2 - node) % ring.nodes
    output = np.where(ahead == 0, np.arange(2 * ring.nodes) % 2, np.where(2 * ahead <= ring.nodes, 2, 3))
    return tuple(output.tolist())


def theirs(ring: Ring, program: Path) -> dict[str, Any]:
    """Return the same of the twin in SystemC, and its ``version``; the traffic is left beside the program."""
    traffic = program.with_name("traffic.txt")
    traffic.write_text("\n".join(_lines(ring)) + "\n", encoding="utf-8")
    return printed_json("the ring in SystemC", [program, traffic, str(ring.cycles)], BOUND_S)


def _lines(ring: Ring) -> list[str]:
    lines = [f"{ring.nodes} {ring.depth_flits} {ring.link_cycles}"]
    for offered in ring.offers():
        lines += [str(len(offered)), *(f"{cycle} {destination}" for cycle, destination in offered.tolist())]
    return lines


def build(folder: Path) -> Path | None:
    """Build the twin in SystemC in an existing folder; None where SystemC is missing."""
    source, program = folder / "ring.cpp", folder / "ring"
    source.write_text(
        files("lightfabric.flows.experiment").joinpath("ring.cpp").read_text(encoding="utf-8"), encoding="utf-8"
    )
    home = os.environ.get("SYSTEMC_HOME")
    where = [f"-I{home}/include", f"-L{home}/lib", f"-L{home}/lib-linux64", f"-Wl,-rpath,{home}/lib:{home}/lib-linux64"]
    command = ["g++", "-O3", "-std=c++17", *(where if home else []), "-o", program, source, "-lsystemc"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_BOUND_S, check=False)
    except FileNotFoundError:
        raise RunError("g++ is not installed: apt install g++") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"g++ did not build the ring in SystemC within {BUILD_BOUND_S} s") from None
    if done.returncode == 0:
        return program
    if "systemc: No such file" in done.stderr or "-lsystemc" in done.stderr:
        return None
    raise RunError(f"g++ did not build the ring in SystemC: {done.stderr.strip().splitlines()[0]}")


def compare(rings: Sequence[Ring]) -> dict[str, Any]:
    """Return for each ring both rates, in flits through switches per CPU-second, and their ratio; or what is missing.

    RunError if the counts are not the same.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        if program is None:
            return {"systemc": None, "systemc_missing": MISSING}
        # The first run compiles the kernels.
        ours(Ring(nodes=4, cycles=20))  # compiles
        return {"systemc": [_compared(ring, program) for ring in rings]}


def _compared(ring: Ring, program: Path) -> dict[str, Any]:
    reference, mine = (
        min((run() for _ in range(3)), key=lambda counts: counts["cpu_s"])
        for run in (lambda: theirs(ring, program), lambda: ours(ring))
    )
    # A faster simulator that does something else would be no comparison.
    for name in ("delivered", "hops", "arrival_cycles", "check"):
        if mine[name] != reference[name]:
            raise RunError(f"{name} must be the same in SystemC, {reference[name]}, not {mine[name]}")
    rate, their_rate = (run["hops"] / max(run["cpu_s"], 1e-9) for run in (mine, reference))
    counts = {name: mine[name] for name in ("delivered", "hops")}
    return {
        "version": reference["version"], "load": ring.load, **counts,
        "rate": rate, "systemc_rate": their_rate, "ratio": rate / their_rate,
    }  # fmt: skip
