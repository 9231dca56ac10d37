"""A link runs over a line of bit errors, and its frames that are dropped are put beside what the bits of the line say."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lightfabric.flows.report import RunError, say
from lightfabric.flows.tool.executable import verilator_environment
from lightfabric.model.spec import ChipletSpec

SWEPT = 6
"""So many bit error rates are swept."""
MAX_SWEPT_BER = 1e-3
"""Without a code: half of the frames are wrong."""
LEAST_BER = 1e-12
FEWEST_EVENTS = 3
"""So many frames, or codewords and their frames, are expected to be wrong at the lowest rate of a sweep."""
CONFIDENCE = 0.95
# Flits before the measured ones, until all parts of the link are busy.
WARM_UP_FLITS = 100
# A line that needs more cycles than so many slots for each flit is not going to carry them.
MAX_SLOTS_PER_FLIT = 60
MAX_TRAINING_CYCLES = 20_000
DELAY_CYCLES = 3
# A native run that has not ended by then is killed: so many flits as may be asked for take an hour or two.
BOUND_S = 6 * 3600
COUNTS_OF_FEC = ("corrected_symbols", "uncorrectable_codewords")
ECHO_BITS = 58
"""So many bits of a frame are spoilt by an error in the frame before it, on each lane [IEEE 802.3 49.2.10]."""


@dataclass(frozen=True)
class Job:
    """Describes a run: so many full flits one way, answers the other, on a channel with these faults both ways.

    The clock of the end that gets them is faster by ``ppm``, natively alone.
    """

    spec: ChipletSpec
    ber: float
    flits: int
    seed: int
    trace: Path | None = None
    ppm: float = 0.0


def frame_error_rate(spec: ChipletSpec, ber: float) -> float:
    """Give the chance that a frame is wrong: a codeword with bits of it cannot be corrected.

    Without error correction a bit of it is wrong, or one whose echo reaches it; sync headers do not count, for a frame needs
    its own bits alone once the lanes are locked.
    """
    if spec.code:
        from lightfabric.model.cycle.slot import Losses

        return Losses.of(replace(spec, bit_error_rate=ber)).slot_loss_rate
    return -math.expm1((8 * spec.flit_bytes + ECHO_BITS * spec.wavelengths_per_port) * math.log1p(-ber))


def frame_error_band(spec: ChipletSpec, wrong: int, frames: int) -> tuple[float, float]:
    """Bound the rate of wrong frames with 95 % confidence [Clopper and Pearson, Biometrika 26 (1934) 404].

    Frames are not independent, so that they count for fewer: an error near the end of one spoils the next one, too, and all
    frames that have bits in a codeword are lost with it.
    """
    from scipy.stats import beta

    weight = _frames_together(spec)
    k, n, tail = wrong / weight, frames / weight, (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def _frames_together(spec: ChipletSpec) -> float:
    """Count the frames that are wrong together, in the mean."""
    if spec.code:
        return 1 + spec.codeword_beats / spec.beats_per_flit
    echo = ECHO_BITS * spec.wavelengths_per_port
    return 1 + 2 * echo / (8 * spec.flit_bytes + echo)


def swept_bers(spec: ChipletSpec, flits: int) -> tuple[float, ...]:
    """Choose the bit error rates of a sweep by the closed form, so that so many frames can show it.

    Frames are wrong from rarely, a few events among the frames, to as often as the code is meant for, in equal ratios.
    """
    import numpy as np
    from scipy.optimize import root_scalar

    most = spec.code.max_bit_error_rate if spec.code else MAX_SWEPT_BER
    highest = frame_error_rate(spec, most)
    lowest = min(FEWEST_EVENTS * _frames_together(spec) / flits, highest / 10)

    def ber_of(rate: float) -> float:
        def above(ber_log: float) -> float:
            return math.log(frame_error_rate(spec, min(math.exp(ber_log), most)) / rate)

        found = root_scalar(above, bracket=(math.log(LEAST_BER), math.log(most)))
        return float(f"{math.exp(found.root):.3g}")

    return (*(ber_of(rate) for rate in np.geomspace(lowest, highest, SWEPT)[:-1]), most)


def measure(job: Job, simulator: str | None = None) -> dict[str, Any]:
    """Run the RTL natively if Verilator and a compiler are there and it has no trace, else under Amaranth's simulator.

    ``goodput_gbps`` is of the flits' payload, ``frame_error_rate`` of the line from b, whose frames are answers only: of
    frames with data one that comes after a lost one may be dropped, too. RunError if the flits do not arrive.
    """
    # First, for it says in a moment that a rate is beyond the code's.
    closed_form = None if job.trace else frame_error_rate(job.spec, job.ber)
    native = runs_natively(job, simulator)
    seen = _run_natively(job) if native else _run_in_python(job)
    wrong, frames = seen["answer_frame_errors"], seen["answer_frames"]
    low, high = frame_error_band(job.spec, wrong, frames) if frames else (0.0, 1.0)
    seconds = seen.pop("window_cycles") * job.spec.cycle_ps * 1e-12
    payload_bits = 8 * job.spec.payload_bytes * min(seen["delivered_flits"], job.flits)
    return {
        "simulator": "verilator" if native else "amaranth",
        "lanes": job.spec.wavelengths_per_port,
        "fec": job.spec.fec,
        "ber": job.ber,
        "ppm": job.ppm,
        "flits": job.flits,
        "seed": job.seed,
        **seen,
        "goodput_gbps": 1e-9 * payload_bits / seconds if seconds else 0.0,
        "frame_error_rate": wrong / frames if frames else math.nan,
        "frame_error_rate_low": low,
        "frame_error_rate_high": high,
        "closed_form": closed_form,
    }


def runs_natively(job: Job, simulator: str | None) -> bool:
    """Tell whether the run is native: it is asked for, or nothing is and it has no trace and Verilator is there."""
    return simulator == "verilator" or (simulator is None and job.trace is None and _has_verilator())


def sweep(job: Job, bers: Sequence[float], simulator: str | None, progress: Any) -> list[dict[str, Any]]:
    """Measure the same line at each bit error rate; the errors of each run are of a seed of its own."""
    rows = []
    for number, ber in enumerate(bers):
        try:
            rows.append(measure(replace(job, ber=ber, seed=job.seed + number), simulator))
        except RunError as error:
            # Amaranth's bench says nothing of a run that did not end; the other rates have their points.
            say(f"lightfabric: {error}")
        progress(number + 1, len(bers))
    return rows


def told(row: dict[str, Any]) -> str:
    """Say a measured line in a line of text."""
    names = ("bit_errors", "frame_errors", "frames", *COUNTS_OF_FEC, "lock_cycles", "align_cycles")
    band = f"{row['frame_error_rate_low']:.3g} to {row['frame_error_rate_high']:.3g}"
    closed = "" if row["closed_form"] is None else f", closed form {row['closed_form']:.3g}"
    counts = ", ".join(f"{row[name]} {name}" for name in names)
    return f"BER {row['ber']:g}: {counts}; {row['goodput_gbps']:.4g} Gb/s; frame error rate {band}{closed}"


def _has_verilator() -> bool:
    try:
        with verilator_environment():
            return True
    except RunError:
        return False


def _run_natively(job: Job) -> dict[str, Any]:
    from lightfabric.flows.tool import native as flow
    from lightfabric.rtl.register_map import MAX_CORRECTED
    from lightfabric.sim.native import link as native

    spec = job.spec
    bound = math.ceil(float(spec.slot_cycles) * MAX_SLOTS_PER_FLIT * (job.flits + WARM_UP_FLITS)) + MAX_TRAINING_CYCLES
    run = native.Run(
        1 << 40, 0, saturated=True, seed=job.seed, ber=job.ber, ber_back=job.ber, ppm=job.ppm, delay_cycles=DELAY_CYCLES,
        warm_up_flits=WARM_UP_FLITS, window_flits=job.flits, bound_cycles=bound,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lightfabric-") as folder:
        seen = flow.run(flow.build(spec, Path(folder)), run, bound_s=BOUND_S)
    return {
        **{name: max(seen[f"register_{name}"]) for name in ("lock_cycles", "align_cycles")},
        **{name: sum(seen[f"register_{name}"]) for name in (*COUNTS_OF_FEC, "retrainings")},
        **{name: seen[name] for name in ("bits", "bit_errors", "replays", "cycles")},
        "codewords": [sum(seen[f"register_codewords_{n}"]) for n in range(MAX_CORRECTED + 1)],
        "frames": sum(seen["register_frames_checked"]),
        "frame_errors": sum(seen["register_crc_errors"]),
        "answer_frames": seen["register_frames_checked"][0],
        "answer_frame_errors": seen["register_crc_errors"][0],
        "window_cycles": seen["window_cycles"],
        "delivered_flits": seen["window_payload_bytes"] // spec.payload_bytes,
    }


@cache
def _bench(spec: ChipletSpec) -> Any:
    """Elaborate the bench of a link, which takes longer than a short run."""
    from lightfabric.sim.bench.link import LinkBench

    return LinkBench(spec)


def _run_in_python(job: Job) -> dict[str, Any]:
    from lightfabric.sim.bench.bench import BenchTimeoutError, ClientFlit
    from lightfabric.sim.channel.fault import Channel

    spec = job.spec
    channels = [Channel.uniform(spec.lanes_per_port, ber=job.ber, delay_cycles=DELAY_CYCLES, trace=job.trace)] * 2
    flits = [(0, ClientFlit(n.to_bytes(spec.payload_bytes, "little"))) for n in range(job.flits)]
    bound = math.ceil(float(spec.slot_cycles) * MAX_SLOTS_PER_FLIT * job.flits) + MAX_TRAINING_CYCLES
    try:
        run = _bench(spec).run(flits, channels=(channels[0], channels[1]), seed=job.seed, bound_cycles=bound)
    except BenchTimeoutError:
        raise RunError(
            f"the line did not carry {job.flits} flits at a bit error rate of {job.ber:g} within {bound} cycles"
        ) from None
    if [flit.payload for _, flit in run.received] != [flit.payload for _, flit in flits]:
        raise RunError("the flits did not arrive once, in order and unchanged")
    first, last = run.received[0][0], run.received[-1][0]
    return {
        **{name: run.training[name] for name in ("lock_cycles", "align_cycles")},
        "retrainings": len(run.recoveries),
        **{name: getattr(run, name) for name in ("bits", "bit_errors", "replays", "cycles", "codewords", *COUNTS_OF_FEC)},
        "frames": run.frames + run.answer_frames,
        "frame_errors": run.crc_errors + run.answer_crc_errors,
        "answer_frames": run.answer_frames,
        "answer_frame_errors": run.answer_crc_errors,
        "window_cycles": last - first + float(spec.slot_cycles),
        "delivered_flits": job.flits,
    }
