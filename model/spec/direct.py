"""Direct fabrics, whose GPUs are joined to each other and relay traffic, are described here, a spec per kind."""

from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import (
    FORBID,
    SpecError,
    require,
    require_between,
    require_counts,
    require_name,
    require_positive,
)

MAX_AXIS = 1 << 17
MAX_AXES = 6
MAX_BALANCED = 1 << 11
"""Routes of all pairs of so many GPUs are balanced together in a minute."""


def _require_grid(spec: Any, unit: int = 1) -> None:
    """Raise SpecError unless ``shape`` or ``dimensions`` make a grid whose axes are multiples of ``unit``."""
    require_name(spec)
    require_between(spec, 1, MAX_AXES, "dimensions")
    require_positive(spec, "fibre_m")
    if spec.shape:
        require_counts(spec, "shape", 1, MAX_AXES, MAX_AXIS)
        require(spec, "shape", prod(spec.shape) > 1, "of more than one GPU")
        require(spec, "shape", all(length % unit == 0 for length in spec.shape), f"lengths that {unit} divides")


def _require_own(spec: Any, *latencies: str) -> None:
    """Raise SpecError unless the rate and the latencies of links are all given, or all left out."""
    names = ("link_gbps", *latencies)
    given = [name for name in names if getattr(spec, name) is not None]
    require_positive(spec, *given)
    # A rate without a latency would be half a chiplet's link and half another one's.
    for name in names:
        require(spec, name, len(given) in (0, len(names)), f"given with {', '.join(names)}, or left out with them")


@dataclass(frozen=True, kw_only=True)
class GridLinks:
    """Describes a grid of GPUs closed along each axis, the last axis of ``shape`` counting up first.

    Without a shape that of each count of GPUs is the one of ``dimensions`` axes whose longest is shortest. A link is a group
    of the chiplet's ports, the same number for each of the two per axis, over ``fibre_m``; or it carries ``link_gbps`` of
    payload.
    """

    shape: tuple[int, ...] = ()
    dimensions: int = 3
    fibre_m: float = 2.0
    link_gbps: float | None = None


@dataclass(frozen=True)
class TorusSpec(GridLinks):
    """Describes a torus; traffic goes axis by axis, relayed by the GPUs in between.

    ``link_latency_ns``, given with ``link_gbps``, is that from a GPU to the next, relay included.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["torus"]
    link_latency_ns: float | None = None

    def __post_init__(self) -> None:
        _require_grid(self)
        _require_own(self, "link_latency_ns")


@dataclass(frozen=True)
class TwistedTorusSpec(GridLinks):
    """Describes a torus in which the way round an axis ends half of each longer axis further [TPUv4, ISCA 2023].

    On 4x4x8 that shifts both short axes by 4, on 4x8x8 the short one by 4 and 4. Fields are those of a torus.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["twisted-torus"]
    link_latency_ns: float | None = None

    def __post_init__(self) -> None:
        _require_grid(self)
        _require_own(self, "link_latency_ns")


@dataclass(frozen=True)
class CubeTorusSpec(GridLinks):
    """Describes cubes of ``cube_edge`` GPUs along each axis, which optical circuit switches join [TPUv4, ISCA 2023].

    Links inside a cube are electrical, over ``cable_m``; those between cubes and round the axes are optical, of ``fibre_m``
    to the switch and from it. ``cabling`` says what the switches make of a slice; ``permutations`` in its place can make
    anything: for each switch a list of all cubes, the one whose - face is joined to the + face of each. There is a switch
    for each axis and place on a face, places first; ``lightfabric topology`` finds good ones. Other fields are those of a
    torus.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["cube-torus"]
    cabling: Literal["torus", "twisted-torus"] = "torus"
    permutations: tuple[tuple[int, ...], ...] = ()
    cube_edge: int = 4
    cable_m: float = 1.0
    fibre_m: float = field(default=20.0, kw_only=True)
    electrical_latency_ns: float | None = None
    optical_latency_ns: float | None = None

    def __post_init__(self) -> None:
        require_between(self, 1, 1 << 8, "cube_edge")
        _require_grid(self, self.cube_edge)
        require_positive(self, "cable_m")
        _require_own(self, "electrical_latency_ns", "optical_latency_ns")
        if self.permutations:
            self._require_permutations()

    def _require_permutations(self) -> None:
        axes, gpus = len(self.shape), prod(self.shape)
        require(self, "shape", axes > 0 and gpus <= MAX_BALANCED, f"of at most {MAX_BALANCED} GPUs beside permutations")
        require(self, "cube_edge", self.cube_edge > 1, "at least 2 beside permutations")
        switches, cubes = axes * self.cube_edge ** (axes - 1), list(range(gpus // self.cube_edge**axes))
        wrong = next((each for each in self.permutations if sorted(each) != cubes), ())
        if wrong or len(self.permutations) != switches:
            must_be = f"a permutation of cubes 0 to {cubes[-1]} for each of {switches} switches"
            raise SpecError("CubeTorusSpec", "permutations", must_be, f"{list(wrong) or len(self.permutations)}")


@dataclass(frozen=True)
class CustomSpec:
    """Describes any topology by its ``links``, which lead both ways; the first ``gpus`` vertices are GPUs, others switches.

    A link is ``[a, b, gbps, ns]``, with the payload that it carries each way and the latency to the next vertex, relay
    included; or ``[a, b]``, a group of the chiplet's ports over ``fibre_m``, as many as each of the GPU with most links can
    have. A job on fewer GPUs runs on the first. In a spec file ``file`` names an InfraGraph topology to take them from.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["custom"]
    gpus: int
    links: tuple[tuple[float, ...], ...]
    fibre_m: float = 2.0

    MAX_VERTICES: ClassVar[int] = MAX_BALANCED

    def __post_init__(self) -> None:
        require_name(self)
        require_between(self, 2, self.MAX_VERTICES, "gpus")
        require_positive(self, "fibre_m")
        lengths = {len(link) for link in self.links}
        if lengths not in ({2}, {4}):
            self._refuse("all of two vertices, or all of two with gbps and ns", self.links and self.links[0])
        seen = set[frozenset[float]]()
        for link in self.links:
            ends = frozenset(link[:2])
            if len(ends) < 2 or ends in seen or any(not 0 <= end < self.MAX_VERTICES or end % 1 for end in ends):
                self._refuse(f"between different vertices from 0 to {self.MAX_VERTICES - 1}, a pair once", link)
            if not all(value > 0 for value in link[2:3]) or not all(value >= 0 for value in link[3:]):
                self._refuse("of gbps above 0 and ns of at least 0", link)
            if len(link) == 2 and max(ends) >= self.gpus:
                self._refuse("with gbps and ns at switches, which have no chiplet's ports", link)
            seen.add(ends)

    def _refuse(self, must_be: str, value: object) -> None:
        raise SpecError("CustomSpec", "links", must_be, repr(value))
