"""Systems that training runs in tables ran on: which accelerator, what joins its nodes."""

from dataclasses import dataclass

from lightfabric.model.spec import ACCELERATORS, AcceleratorSpec


@dataclass(frozen=True)
class System:
    """Describes what joins accelerators: ``island_gpus`` of them behind a fast network, and a slower NIC for each.

    Both rates are of one accelerator each way.
    """

    island_bytes_per_s: float
    nic_bytes_per_s: float
    island_gpus: int = 8


SYSTEMS = {
    # NVLink 3, 4 and 5, a NIC per GPU [NVIDIA, DGX A100, H100, H200, B200 and B300, GB200 and GB300 NVL72 data sheets].
    "a100": System(300e9, 25e9),
    "a100-40gb": System(300e9, 25e9),
    "h100": System(450e9, 50e9),
    "h200": System(450e9, 50e9),
    # 400 GB/s of NVLink both ways together, 8 NICs of 400 Gb/s [DeepSeek-AI, "Insights into DeepSeek-V3", ISCA 2025, 4.1].
    "h800": System(200e9, 50e9),
    "b200": System(900e9, 50e9),
    "b300": System(900e9, 100e9),
    "gb200": System(900e9, 50e9, island_gpus=72),
    "gb300": System(900e9, 100e9, island_gpus=72),
    # Seven links of 64 GB/s each way to the other seven [AMD, MI300X platform data sheet].
    "mi300x": System(448e9, 50e9),
    # Six or four links of the torus at 45 or 90 GB/s each way, and the data-centre network beyond a pod [Google DeepMind,
    # "How to Scale Your Model" (2025), "How to Think About TPUs"].
    "tpu-v4": System(270e9, 3.1e9, island_gpus=4096),
    "tpu-v5p": System(540e9, 6.25e9, island_gpus=8960),
    "tpu-v6e": System(360e9, 12.5e9, island_gpus=256),
}
"""By the name of the accelerator."""


def letters(text: str) -> str:
    """Reduce a name to what all spellings of it share."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def accelerator(name: str, column: str = "accel") -> AcceleratorSpec:
    """The accelerator that a name has in it; ValueError, of the column, if it has none."""
    # Longer names first, since a GB200 is no B200.
    for known in sorted(ACCELERATORS, key=len, reverse=True):
        if letters(known) in letters(name):
            return ACCELERATORS[known]
    raise ValueError(f"{column} must have one of {', '.join(ACCELERATORS)} in its name, not {name[:60]!r}")
