"""Codes of forward error correction: what each puts on the line, what it corrects, and what it costs in time."""

from dataclasses import dataclass
from math import exp, expm1, lgamma, log, log1p
from typing import Literal

FecName = Literal["none", "kr4", "kp4", "light"]


@dataclass(frozen=True)
class FecCode:
    """Describes a Reed-Solomon code over GF(2^``symbol_bits``) and how its codewords lie on the line.

    ``words`` 64-bit words of frames, with a header bit for every four of them where they are transcoded to 257 bits, are
    the message; the codeword is sent as as many blocks of ``block_bits`` bits, without sync headers. On ports wider than
    a codeword, and where a codeword is no whole number of beats, several lie side by side.
    """

    symbol_bits: int
    codeword_symbols: int
    message_symbols: int
    words: int
    block_bits: int
    max_bit_error_rate: float
    """Of the line before correction; beyond, the code loses a codeword in ten, and the link trains more than it sends."""
    solve_cycles: int
    """Bounds the register stages of encoder and decoder and the key equation, in a direction."""

    @property
    def correctable_symbols(self) -> int:
        """Count the wrong symbols of a codeword that are corrected."""
        return (self.codeword_symbols - self.message_symbols) // 2

    @property
    def parity_share(self) -> float:
        """Divide the symbols of the parity by those of the codeword."""
        return 1 - self.message_symbols / self.codeword_symbols

    def codeword_loss_rate(self, bit_error_rate: float) -> float:
        """Give the probability that a codeword has more wrong symbols than are corrected, with random bit errors.

        A decoder takes a few of these codewords for another one: 1 in t! at most [McEliece, Swanson, IEEE Trans. Information
        Theory 32 (5), 1986], of RS(132,128) 1 in 7.6. Their frames are lost, too, for the CRC finds what is left wrong.
        """
        symbol_log = self.symbol_bits * log1p(-bit_error_rate)
        if symbol_log == 0:
            return 0.0
        wrong_log, n = log(-expm1(symbol_log)), self.codeword_symbols
        terms = (
            lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * wrong_log + (n - k) * symbol_log
            for k in range(self.correctable_symbols + 1, n + 1)
        )
        return sum(map(exp, terms))


FEC_CODES: dict[str, FecCode] = {
    "kr4": FecCode(10, 528, 514, 80, 66, 1e-3, 2 * 7 + 22),
    "kp4": FecCode(10, 544, 514, 80, 68, 2e-3, 2 * 15 + 22),
    "light": FecCode(8, 132, 128, 16, 66, 1e-3, 18),
}
"""RS(528,514) and RS(544,514) of IEEE 802.3 clauses 91 and 119, with 256b/257b transcoding, and a light code for lines that
are good already. RS(132,128) corrects 2 bytes in 16 words: a codeword is a single beat of 16 wavelengths, so its latency is
that of logic, and two errors are solved in closed form. Its 32 bits of parity take the place of the 16 sync headers of
64b/66b, so it costs none of the line's rate: 66 bits for 64, where KP4 takes 68."""
