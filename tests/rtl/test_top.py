"""What the registers of a link tell of it: its line leads back to itself, and inverts what a test likes."""

from functools import partial

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.register_map import EVENTS, REGISTERS
from lightfabric.rtl.top import AxiLink

SPEC = ChipletSpec(ports=1, wavelengths_per_port=2, flit_bytes=64, buffer_flits=8, reach_m=1.0)
OFFSETS = {register.name: 4 * number for number, register in enumerate(REGISTERS)}


class Looped:
    """The link, of whose line the bits of ``flips`` are inverted."""

    def __init__(self):
        self.module = m = Module()
        m.submodules.link = self.link = link = AxiLink(SPEC)
        self.flips = Signal(len(link.rx_data))
        m.d.comb += [link.rx_data.eq(link.tx_data ^ self.flips), link.rx_valid.eq(link.tx_valid)]

    def run(self, script):
        simulator = Simulator(self.module)
        simulator.add_clock(1e-9)
        simulator.add_testbench(partial(script, end=self))
        simulator.run()

    async def read(self, ctx, name):
        link = self.link
        ctx.set(link.s_axil_araddr, OFFSETS[name])
        ctx.set(link.s_axil_arvalid, 1)
        ctx.set(link.s_axil_rready, 1)
        await ctx.tick()
        ctx.set(link.s_axil_arvalid, 0)
        while not ctx.get(link.s_axil_rvalid):
            await ctx.tick()
        value = ctx.get(link.s_axil_rdata)
        await ctx.tick()
        return value

    async def field(self, ctx, register, name):
        (place,) = [(low, f.mask) for low, f in REGISTERS[OFFSETS[register] // 4].placed if f.name == name]
        return await self.read(ctx, register) >> place[0] & place[1]

    async def events(self, ctx):
        word = await self.read(ctx, "interrupt_status")
        return {name for number, (name, _) in enumerate(EVENTS) if word >> number & 1}

    async def until(self, ctx, up, bound):
        for _ in range(bound):
            if await self.field(ctx, "status", "up") == up:
                return
            await ctx.tick()
        pytest.fail("the link did not change in time")


def test_the_registers_tell_that_a_link_is_up_and_got_wrong_frames():
    async def script(ctx, end):
        assert await end.field(ctx, "status", "up") == 0
        assert await end.events(ctx) == set()
        await end.until(ctx, 1, 300)
        assert await end.events(ctx) == {"went_up"}
        await ctx.tick().repeat(40)
        ctx.set(end.flips, 1 << 20)
        await ctx.tick().repeat(3)
        ctx.set(end.flips, 0)
        await ctx.tick().repeat(60)
        assert 0 < await end.read(ctx, "crc_errors") < 6
        assert await end.read(ctx, "retrainings") == await end.read(ctx, "replays") == 0
        assert await end.events(ctx) == {"went_up", "crc_failed"}
        assert [await end.read(ctx, name) for name in ("credit_leaks", "credit_violations")] == [0, 0]

    Looped().run(script)
