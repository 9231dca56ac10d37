"""A figure shows how often frames are wrong against the bit error rate of the line, measured and by closed form."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightfabric.flows.figure.chart import COLOURS, titled
from lightfabric.flows.tool.line import frame_error_rate
from lightfabric.model.spec import ChipletSpec


def draw_waterfall(spec: ChipletSpec, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the measured rates of wrong frames with their 95 % bands; of rates without a wrong frame, the upper end.

    The closed form runs from the lowest to the highest bit error rate, beyond which a code may have none.
    """
    name = f"Wrong frames, {spec.wavelengths_per_port} lanes, {spec.flit_bytes} B flits, FEC {spec.fec}"
    with titled(name, path) as axes:
        # Ends that are rounded may lie a little beyond the highest rate of the code.
        lowest, highest = (pick(row["ber"] for row in rows) for pick in (min, max))
        line = np.clip(np.geomspace(lowest, highest, 100), lowest, highest)
        axes.plot(line, [frame_error_rate(spec, ber) for ber in line], color=COLOURS[1], label="closed form")
        seen = [row for row in rows if row["answer_frame_errors"]]
        rates = np.array([row["frame_error_rate"] for row in seen])
        low, high = (np.array([row[f"frame_error_rate_{end}"] for row in seen]) for end in ("low", "high"))
        if seen:
            spans = np.maximum([rates - low, high - rates], 0)
            style = {"color": COLOURS[0], "marker": "o", "markersize": 5, "capsize": 4, "linestyle": "none"}
            axes.errorbar([row["ber"] for row in seen], rates, yerr=spans, label="measured on the RTL, 95 %", **style)
        if none := [row for row in rows if not row["answer_frame_errors"]]:
            above = [row["frame_error_rate_high"] for row in none]
            bers = [row["ber"] for row in none]
            axes.plot(bers, above, color=COLOURS[0], marker="v", linestyle="none", label="none wrong: at most, 95 %")
        axes.set_xscale("log")
        axes.set_yscale("log")
        # All that a code like KP4 shows may lie between two powers of ten.
        axes.set_xticks([row["ber"] for row in rows], [f"{row['ber']:.3g}" for row in rows])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("bit error rate of the line")
        axes.set_ylabel("share of frames that are wrong")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False)
