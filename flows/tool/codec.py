"""Error rates of the Reed-Solomon codec are counted on its verilated hardware."""

import tempfile
from pathlib import Path
from typing import Any

from lightfabric.flows.tool import native
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.reed_solomon import ReedSolomon
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
