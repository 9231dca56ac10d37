"""The cocotb benches share foreign AXI4-Stream clients, packets between them, bit errors on the lines."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.capture import Captured, pcapng
from lightfabric.sim.bench.packet import STALL_TIMEOUTS, Packet, Tally, random_packets, stall_cycles
from lightfabric.sim.channel.error import BitErrors

# The words of this module:
# * *dut*: the top module, with streams named by a *prefix*; of two joined ends it begins with a or b
# * *flips*: an input for each line, whose ones invert bits on arrival
# * *frame*: a packet as cocotbext.axi knows it, with its fields in tdest, tid and tuser
# * *quiet*: no packet has arrived; after so many replay timeouts the run is given up

CLOCK_NS = 2
# Clients of a block that gives them a clock of their own run slower than the block.
CLIENT_CLOCK_NS = 3
LOOK_CYCLES = 64

ENVIRONMENT = "LIGHTFABRIC_RUN"


@dataclass(frozen=True)
class Run:
    """Describes what a bench is to do, handed to the simulator's process in an environment variable.

    ``result`` and ``capture`` are files to write; no capture if that is empty.
    """

    spec: ChipletSpec
    result: str
    packets: int = 100
    ber: float = 0.0
    seed: int = 1
    pauses: bool = True
    bound_s: int = 300
    stall_timeouts: int = STALL_TIMEOUTS
    capture: str = ""

    def environment(self) -> dict[str, str]:
        """Return the variable that :meth:`of_environment` reads."""
        return {ENVIRONMENT: json.dumps(asdict(self))}

    @staticmethod
    def of_environment() -> "Run":
        """Return the run that this process was started for."""
        fields = json.loads(os.environ[ENVIRONMENT])
        return Run(**{**fields, "spec": ChipletSpec(**fields["spec"])})


@dataclass(frozen=True)
class Client:
    """Names a client of the design: its address and the prefixes of the streams that it sends on and receives from."""

    address: int
    sends: str
    receives: str


async def exchange(dut, clients: Sequence[Client], flips: Sequence = (), destinations: Sequence[int] = ()) -> None:
    """Send random packets between the clients, pausing at random on both sides, and write what became of them.

    Every client sends to the ``destinations``, by default to all clients but itself. Bits are inverted at ``run.ber`` on
    each of ``flips``. Ends when all packets have arrived or none has for ``run.stall_timeouts``
    replay timeouts; the process is killed after
    ``run.bound_s``, because a simulator that hangs does not come back to Python.
    """
    run = Run.of_environment()
    # The alarm's default action kills the process from outside of Python, which a hanging simulator never enters.
    signal.alarm(run.bound_s)
    rng = np.random.default_rng(run.seed)
    addresses = [client.address for client in clients if client.sends]
    packets = random_packets(run.spec, run.packets, rng, addresses, destinations or addresses)
    sources = {c.address: _port(AxiStreamSource, dut, c.sends) for c in clients if c.sends}
    sinks = {c.address: _port(AxiStreamSink, dut, c.receives) for c in clients if c.receives}
    # Each port has odds and a generator of its own, so that all pairs of a fast and a slow side occur.
    for number, port in enumerate([*sources.values(), *sinks.values()]):
        port.log.setLevel("WARNING")
        if run.pauses:
            port.set_pause_generator(pauses(random.Random(f"{run.seed} {number}"), odds=(0.2, 0.5, 0.8)[number % 3]))
    await reset(dut, flips)
    lines = [cocotb.start_soon(_flip(dut.clk, signal_, BitErrors(run.ber, rng))) for signal_ in flips if run.ber]

    begin_s, begin_ns = time.perf_counter(), cocotb.utils.get_sim_time("ns")
    for packet in packets:
        sources[packet.source].send_nowait(_frame(packet))
    await _arrivals(sinks.values(), len(packets), stall_cycles(run.spec, run.stall_timeouts))
    cycles = round((cocotb.utils.get_sim_time("ns") - begin_ns) / CLOCK_NS)
    seconds = time.perf_counter() - begin_s
    for line in lines:
        line.cancel()
    frames = [(at, sink.recv_nowait()) for at, sink in sinks.items() for _ in range(sink.count())]
    received = [_packet(frame, at) for at, frame in frames]
    if run.capture:
        Path(run.capture).write_bytes(_captured(list(sinks), frames))
    counts = {name: _total(dut, name) for name in ("replays", "crc_errors", "bit_errors")}
    result = {**asdict(Tally.of(packets, received)), **counts, "cycles": cycles, "cycles_per_s": cycles / seconds}
    Path(run.result).write_text(json.dumps(result))


async def reset(dut, flips: Iterable = ()) -> None:
    """Start the clocks, hold all domains in reset for three cycles, and set all ``flips`` to 0."""
    names = [handle._name for handle in dut]
    clients = [name.removesuffix("clk") for name in names if re.fullmatch(r"([ab]_)?client\d*_clk", name)]
    resets = [dut.rst, *(getattr(dut, f"{client}rst") for client in clients)]
    for reset in resets:
        reset.value = 1
    for mask in flips:
        mask.value = 0
    await Timer(CLOCK_NS, unit="ns")  # no clock edge may see what has no value yet
    Clock(dut.clk, CLOCK_NS, unit="ns").start()
    for client in clients:
        Clock(getattr(dut, f"{client}clk"), CLIENT_CLOCK_NS, unit="ns").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    for reset in resets:
        reset.value = 0


def _port(kind: type, dut, prefix: str):
    """Join a source or sink to a stream, on the clock and reset of its client."""
    client = re.sub(r"[sm](\d*)_axis$", r"client\1", prefix)
    return kind(AxiStreamBus.from_prefix(dut, prefix), getattr(dut, f"{client}_clk"), getattr(dut, f"{client}_rst"))


def pauses(rng: random.Random, odds: float) -> Iterator[bool]:
    """Yield for each cycle whether to pause in it, True at the given odds."""
    while True:
        yield rng.random() < odds


async def _flip(clk, flips, errors: BitErrors) -> None:
    """Invert bits from falling edge to falling edge, sleeping from one error to the next."""
    bits = len(flips)
    await FallingEdge(clk)
    while True:
        clean_cycles = 0
        while not (mask := errors(0, bits)):
            clean_cycles += 1
        if clean_cycles:
            flips.value = 0
            await Timer(clean_cycles * CLOCK_NS, unit="ns")
        flips.value = mask
        await Timer(CLOCK_NS, unit="ns")


async def _arrivals(sinks: Iterable[AxiStreamSink], count: int, most_quiet_cycles: int) -> None:
    seen, quiet_cycles = 0, 0
    while seen < count and quiet_cycles < most_quiet_cycles:
        await Timer(LOOK_CYCLES * CLOCK_NS, unit="ns")
        arrived = sum(sink.count() for sink in sinks)
        quiet_cycles = 0 if arrived > seen else quiet_cycles + LOOK_CYCLES
        seen = arrived


def _frame(packet: Packet) -> AxiStreamFrame:
    return AxiStreamFrame(packet.content, tdest=packet.destination, tuser=packet.virtual_channel)


def _packet(frame: AxiStreamFrame, address: int) -> Packet:
    """Make a packet of what a sink saw; with fields that change on the way, or at the wrong client, it is as none sent."""
    return Packet(bytes(frame.tdata), frame.tid, frame.tdest, frame.tuser)


def _captured(addresses: Sequence[int], frames: Iterable[tuple[int, AxiStreamFrame]]) -> bytes:
    """Capture the packets that arrived, each at the time of its last word, at an interface per client."""
    packets = (
        Captured(
            round(cocotb.utils.get_time_from_sim_steps(frame.sim_time_end, "ps")), addresses.index(at), bytes(frame.tdata)
        )
        for at, frame in frames
    )
    return pcapng([f"client {address}" for address in addresses], packets)


def _total(dut, name: str) -> int:
    """Sum a counter over both ends and all lines; the handles also hold inner signals of similar names."""
    counter = re.compile(rf"[ab]_(rx\d*_)?{name}\d*")
    return sum(int(handle.value) for handle in dut if counter.fullmatch(handle._name))
