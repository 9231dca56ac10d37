"""The cocotb bench tries the registers with a foreign AXI4-Lite master that pauses on every channel."""

import json
import random
import signal
from pathlib import Path

import cocotb
from cocotb.triggers import FallingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from lightfabric.rtl.register import input_layout
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, REGISTERS, WORD_BYTES
from lightfabric.sim.cocotb.axi import Run, pauses, reset

# The foreign master makes accesses of parts of words, and of several words, from one of so many bytes.
MAX_BYTES = 9


@cocotb.test()
async def a_master_writes_and_reads_while_inputs_come_and_go(dut):
    """Make random accesses one after the other, and write what became of each, in their order, as JSON."""
    run = Run.of_environment()
    signal.alarm(run.bound_s)
    rng = random.Random(run.seed)
    dut.inputs.value = 0
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
    if run.pauses:
        _pause(master, rng)
    await reset(dut)
    seen = [await _step(dut, master, rng) for _ in range(run.packets)]
    Path(run.result).write_text(json.dumps({"steps": seen}))


async def _step(dut, master: AxiLiteMaster, rng: random.Random) -> dict:
    """Make one access, or show inputs for one cycle, and what came of it."""
    kind, address, size = rng.choice(("read", "write", "inputs")), _address(rng), rng.randint(1, MAX_BYTES)
    if kind == "read":
        answer = await master.read(address, size)
        return {"kind": kind, "address": address, "data": list(answer.data), "response": int(answer.resp)}
    if kind == "write":
        content = rng.randbytes(size)
        answer = await master.write(address, content)
        return {"kind": kind, "address": address, "data": list(content), "response": int(answer.resp)}
    return {"kind": kind, "inputs": await _inputs(dut, rng)}


def _address(rng: random.Random) -> int:
    """Choose an address, mostly in the table, now and then past its end."""
    end = WORD_BYTES * len(REGISTERS)
    return rng.randrange(end) if rng.random() < 0.9 else rng.randrange(end, (1 << BUS_ADDRESS_BITS) - MAX_BYTES)


async def _inputs(dut, rng: random.Random) -> dict[str, int]:
    """Show random inputs for a cycle, then the same with events and steps at 0."""
    layout = input_layout(REGISTERS)
    shown = {name: rng.getrandbits(member.shape) & rng.getrandbits(member.shape) for name, member in layout}
    status = {field.name for register in REGISTERS for field in register.fields if field.kind == "status"}
    await FallingEdge(dut.clk)
    dut.inputs.value = layout.const(shown).as_bits()
    await FallingEdge(dut.clk)
    dut.inputs.value = layout.const({name: shown[name] for name in status}).as_bits()
    for _ in range(2):  # until a sum is shown
        await FallingEdge(dut.clk)
    return shown


def _pause(master: AxiLiteMaster, rng: random.Random) -> None:
    write, read = master.write_if, master.read_if
    for channel in (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel):
        channel.set_pause_generator(pauses(random.Random(rng.random()), rng.choice((0.2, 0.5, 0.8))))
