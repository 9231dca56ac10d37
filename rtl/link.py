"""A link carries credited flits between chiplets over a line with errors, by go-back-N replay [UCIe 1.1, retry]."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.aligner import Aligner
from lightfabric.rtl.bonding import Collector, Distributor
from lightfabric.rtl.channel import ChannelSignature
from lightfabric.rtl.fec.sublayer import FecDecoder, FecEncoder
from lightfabric.rtl.line import LineSignature
from lightfabric.rtl.receiver import Receiver
from lightfabric.rtl.register_map import MAX_CORRECTED
from lightfabric.rtl.training import Training
from lightfabric.rtl.training_set import LANE_BITS
from lightfabric.rtl.transmitter import Transmitter

TRAINING_STATUS = {
    "state": 4,
    "active": 1,
    "receives_fewer": 1,
    "sends_fewer": 1,
    "config_mismatch": 1,
    "peer_reset": 1,
    "lock_cycles": 32,
    "align_cycles": 32,
    "exchange_cycles": 32,
    "recovery_cycles": 32,
}
"""The training tells so much of itself; each name has its width in bits."""

LANE_STATUS = (
    "lanes_in",
    "lanes_out",
    "lanes_locked",
    "lanes_good",
    "lanes_inverted",
    "lanes_doubled",
    "lane_errors",
    "skew_overflow",
)
"""So much is told of each lane: whether it carries frames each way, how its blocks are received, what is wrong with it."""

CODEWORDS = data.ArrayLayout(2, MAX_CORRECTED + 1)
"""Codewords of a cycle are counted by how many of their symbols were corrected."""

EVENTS = data.StructLayout(
    {
        **dict.fromkeys(("sent", "received", "good", "replay", "timeout", "bad", "retraining", "peer_reset"), 1),
        "leaks": 4,
        "violations": 4,
    }
)
"""Events say what happens in a cycle: flits sent for the first time and accepted, frames with a right CRC, replays and those
of them for want of an acknowledgement, frames dropped for their CRC, trainings done again, resets of the far end; credits
lost and invented."""


def status_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what a link tells of its state.

    ``lane_order`` gives the number of each lane at the far end, by which ``lanes_in`` is a mask; the other masks are by the
    numbers at this end. ``credits`` are the flits that the link may send in each virtual channel.
    """
    lanes = dict.fromkeys(LANE_STATUS, spec.lanes_per_port)
    order = data.ArrayLayout(LANE_BITS, spec.lanes_per_port)
    credits_ = data.ArrayLayout(spec.credit_bits, spec.virtual_channels)
    return data.StructLayout({**TRAINING_STATUS, **lanes, "lane_order": order, "credits": credits_})


