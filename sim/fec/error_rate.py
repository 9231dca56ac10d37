"""The native bench of the Reed-Solomon codec counts what is left of bit errors: its hardware, its C++ and its numbers."""

from dataclasses import asdict, dataclass
from importlib.resources import files

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.rtl.fec.decoder import Decoder, Mode
from lightfabric.rtl.fec.encoder import Encoder
from lightfabric.sim.native.link import header

TOP = "codec"
"""Name of the Verilog module."""


@dataclass(frozen=True)
class Run:
    """Describes a run: bits of the line are inverted independently at the rate ``ber``, from a seed.

    Of the codewords with ``few`` errors or less only one in ``thinning`` is simulated; ``few`` must be at most t.
    """

    codewords: int
    ber: float
    seed: int = 1
    few: int = 0
    thinning: int = 1

    def arguments(self) -> list[str]:
        """Return the command line of the program."""
        return [text for name, value in asdict(self).items() for text in (name, f"{value}")]


class Codec(wiring.Component):
    """Joins an encoder to a decoder by a line that inverts bits.

    Members
    -------
    valid, first, data, errors : In, beats of the encoder, and the bits to be inverted of what becomes of each
    mode : In(Mode)
    sent_valid, sent : Out, beats of the encoder
    o_valid, o_data, last, corrected, uncorrectable : Out, of the decoder
    """

    def __init__(self, code: ReedSolomon, p: int):
        self.encoder, self.decoder = Encoder(code, p), Decoder(code, p)
        bits = p * code.m
        i = {"valid": In(1), "first": In(1), "data": In(bits), "errors": In(bits), "mode": In(Mode)}
        sent = {"sent_valid": Out(1), "sent": Out(bits), "o_valid": Out(1), "o_data": Out(bits)}
        findings = {"last": Out(1), "corrected": Out(range(code.t + 1)), "uncorrectable": Out(1)}
        super().__init__(i | sent | findings)

    def elaborate(self, platform):
        m = Module()
        m.submodules.encoder, m.submodules.decoder = encoder, decoder = self.encoder, self.decoder
        errors = Signal.like(self.errors, name="errors_sent")
        m.d.sync += errors.eq(self.errors)
        m.d.comb += [
            encoder.i.valid.eq(self.valid),
            encoder.i.first.eq(self.first),
            encoder.i.data.eq(self.data),
            self.sent_valid.eq(encoder.o.valid),
            self.sent.eq(encoder.o.data),
            decoder.i.valid.eq(encoder.o.valid),
            decoder.i.first.eq(encoder.o.first),
            decoder.i.data.eq(encoder.o.data ^ errors),
            decoder.mode.eq(self.mode),
            self.o_valid.eq(decoder.o.valid),
            self.o_data.eq(decoder.o.data),
            self.last.eq(decoder.last),
            self.corrected.eq(decoder.corrected),
            self.uncorrectable.eq(decoder.uncorrectable),
        ]
        return m


def sources(code: ReedSolomon, p: int) -> dict[str, str]:
    """Return the C++ by file name, the program first and the header that fits it to the code."""
    numbers = {
        "SYMBOLS": code.n,
        "SYMBOL_BITS": code.m,
        "BEATS": code.beats(p),
        "BEAT_BITS": p * code.m,
        "CORRECTABLE": code.t,
        "LATENCY": Decoder(code, p).latency_clocks,
    }
    program = (files("lightfabric.sim.fec") / "error_rate.cpp").read_text(encoding="utf-8")
    return {"error_rate.cpp": program, "codec_shape.h": header(numbers)}
