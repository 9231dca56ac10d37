"""Prices and powers of the parts of networks: a first table, each entry with its source and year, all of them editable."""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar

from lightfabric.model.spec.require import FORBID, require

Values = tuple[float, ...]


@dataclass(frozen=True)
class PriceSpec:
    """Describes what a part costs in dollars, ``usd``, and what it draws in watts, ``w``, at each of the raw rates ``gbps``.

    With one rate both are in proportion to it. Between several they are interpolated; a part slower than the first is as
    dear as the first, one faster than the last in proportion to its rate, as several side by side. Without ``gbps`` there is
    one value, whatever the rate is. ``source`` says where the values are from, and is beside them in every bill.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    usd: Values
    w: Values
    gbps: Values = ()
    source: str = "given in the spec"

    def __post_init__(self) -> None:
        rising = all(0 < one < other for one, other in zip((1e-9, *self.gbps), self.gbps, strict=False))
        require(self, "gbps", rising, "rates above 0 that rise")
        count = max(len(self.gbps), 1)
        for name in ("usd", "w"):
            values: Values = getattr(self, name)
            holds = len(values) == count and all(math.isfinite(value) and value >= 0 for value in values)
            require(self, name, holds, f"{count} values of at least 0, one for each rate")

    def at(self, gbps: float) -> tuple[float, float]:
        """Give dollars and watts of one part of a rate."""
        return self._value(self.usd, gbps), self._value(self.w, gbps)

    def _value(self, values: Values, gbps: float) -> float:
        known = list(zip(self.gbps, values, strict=False))
        if not known or (len(known) > 1 and gbps <= known[0][0]):
            return values[0]
        for (low, less), (high, more) in pairwise(known):
            if gbps <= high:
                return less + (more - less) * (gbps - low) / (high - low)
        return values[-1] * gbps / self.gbps[-1]


_ETHERNET = (100.0, 200.0, 400.0, 800.0)
_LISTED = "price lists of TopoOpt (NSDI 2023) and MixNet (SIGCOMM 2025)"
_LIGHT = "assumption (2026): a quarter of the 1.75 $ per Gb/s of an 800G transceiver for laser, modulator and receiver"
_ENERGY = "5 pJ/bit for the three together (TeraPHY, below 5), shared out by assumption"


@dataclass(frozen=True)
class PricesSpec:
    """Lists the price and the power of each kind of part; a table that is given replaces one entry as a whole.

    ``accelerator`` is a GPU with its memory, which counts in comparisons at equal cost, but in no network's bill. ``nic`` is
    a network card; ``switch_port`` one of a packet switch, ``island_port`` one of an island's switch, with its copper;
    ``transceiver`` one end of an optical cable, ``fibre`` a strand with its connectors, ``copper_cable`` a cable for both
    ways; ``ocs_port`` a port, in and out, of an optical circuit switch, ``patch_port`` one of a patch panel. Of each
    wavelength that a port of a chiplet sends, ``laser`` makes the light, ``modulator`` is its ring with driver, ``receiver``
    the ring and photodiode at the other end.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    accelerator: PriceSpec = PriceSpec(
        (25_000.0,), (700.0,), (), "assumption: an H100 in 2024; power of the H100 SXM data sheet (2022)"
    )
    nic: PriceSpec = PriceSpec(
        (659.0, 1079.0, 1499.0, 2248.0), (15.0, 20.0, 25.0, 45.0), _ETHERNET,
        f"{_LISTED}; power is an assumption near data sheets of 2019 to 2025",
    )  # fmt: skip
    switch_port: PriceSpec = PriceSpec(
        (187.0, 374.0, 1090.0, 1400.0), (5.0, 6.0, 12.0, 15.0), _ETHERNET,
        f"{_LISTED}; power is an assumption near data sheets of switches of 32 to 64 ports, 2016 to 2024",
    )  # fmt: skip
    island_port: PriceSpec = PriceSpec(
        (900.0,), (36.0,), (3600.0,), "assumption (2026): 0.25 $ per Gb/s; 10 pJ/bit, 5.5 of them for 112G SerDes"
    )
    transceiver: PriceSpec = PriceSpec(
        (99.0, 239.0, 659.0, 1399.0), (1.875, 3.75, 7.5, 15.0), _ETHERNET,
        f"{_LISTED}; power 18.75 pJ/bit (pluggables of 800G, 2025), for slower ones by assumption",
    )  # fmt: skip
    copper_cable: PriceSpec = PriceSpec((100.0,), (0.0,), (400.0,), "assumption (2026): passive cable of a few metres")
    fibre: PriceSpec = PriceSpec((10.0,), (0.0,), (), "assumption (2026): some ten metres of single-mode fibre")
    ocs_port: PriceSpec = PriceSpec((520.0,), (0.8,), (), f"{_LISTED}; power of Palomar, 108 W for 136 ports (Apollo, 2022)")
    patch_port: PriceSpec = PriceSpec((100.0,), (0.0,), (), f"{_LISTED}; no power, since hands or a robot set it")
    laser: PriceSpec = PriceSpec((4.0,), (0.064,), (32.0,), f"{_LIGHT}; {_ENERGY}")
    modulator: PriceSpec = PriceSpec((5.0,), (0.048,), (32.0,), f"{_LIGHT}; {_ENERGY}")
    receiver: PriceSpec = PriceSpec((5.0,), (0.048,), (32.0,), f"{_LIGHT}; {_ENERGY}")


COMPONENTS = tuple(part.name for part in fields(PricesSpec))
"""Names of all kinds of part."""
