"""A torus joins each GPU to two others along each axis of a grid."""

from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.direct.direct import Direct, Wires
from lightfabric.model.fabric.direct.lattice import Lattice, most_cubic
from lightfabric.model.spec import FIBRE_PS_PER_M, SpecError

_Ints = NDArray[np.int64]


class Torus(Direct):
    """Goes along the first axis first; see ``Lattice`` for which way round."""

    twisted = False
    """Whether the way round an axis ends further along longer ones."""
    unit = 1
    """GPUs by which each axis grows."""

    @property
    def own_link(self) -> tuple[float, float] | None:
        """Give the rate and the latency of all links, if they have them of their own."""
        return (self.spec.link_gbps, self.spec.link_latency_ns) if self.spec.link_gbps else None

    def lattice(self, gpus: int) -> Lattice:
        """Give the grid of so many GPUs, without axes of one GPU; ValueError if the spec has none."""
        shape: tuple[int, ...] = self.spec.shape
        if shape and prod(shape) != gpus:
            raise SpecError(type(self.spec).__name__, "shape", f"of {gpus} GPUs", f"{list(shape)}, which has {prod(shape)}")
        unit = self.unit**self.spec.dimensions
        if not shape and gpus % unit:
            raise ValueError(f"gpus must be a multiple of the {unit} of a cube on {self.name!r}, not {gpus}")
        shape = shape or tuple(self.unit * each for each in most_cubic(gpus // unit, self.spec.dimensions))
        return _lattice(tuple(length for length in shape if length > 1), self.twisted)

    def joined(self, gpus: int) -> Wires:
        """Join each point to those around it."""
        lattice = self.lattice(gpus)
        here, there = lattice.neighbours()
        ends = np.stack(np.broadcast_arrays(np.arange(gpus)[:, None], self.ends(lattice, there)), axis=-1).reshape(-1, 2)
        flight_ps = self.flights_ps(here[:, None], there, np.array(lattice.shape)).ravel()
        own = self.spec.link_gbps
        ports = 0 if own else self.ports_per_link(lattice.directions)
        rate = own * 1e9 / 8 if own else ports * self.chiplet.gbps_per_port * 1e9 / 8 * self.efficiency
        return Wires.of(gpus, ends, ports, rate, flight_ps)

    def ends(self, lattice: Lattice, there: _Ints) -> _Ints:
        """Find the GPU at the end of each link, ``[gpu, direction]``, from the points that they lead to."""
        return lattice.gpu(there)

    def flights_ps(self, here: _Ints, there: _Ints, _shape: _Ints) -> NDArray[np.float64]:
        """Give the flight of each link from a point to the next, ``[gpu, direction]``, or the latency that is its own."""
        own = self.spec.link_latency_ns
        return np.full(
            np.broadcast_shapes(here.shape, there.shape)[:-1], own * 1e3 if own else self.spec.fibre_m * FIBRE_PS_PER_M
        )

    def stops(self, gpus: int, source: _Ints, destination: _Ints) -> _Ints:
        """Go axis by axis, evenly where several ways are as short."""
        return self.lattice(gpus).stops(source, destination)


@lru_cache(maxsize=64)
def _lattice(shape: tuple[int, ...], twisted: bool) -> Lattice:
    # What a lattice has worked out is kept with it, and is the same for all fabrics of a shape.
    return Lattice(shape, twisted)
