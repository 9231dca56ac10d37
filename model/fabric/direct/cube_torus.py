"""Cubes of GPUs are joined to a torus by optical circuit switches [TPUv4, ISCA 2023]."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.component import Component, Components, light
from lightfabric.model.fabric.direct.cubes import Cubes
from lightfabric.model.fabric.direct.direct import balanced_ways
from lightfabric.model.fabric.direct.lattice import Lattice
from lightfabric.model.fabric.direct.torus import Torus
from lightfabric.model.fabric.fabric import usable_in_parts
from lightfabric.model.spec import CABLE_PS_PER_M, FIBRE_PS_PER_M, CubeTorusSpec

_Ints = NDArray[np.int64]


class CubeTorus(Torus):
    """Has cables inside cubes; a fibre leads to a switch and one from it to the next cube."""

    spec: CubeTorusSpec

    @property
    def twisted(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell what the switches make of the cubes."""
        return self.spec.cabling == "twisted-torus"

    @property
    def unit(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Let each axis grow by whole cubes."""
        return self.spec.cube_edge

    @property
    def own_link(self) -> tuple[float, float] | None:
        """Give the rate of all links and the longer latency, if they have them of their own."""
        spec = self.spec
        return (
            (spec.link_gbps, max(spec.electrical_latency_ns or 0, spec.optical_latency_ns or 0)) if spec.link_gbps else None
        )

    def ends(self, lattice: Lattice, there: _Ints) -> _Ints:
        """Follow the switches where the spec says what each of them joins."""
        if not self.spec.permutations:
            return super().ends(lattice, there)
        return Cubes(lattice.shape, self.spec.cube_edge).ends(np.array(self.spec.permutations))

    def stops(self, gpus: int, source: _Ints, destination: _Ints) -> _Ints:
        """Take the ways of the grid, or by permutations those that are balanced for all GPUs together."""
        if not self.spec.permutations:
            return super().stops(gpus, source, destination)
        return balanced_ways(self, gpus)[source * gpus + destination]

    def flights_ps(self, here: _Ints, there: _Ints, shape: _Ints) -> NDArray[np.float64]:
        """Tell cables from fibres: a link that leaves the cube, or goes round an axis, is optical."""
        spec = self.spec
        inside = (here // spec.cube_edge == there // spec.cube_edge) & (there < shape)
        electrical, optical = spec.electrical_latency_ns, spec.optical_latency_ns
        return np.where(
            inside.all(axis=-1),
            electrical * 1e3 if electrical else spec.cable_m * CABLE_PS_PER_M,
            optical * 1e3 if optical else 2 * spec.fibre_m * FIBRE_PS_PER_M,
        )

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Give groups fixed blocks of a cube, or any whole cubes, which switches join; GPUs are counted cube by cube."""
        cube = self.spec.cube_edge**self.spec.dimensions
        if group > cube:
            return usable_in_parts(alive, cube, cube) // cube // -(-group // cube) * group
        in_block: NDArray[np.bool_] = np.arange(alive.shape[1], dtype=np.int64) % cube < cube // group * group
        return usable_in_parts(alive[:, in_block], group, group)

    def components(self, gpus: int) -> Components:
        """Count a port of a switch of light for each end of an optical link, of which a cube has as many as its faces GPUs.

        Links of a rate of their own have a transceiver at each of these ends, others the light of chiplets.
        """
        directions = self.lattice(gpus).directions
        ends = gpus * directions // self.spec.cube_edge
        own = self.spec.link_gbps
        ports = 1 if own else self.ports_per_link(directions)
        ends *= ports
        found = Components({Component("transceiver", own): ends}) if own else light(self.chiplet, ends)
        copper = Component("copper_cable", own or self.chiplet.gbps_per_port)
        found[copper] = (ports * gpus * directions - ends) // 2
        return found + Components({Component("ocs_port"): ends, Component("fibre"): 2 * ends})
