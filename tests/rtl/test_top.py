"""What the registers of a link or chiplet tell of it: its lines lead back to itself, and invert what a test likes."""

from functools import partial

import pytest
from amaranth import ClockSignal, Module, Signal
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.bus_decoder import DECERR
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, EVENTS, REGISTERS, chiplet_registers
from lightfabric.rtl.top import AxiChiplet, AxiLink

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


CHIPLET = ChipletSpec(ports=2, wavelengths_per_port=1, flit_bytes=64, buffer_flits=8, reach_m=1.0, stall_cycles=100)
CHIPLET_OFFSETS = {register.name: 4 * number for number, register in enumerate(chiplet_registers(2))}
PAGE = 1 << BUS_ADDRESS_BITS
OWN_PAGE = 2


class LoopedChiplet:
    """The chiplet, the lines of which lead back to it, with its clients on its own clock."""

    def __init__(self):
        self.module = m = Module()
        m.submodules.chiplet = self.top = top = AxiChiplet(CHIPLET)
        for port in range(CHIPLET.ports):
            m.d.comb += [
                getattr(top, f"rx{port}_data").eq(getattr(top, f"tx{port}_data")),
                getattr(top, f"rx{port}_valid").eq(getattr(top, f"tx{port}_valid")),
                getattr(top, f"client{port}_clk").eq(ClockSignal()),
                getattr(top, f"m{port}_axis_tready").eq(1),
            ]

    run = Looped.run

    async def read(self, ctx, page, name):
        offsets = CHIPLET_OFFSETS if page == OWN_PAGE else OFFSETS
        ctx.set(self.top.s_axil_araddr, page * PAGE + offsets[name])
        ctx.set(self.top.s_axil_arvalid, 1)
        ctx.set(self.top.s_axil_rready, 1)
        await ctx.tick()
        ctx.set(self.top.s_axil_arvalid, 0)
        while not ctx.get(self.top.s_axil_rvalid):
            await ctx.tick()
        self.response, value = ctx.get(self.top.s_axil_rresp), ctx.get(self.top.s_axil_rdata)
        await ctx.tick()
        return value

    async def write(self, ctx, page, name, value):
        for signal, driven in (("awaddr", page * PAGE + OFFSETS[name]), ("wdata", value), ("wstrb", 15), ("bready", 1)):
            ctx.set(getattr(self.top, f"s_axil_{signal}"), driven)
        for valid in (1, 0):
            ctx.set(self.top.s_axil_awvalid, valid)
            ctx.set(self.top.s_axil_wvalid, valid)
            await ctx.tick()
        while not ctx.get(self.top.s_axil_bvalid):
            await ctx.tick()
        await ctx.tick()

    async def send(self, ctx, port, destination, *, last=1):
        for name, value in (("tvalid", 1), ("tdata", 7), ("tkeep", 255), ("tlast", last), ("tdest", destination)):
            ctx.set(getattr(self.top, f"s{port}_axis_{name}"), value)
        while not ctx.get(getattr(self.top, f"s{port}_axis_tready")):
            await ctx.tick()
        await ctx.tick()
        ctx.set(getattr(self.top, f"s{port}_axis_tvalid"), 0)


def test_one_bus_has_the_registers_of_all_ports_and_of_the_chiplet():
    async def script(ctx, end):
        assert [await end.read(ctx, page, "id") for page in (0, 1, OWN_PAGE)] == [0x4C46_0001, 0x4C46_0001, 0x4C43_0001]
        assert await end.read(ctx, OWN_PAGE, "ports") == CHIPLET.ports
        assert (await end.read(ctx, 3, "id"), end.response) == (0, DECERR)
        await end.write(ctx, 0, "control", 0)
        await end.write(ctx, 1, "interrupt_enable", 1)
        for _ in range(100):
            if ctx.get(end.top.irq):
                break
            await ctx.tick().repeat(20)
        assert ctx.get(end.top.irq) == 1
        assert await end.read(ctx, OWN_PAGE, "interrupt_ports") == 0b10
        assert [await end.read(ctx, page, "status") >> 4 & 1 for page in (0, 1)] == [0, 1]
        await end.write(ctx, 1, "interrupt_status", 1)
        assert ctx.get(end.top.irq) == 0
        await end.write(ctx, 1, "control", 0b11)
        await ctx.tick().repeat(40)
        while not await end.read(ctx, 1, "status") >> 4 & 1:
            await ctx.tick().repeat(20)
        assert [await end.read(ctx, page, "retrainings") for page in (0, 1)] == [0, 1]

    LoopedChiplet().run(script)


def test_packets_that_are_refused_or_cut_are_counted_at_the_port_of_their_client():
    async def script(ctx, end):
        await end.send(ctx, 0, 1)
        await end.send(ctx, 0, 900)
        await end.send(ctx, 1, 1, last=0)
        await ctx.tick().repeat(CHIPLET.stall_cycles + 60)
        assert [await end.read(ctx, page, "packets_refused") for page in (0, 1)] == [1, 0]
        assert [await end.read(ctx, page, "packets_cut") for page in (0, 1)] == [0, 1]
        flits = [await end.read(ctx, OWN_PAGE, f"flits_to_client_{n}") for n in range(2)]
        assert flits == [0, 2]

    LoopedChiplet().run(script)
