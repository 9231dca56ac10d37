"""Error rates of the Reed-Solomon codec are counted on its verilated hardware, beside their closed form."""

import tempfile
from pathlib import Path
from typing import Any

from lightfabric.flows.tool import native
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.reed_solomon import KP4, KR4, ReedSolomon
from lightfabric.sim.fec import error_rate


def measure(code: ReedSolomon, p: int, run: error_rate.Run) -> dict[str, Any]:
    """Send random codewords through encoder and decoder at p symbols per clock, and count what became of them.

    Returns ``codewords`` that were drawn and, of them, ``simulated``; ``symbol_errors`` of all that were drawn; of the
    simulated ones ``uncorrectable``, ``miscorrected`` (another codeword, which nobody can tell), ``corrected`` by the number
    of symbols, and ``failed``: with at most t errors and not corrected. The program is kept in the user's cache.
    """
    files = {f"{error_rate.TOP}.v": convert(error_rate.Codec(code, p), error_rate.TOP), **error_rate.sources(code, p)}
    with tempfile.TemporaryDirectory(prefix="lightfabric-codec-") as folder:
        program = native.built(error_rate.TOP, files, Path(folder))
        return native.counts(program, run.arguments())


def band(code: ReedSolomon, ber: float, codewords: int) -> tuple[float, float]:
    """Compute how many of the codewords have more than t symbols in error, in 95 % of all runs, from and to."""
    from scipy.stats import binom

    symbol_error_rate = 1 - (1 - ber) ** code.m
    low, high = binom.interval(0.95, codewords, binom.sf(code.t, code.n, symbol_error_rate))
    return float(low), float(high)


CASES = (
    (KP4, error_rate.Run(1500, 2e-3)),
    (KP4, error_rate.Run(800_000, 1e-3, few=12, thinning=512)),
    (KR4, error_rate.Run(1000, 1e-3)),
    (KR4, error_rate.Run(2_500_000, 2.4e-4, few=5, thinning=1024)),
)
"""Codes and runs that have some 100 codewords to be counted."""


def waterfall() -> list[dict[str, Any]]:
    """Measure all cases, a minute or two of work with the making of the programs."""
    rows = []
    for code, run in CASES:
        measured = measure(code, 1, run)
        low, high = band(code, run.ber, run.codewords)
        wrong = measured["uncorrectable"] + measured["miscorrected"]
        rows.append({"n": code.n, "k": code.k, "ber": run.ber, "low": low, "high": high, "wrong": wrong, **measured})
    return rows