class Link(wiring.Component):
    """Sends flits to the far end of a full-duplex link, and receives those of the far end.

    Every flit that enters ``i`` at one end leaves ``o`` of the other end once, in order within its virtual channel and
    unchanged, whatever the line does to its bits and frames, also over a retraining of the line. Flits that the far end
    had not acknowledged when it was reset are lost with it, and so are those of both ends when the line is not active for
    ``spec.stall_cycles``; a packet cut so ends with a flit of ``last`` and ``error``. From reset on the line is trained
    first. Latency and rate follow from the slots of the line; what they are is measured by
    ``lightfabric.sim.link_timing``.

    Members
    -------
    i : In(ChannelSignature(spec))
    o : Out(ChannelSignature(spec))
    tx : Out(LineSignature(spec))
    tx_ready : In(1), 1 unless connected; 0 if the SerDes has room for no more than ``READY_SLACK_BEATS``, with a code and as
        many more as its encoder takes cycles
    rx : In(LineSignature(spec))
    slip : Out(spec.lanes_per_port), one cycle per bit by which a wavelength is to move its blocks
    enable : In(1), 1 unless connected; 0 keeps the link down
    retrain : In(1), train the line again
    hold : In(1), begin no packet; what has begun ends, and replays and link state go on
    drained : Out(1), with ``hold``: every packet has ended and all that was sent is acknowledged
    renew : In(1), while ``enable`` is 0: the line leads to another far end from now on, so nothing of the one before is
        kept; at both ends, after its last frame. Flits that wait at ``i`` stay, and go to the new one
    status : Out(status_layout(spec))
    events : Out(EVENTS)
    replays : Out(32), replays started by this end
    crc_errors : Out(32), frames that this end dropped
    corrected_symbols : Out(8), of the codewords that the error correction has looked at in this cycle
    uncorrectable_codewords : Out(2), those of them that it could not correct
    codewords : Out(CODEWORDS), the others, by how many of their symbols it corrected
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "o": Out(ChannelSignature(spec)),
                "tx": Out(LineSignature(spec)),
                "tx_ready": In(1, init=1),
                "rx": In(LineSignature(spec)),
                "slip": Out(spec.lanes_per_port),
                "enable": In(1, init=1),
                **dict.fromkeys(("retrain", "hold", "renew"), In(1)),
                "drained": Out(1),
                "status": Out(status_layout(spec)),
                "events": Out(EVENTS),
                "replays": Out(32),
                "crc_errors": Out(32),
                "corrected_symbols": Out(8),
                "uncorrectable_codewords": Out(2),
                "codewords": Out(CODEWORDS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.aligner = aligner = Aligner(self.spec)
        m.submodules.training = training = Training(self.spec)
        m.submodules.transmitter = transmitter = Transmitter(self.spec)
        m.submodules.distributor = distributor = Distributor(self.spec)
        m.submodules.collector = collector = Collector(self.spec)
        m.submodules.receiver = receiver = Receiver(self.spec)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, distributor.line, wiring.flipped(self.tx))
        wiring.connect(m, wiring.flipped(self.rx), aligner.rx)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        connect(m, aligner, training, collector)
        m.d.comb += [
            self.slip.eq(aligner.slip),
            receiver.frames.eq(training.frames_in),
            receiver.resume.eq(training.resume),
            receiver.resumed.received.eq(training.remote.expected),
            receiver.resumed.limits.eq(training.remote.limits),
            receiver.flush.eq(training.flush),
            transmitter.ready.eq(self.tx_ready),
            transmitter.sets.eq(training.sets),
            transmitter.set.eq(training.set),
            transmitter.width.eq(distributor.width),
            distributor.lanes.eq(training.lanes_out),
            transmitter.resume.eq(training.resume),
            transmitter.flush.eq(training.flush),
            transmitter.local.eq(receiver.local),
            transmitter.news.eq(receiver.news),
            training.beat.eq(transmitter.beat),
            # The sequence received last, of which the other end makes an answer at ``resume``.
            training.local.expected.eq(receiver.local.received),
            training.local.limits.eq(receiver.local.limits),
            training.trouble.eq(transmitter.trouble | receiver.trouble),
            training.retrain.eq(self.retrain),
            training.renew.eq(self.renew),
            transmitter.hold.eq(self.hold),
            self.drained.eq(transmitter.drained),
            training.enable.eq(self.enable),
        ]
        self._add_fec(m, training, (transmitter, distributor), (aligner, collector, receiver))
        self._report(m, training, aligner, transmitter, receiver)
        return m

    def _add_fec(self, m, training, sent, received):
        """Puts the error correction between words and lanes, or joins them where there is none."""
        (transmitter, distributor), (aligner, collector, receiver) = sent, received
        if not self.spec.code:
            m.d.comb += [
                distributor.i.eq(transmitter.o),
                receiver.words.eq(collector.words),
                receiver.words_valid.eq(collector.words_valid),
            ]
            return
        m.submodules.fec_encoder = encoder = FecEncoder(self.spec)
        m.submodules.fec_decoder = decoder = FecDecoder(self.spec)
        # After this end has begun a training, units come until the other end has heard of it: as long as there was no set.
        brings_units, carried = Signal(), Signal.like(aligner.use)
        m.d.sync += brings_units.eq(training.frames_in | (brings_units & ~aligner.heard.set_valid))
        with m.If(training.frames_in):
            m.d.sync += carried.eq(aligner.use)
        m.d.comb += [
            encoder.i.eq(transmitter.o),
            distributor.i.eq(encoder.o),
            aligner.freeze.eq(carried & brings_units.replicate(len(carried))),
            decoder.units.eq(collector.words),
            decoder.units_valid.eq(collector.words_valid),
            decoder.frames.eq(training.frames_in),
            receiver.words.eq(decoder.words),
            receiver.words_valid.eq(decoder.words_valid),
            receiver.words_bad.eq(decoder.bad),
            self.corrected_symbols.eq(decoder.corrected),
            self.uncorrectable_codewords.eq(decoder.uncorrectable),
            [count.eq(seen) for count, seen in zip(self.codewords, decoder.codewords, strict=True)],
        ]

    def _report(self, m, training, aligner, transmitter, receiver):
        count = self.spec.wavelengths_per_port
        fewer = {"receives_fewer": training.width != count, "sends_fewer": transmitter.width != count}
        for name in TRAINING_STATUS:
            m.d.comb += self.status[name].eq(fewer[name] if name in fewer else getattr(training, name))
        m.d.comb += [
            self.status.lanes_in.eq(training.lanes_in),
            self.status.lanes_out.eq(training.lanes_out),
            self.status.lanes_locked.eq(aligner.locked),
            self.status.lanes_good.eq(aligner.good),
            self.status.lanes_inverted.eq(aligner.inverted),
            self.status.lanes_doubled.eq(training.doubles),
            self.status.lane_errors.eq(aligner.errors),
            self.status.skew_overflow.eq(aligner.skew_overflow),
            [shown.eq(number) for shown, number in zip(self.status.lane_order, aligner.numbers, strict=True)],
        ]
        m.d.comb += self.status.credits.eq(Cat(transmitter.credits))
        # Blocks and layout have the same names, so one that is in neither fails here.
        for block, names in (
            (transmitter, ("sent", "replay", "timeout")),
            (receiver, ("received", "good", "bad", "leaks", "violations")),
        ):
            m.d.comb += [self.events[name].eq(getattr(block, name)) for name in names]
        m.d.comb += [self.events.retraining.eq(training.retrainings), self.events.peer_reset.eq(training.flush)]
        # The CRC is checked late in its cycle: a register stage keeps it out of the carry of the counter.
        bad = Signal()
        m.d.sync += [bad.eq(receiver.bad), self.crc_errors.eq(self.crc_errors + bad)]
        m.d.sync += self.replays.eq(self.replays + transmitter.replay)


def connect(m: Module, aligner: Aligner, training: Training, collector: Collector) -> None:
    """Connects the blocks of a receiver: alignment, what is heard, the lanes in use and what they bring."""
    for name in ("heard", "good", "aligned"):
        m.d.comb += getattr(training, name).eq(getattr(aligner, name))
    for name in ("use", "reuse", "retry", "relock", "realign"):
        m.d.comb += getattr(aligner, name).eq(getattr(training, name))
    for name in ("use", "width"):
        m.d.comb += getattr(collector, name).eq(getattr(training, name))
    m.d.comb += [
        aligner.frames.eq(training.holds),
        collector.frames.eq(training.frames_in),
        collector.blocks_valid.eq(aligner.blocks_valid),
    ]
    for name, from_, to in (
        ("numbers", aligner, training),
        ("ranks", training, collector),
        ("blocks", aligner, collector),
    ):
        pairs = zip(getattr(to, name), getattr(from_, name), strict=True)
        m.d.comb += [mine.eq(theirs) for mine, theirs in pairs]
