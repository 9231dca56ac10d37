"""The bit error tester of a line sends test patterns in place of the link's blocks, and counts the errors in those received.

It lies between a link and its line. While it is *on*, each lane sends the same sequence, a block later than the lane before
it, and every bit of a block belongs to the sequence, the sync header as well: no block lock is needed, and the bits count as
the line carries them. The *near* loop gives the receiver what this end sends, the *far* loop sends what it receives.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.line import LineSignature
from lightfabric.rtl.prbs import PrbsChecker, PrbsGenerator
from lightfabric.rtl.register import control_layout, input_layout
from lightfabric.rtl.register_map import BER_REGISTERS

ERROR_BITS, BLOCK_COUNT_BITS = 32, 48
"""Counters stay at their highest value; that of the blocks, 66 or 68 bits each, is there after 6 days at 32 Gb/s."""


def saturating_sum(count, step):
    """Adds to a count, which stays at its highest value instead of overflowing."""
    total = count + step
    return Mux(total >> len(count) != 0, (1 << len(count)) - 1, total[: len(count)])


class LaneCounter(wiring.Component):
    """Counts errors and blocks of a lane; what a snapshot took is shown until the next one.

    Members
    -------
    step : In(1), a block was checked
    errors : In, wrong bits of that block
    clear : In(1), begin again with what comes in this cycle
    snapshot : In(1), take what was counted before this cycle; together with ``clear`` nothing is missed or counted twice
    shown_errors : Out(32)
    shown_blocks : Out(48)
    """

    def __init__(self, width: int):
        inputs = {"step": In(1), "errors": In(range(width + 1)), "clear": In(1), "snapshot": In(1)}
        super().__init__({**inputs, "shown_errors": Out(ERROR_BITS), "shown_blocks": Out(BLOCK_COUNT_BITS)})

    def elaborate(self, platform):
        m = Module()
        for shown, step in ((self.shown_errors, self.errors), (self.shown_blocks, self.step)):
            count = Signal.like(shown, name="count")
            m.d.sync += count.eq(saturating_sum(Mux(self.clear, 0, count), step))
            with m.If(self.snapshot):
                m.d.sync += shown.eq(count)
        return m


class BerTester(wiring.Component):
    """Passes a line through, or tests it; both directions pass in the same cycle.

    A pattern is on the line a cycle after the block of the link that it replaces. Every change of the pattern's switches
    begins it anew and drops the locks.

    Members
    -------
    link_tx : In(LineSignature(spec))
    tx : Out(LineSignature(spec))
    rx : In(LineSignature(spec))
    link_rx : Out(LineSignature(spec)), silent while the tester is on
    controls : In, of ``rtl.register_map.BER_REGISTERS``
    status : Out, inputs of the same registers
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "link_tx": In(LineSignature(spec)),
                "tx": Out(LineSignature(spec)),
                "rx": In(LineSignature(spec)),
                "link_rx": Out(LineSignature(spec)),
                "controls": In(control_layout(BER_REGISTERS)),
                "status": Out(input_layout(BER_REGISTERS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        controls = self.controls
        switches = Cat(controls.ber_on, controls.ber_pattern, controls.ber_invert, controls.ber_reverse)
        was, restart, own, received = Signal.like(switches), Signal(), *(LineSignature(self.spec).create() for _ in range(2))
        m.d.sync += was.eq(switches)
        m.d.comb += restart.eq(~controls.ber_on | (switches != was))
        self._send(m, own, restart)
        for i, o, other, loop in (
            (own, self.tx, self.rx, controls.ber_far_loop),
            (self.rx, received, own, controls.ber_near_loop),
        ):
            m.d.comb += o.valid.eq(Mux(loop, other.valid, i.valid))
            for n, block in enumerate(o.blocks):
                m.d.comb += block.eq(Mux(loop, other.blocks[n], i.blocks[n]))
        m.d.comb += self.link_rx.valid.eq(received.valid & ~controls.ber_on)
        m.d.comb += [mine.eq(block) for mine, block in zip(self.link_rx.blocks, received.blocks, strict=True)]
        self._check(m, received, restart)
        return m

    def _configure(self, m, block, restart):
        """Connects the switches of a pattern to what sends or checks it."""
        controls = self.controls
        m.d.comb += [
            block.select.eq(controls.ber_pattern),
            block.invert.eq(controls.ber_invert),
            block.reverse.eq(controls.ber_reverse),
            block.restart.eq(restart),
        ]

    def _send(self, m, own, restart):
        """Chooses what this end sends: the blocks of the link, or patterns with errors where they are wanted."""
        controls, width, step = self.controls, len(own.blocks[0].as_value()), self.link_tx.valid
        m.submodules.generator = generator = PrbsGenerator(width)
        self._configure(m, generator, restart)
        since, wanted, wrong, sent = Signal(32), Signal(), Signal(), Signal()
        due = (controls.ber_error_blocks != 0) & (since + 1 >= controls.ber_error_blocks)
        m.d.comb += generator.step.eq(step)
        m.d.sync += sent.eq(step)
        with m.If(step):
            m.d.sync += [since.eq(Mux(due, 0, since + 1)), wrong.eq(wanted | due), wanted.eq(0)]
        with m.If(controls.ber_error_once):
            m.d.sync += wanted.eq(1)
        m.d.comb += own.valid.eq(Mux(controls.ber_on, sent, step))
        pattern = generator.bits
        for lane, (block, from_link) in enumerate(zip(own.blocks, self.link_tx.blocks, strict=True)):
            marred = pattern ^ (wrong & controls.ber_error_lanes[lane])
            m.d.comb += block.eq(Mux(controls.ber_on, marred, from_link))
            # A block later, the next lane sends other bits at the same time: crosstalk between them would be an error.
            before, pattern = pattern, Signal(width, name=f"pattern_{lane + 1}")
            with m.If(step):
                m.d.sync += pattern.eq(before)

    def _check(self, m, received, restart):
        """Checks and counts each lane, and shows the counts of the lane that is asked for."""
        controls, status = self.controls, self.status
        m.d.comb += status.ber_present.eq(1)
        counters = []
        for lane, block in enumerate(received.blocks):
            bits = block.as_value()
            m.submodules[f"checker_{lane}"] = checker = PrbsChecker(len(bits))
            m.submodules[f"counter_{lane}"] = counter = LaneCounter(len(bits))
            self._configure(m, checker, restart)
            m.d.comb += [
                checker.bits.eq(bits),
                checker.valid.eq(received.valid),
                counter.step.eq(checker.checked),
                counter.errors.eq(checker.errors),
                counter.clear.eq(controls.ber_clear),
                counter.snapshot.eq(controls.ber_snapshot),
                status.ber_locked[lane].eq(checker.locked),
                status.ber_lock_lost[lane].eq(checker.lost),
            ]
            counters.append(counter)
        with m.Switch(controls.ber_lane):
            for lane, counter in enumerate(counters):
                with m.Case(lane):
                    # The register stage keeps the choice among lanes out of the path of the bus.
                    m.d.sync += [
                        status.ber_errors.eq(counter.shown_errors),
                        Cat(status.ber_blocks, status.ber_blocks_high).eq(counter.shown_blocks),
                    ]
            with m.Default():
                m.d.sync += [status.ber_errors.eq(0), status.ber_blocks.eq(0), status.ber_blocks_high.eq(0)]
