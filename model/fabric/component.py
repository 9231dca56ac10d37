"""Components are the parts that a network is built from; a bill says what they cost and draw."""

from collections import Counter
from typing import Literal, NamedTuple

from lightfabric.model.spec import ChipletSpec, PricesSpec

ComponentName = Literal[
    "nic",
    "switch_port",
    "island_port",
    "transceiver",
    "copper_cable",
    "fibre",
    "ocs_port",
    "patch_port",
    "laser",
    "modulator",
    "receiver",
]


class Component(NamedTuple):
    """Names a kind of part, and its raw rate, 0 for one that has none."""

    name: ComponentName
    gbps: float = 0.0


Components = Counter[Component]
"""How many of each part a network has."""


class Item(NamedTuple):
    """Holds a line of a bill: parts alike, with the price and the power of each."""

    component: Component
    pieces: int
    usd_each: float
    w_each: float
    source: str

    @property
    def usd(self) -> float:
        """Give the price of all."""
        return self.pieces * self.usd_each

    @property
    def w(self) -> float:
        """Give the power of all."""
        return self.pieces * self.w_each


def bill(components: Components, prices: PricesSpec) -> list[Item]:
    """List the parts with their prices, the dearest line first."""
    items = list[Item]()
    for component, count in components.items():
        price = getattr(prices, component.name)
        usd_each, w_each = price.at(component.gbps)
        items.append(Item(component, count, usd_each, w_each, price.source))
    return sorted(items, key=lambda item: (-item.usd, item.component))


def light(chiplet: ChipletSpec, ports: int) -> Components:
    """Count what makes, modulates and detects the light of so many ports of chiplets."""
    lanes = ports * chiplet.wavelengths_per_port
    names: tuple[ComponentName, ...] = ("laser", "modulator", "receiver")
    return Components({Component(name, chiplet.wavelength_gbps): lanes for name in names})
