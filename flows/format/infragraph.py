"""Topologies in InfraGraph (infragraph.dev): devices of components and edges, instances of devices, and edges between them.

The schema is that of ``openapi.yaml`` in PyPI's ``infragraph`` 3.1, which is not needed here itself: it brings a server.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, Field, ValidationError

from lightfabric.flows.report import InputError, WrongError, read_bytes, shown, written_whole
from lightfabric.model.fluid.network import Network
from lightfabric.model.fluid.shortest import Topology

MAX_BYTES = 16 << 20
MAX_VERTICES, MAX_EDGES = 1 << 18, 1 << 21
MAX_DEPTH = 16
_GBPS = {"gigabits_per_second": 1.0, "gigabytes_per_second": 8.0}
_PS = {"ns": 1e3, "us": 1e6, "ms": 1e9}
_ELEMENT = re.compile(r"([^\[\].]+)(?:\[((?:-?\d{1,9})?)((?::(?:-?\d{1,9})?){0,2})\])?", re.ASCII)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Bandwidth(BaseModel):
    gigabits_per_second: Annotated[float, Field(ge=1e-3, le=1e6)] | None = None
    gigabytes_per_second: Annotated[float, Field(ge=1e-3, le=1e6)] | None = None
    gigatransfers_per_second: float | None = None


class _Latency(BaseModel):
    ns: Annotated[float, Field(ge=0, le=1e9)] | None = None
    us: Annotated[float, Field(ge=0, le=1e6)] | None = None
    ms: Annotated[float, Field(ge=0, le=1e3)] | None = None


class _Physical(BaseModel):
    bandwidth: _Bandwidth = _Bandwidth()
    latency: _Latency = _Latency()


class _Link(BaseModel):
    name: str
    physical: _Physical = _Physical()


class _Custom(BaseModel):
    type: str


class _Component(BaseModel):
    name: str
    count: Annotated[int, Field(ge=0, le=MAX_VERTICES)]
    choice: Literal["custom", "device", "cpu", "xpu", "nic", "memory", "port", "switch"]
    custom: _Custom | None = None


class _Inside(BaseModel):
    component: str
    device: str | None = None


class _Outside(BaseModel):
    component: str
    instance: str


class _Edge(BaseModel):
    link: str
    scheme: Literal["one2one", "many2many"]


class _DeviceEdge(_Edge):
    ep1: _Inside
    ep2: _Inside


class _Device(BaseModel):
    name: str
    components: list[_Component]
    links: list[_Link] = []
    edges: list[_DeviceEdge] = []


class _Instance(BaseModel):
    name: str
    device: str
    count: Annotated[int, Field(ge=0, le=MAX_VERTICES)]


class _OuterEdge(_Edge):
    ep1: _Outside
    ep2: _Outside


class _Infrastructure(BaseModel):
    devices: list[_Device]
    links: list[_Link] = []
    instances: list[_Instance]
    edges: list[_OuterEdge] = []


class _Attribute(BaseModel):
    attribute: str
    value: str


class _Node(BaseModel):
    name: str
    attributes: list[_Attribute] = []


class _Annotations(BaseModel):
    nodes: list[_Node] = []


class _Annotated(BaseModel):
    infrastructure: _Infrastructure
    annotations: _Annotations = _Annotations()


def read(path: Path, default_gbps: float) -> Topology:
    """Return the links of a file in YAML, or in JSON if its name ends so, each in both directions.

    The ranks are the components ``xpu`` in the order of instances and components, or as annotations ``rank`` of a graph
    say. A link without a bandwidth has ``default_gbps``, one without a latency adds none. InputError names what is wrong.
    """
    data = read_bytes(path, MAX_BYTES, "an InfraGraph topology")
    try:
        document = _document(data, is_json=path.suffix == ".json")
        if not isinstance(document, dict):
            raise WrongError(f"must be an object with devices and instances, not {shown(document)}")
        if "infrastructure" not in document:
            document = {"infrastructure": document}
        graph = _Annotated.model_validate(document)
        return _Expansion(graph.infrastructure).topology(graph.annotations, default_gbps)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])).removeprefix("infrastructure.")
        if first["type"] == "missing":
            raise InputError(f"{path}: {place} must be given, not left out") from None
        must_be = first["msg"].removeprefix("Input should be ")
        raise InputError(f"{path}: {place} must be {must_be}, not {shown(first['input'])}") from None
    except (WrongError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}".partition("\n")[0]) from None


def _document(data: bytes, *, is_json: bool) -> Any:
    try:
        if is_json:
            return json.loads(data)
        depth = 0
        for event in yaml.parse(data, Loader=_Loader):
            # A few aliases of aliases stand for more than any memory holds.
            if isinstance(event, yaml.AliasEvent):
                raise WrongError(f"line {event.start_mark.line + 1} must have no alias, not *{event.anchor}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise WrongError(f"line {event.start_mark.line + 1} must be at most {MAX_DEPTH} levels deep, not deeper")
        return yaml.load(data, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise WrongError(f"must be {'JSON' if is_json else 'YAML'}, not: {reason}") from None


@dataclass
class _Part:
    """A device taken apart: its vertices with their types, all components with their counts, and its edges."""

    vertices: dict[str, str] = field(default_factory=dict[str, str])
    edges: list[tuple[str, str, _Link]] = field(default_factory=list[tuple[str, str, _Link]])


class _Expansion:
    """Takes devices and instances apart into vertices and edges, as InfraGraph's own service does."""

    def __init__(self, infrastructure: _Infrastructure) -> None:
        self.infrastructure = infrastructure
        self.devices = {device.name: device for device in infrastructure.devices}
        self.instances = {instance.name: instance for instance in infrastructure.instances}
        self.counts = {
            device.name: {each.name: each.count for each in device.components} for device in infrastructure.devices
        }
        self.instance_counts = {instance.name: instance.count for instance in infrastructure.instances}
        self.nested = {
            (device.name, each.name)
            for device in infrastructure.devices
            for each in device.components
            if each.choice == "device"
        }
        self.parts = dict[str, _Part]()
        self.vertices = dict[str, str]()
        self.edges = dict[tuple[str, str], _Link]()
        self._made = [0, 0]

    def topology(self, annotations: _Annotations, default_gbps: float) -> Topology:
        """Give all of it as links, with the ranks."""
        for instance in self.infrastructure.instances:
            part = self._part(instance.device, ())
            self._require_room(instance.count * len(part.vertices), instance.count * len(part.edges))
            for number in range(instance.count):
                above = f"{instance.name}.{number}."
                self.vertices |= {above + name: kind for name, kind in part.vertices.items()}
                for a, b, link in part.edges:
                    self._join(above + a, above + b, link)
        for a, b, link in self._infrastructure_edges():
            self._join(a, b, link)
        index = {name: number for number, name in enumerate(self.vertices)}
        lost = next((end for ends in self.edges for end in ends if end not in index), None)
        if lost is not None:
            raise WrongError(f"edges must be between components that are no devices, not at {shown(lost)}")
        ends = np.array([(index[a], index[b]) for a, b in self.edges], np.int64).reshape(-1, 2)
        both = np.concatenate([ends, ends[:, ::-1]])
        gbps, latency_ps = (
            np.array([of(link) for link in self.edges.values()] * 2, np.float64)
            for of in (lambda link: _gbps(link, default_gbps), _latency_ps)
        )
        ranks = np.array([index[name] for name in self._ranks(annotations)], np.int64)
        return Topology(len(index), ranks, both[:, 0], both[:, 1], gbps * 1e9 / 8, np.rint(latency_ps).astype(np.int64))

    def _join(self, a: str, b: str, link: _Link) -> None:
        # One edge joins two vertices, however often it is listed, and the last one counts.
        self.edges[(b, a) if (b, a) in self.edges else (a, b)] = link

    def _require_room(self, vertices: int, edges: int) -> None:
        """Count what is made, parts of devices too: a few words of a file may stand for very much."""
        self._made = [self._made[0] + vertices, self._made[1] + edges]
        if self._made[0] > MAX_VERTICES or self._made[1] > MAX_EDGES:
            raise WrongError(f"devices must be of at most {MAX_VERTICES} components and {MAX_EDGES} edges in all, not more")

    def _ranks(self, annotations: _Annotations) -> list[str]:
        found = [name for name, kind in self.vertices.items() if kind == "xpu"]
        told = {node.name: each.value for node in annotations.nodes for each in node.attributes if each.attribute == "rank"}
        if told:
            by_rank = {int(value) if value.isdecimal() and len(value) < 9 else -1: name for name, value in told.items()}
            if sorted(by_rank) != list(range(len(told))) or not set(told) <= set(self.vertices):
                raise WrongError(f"annotations.nodes must have ranks 0 to {len(told) - 1} on components, not {shown(told)}")
            found = [by_rank[rank] for rank in range(len(told))]
        if not found:
            raise WrongError("devices must have a component of choice xpu in an instance, not none")
        return found

    def _part(self, name: str, above: tuple[str, ...]) -> _Part:
        if name in above:
            raise WrongError(f"device {name!r} must be no part of itself, as it is in {' in '.join(above)}")
        if name not in self.parts:
            part = self.parts[name] = _Part()
            device = self._device(name)
            for component in device.components:
                nested = self._part(component.name, (*above, name)) if component.choice == "device" else None
                vertices, edges = (len(nested.vertices), len(nested.edges)) if nested else (1, 0)
                self._require_room(component.count * vertices, component.count * edges)
                kind = component.custom.type if component.choice == "custom" and component.custom else component.choice
                for number in range(component.count):
                    own = f"{component.name}.{number}"
                    part.vertices |= {f"{own}.{k}": v for k, v in nested.vertices.items()} if nested else {own: kind}
                    part.edges += [(f"{own}.{a}", f"{own}.{b}", link) for a, b, link in nested.edges] if nested else []
            links = {link.name: link for link in device.links}
            for number, edge in enumerate(device.edges):
                where = f"device {name!r}: edge {number}"
                a, b = (self._inside(where, name, each) for each in (edge.ep1, edge.ep2))
                part.edges += self._edges(where, edge, a, b, links)
        return self.parts[name]

    def _device(self, name: str) -> _Device:
        if name not in self.devices:
            raise WrongError(f"devices must have one of each name that is used, not none named {shown(name)}")
        return self.devices[name]

    def _inside(self, where: str, device: str, end: _Inside) -> list[str]:
        """Vertices of a device that an end stands for, such as ``cx5[0:2].port[0]``."""
        found = [""]
        for element in f"{end.device}.{end.component}".split(".") if end.device else end.component.split("."):
            name, numbers = self._numbers(where, element, self.counts[device])
            self._require_room(0, len(found) * len(numbers))
            found = [f"{before}{name}.{number}." for before in found for number in numbers]
            device = name if (device, name) in self.nested else device
        return [name.removesuffix(".") for name in found]

    @staticmethod
    def _numbers(where: str, element: str, counts: dict[str, int]) -> tuple[str, list[int]]:
        """A name and the numbers that are meant by its slice, all of them without one."""
        match = _ELEMENT.fullmatch(element)
        if not match or match[1] not in counts:
            raise WrongError(f"{where} must name one of {', '.join(list(counts)[:8])} with numbers, not {shown(element)}")
        count = counts[match[1]]
        if match[2] and not match[3]:
            numbers = [int(match[2]) + (count if int(match[2]) < 0 else 0)]
            if not 0 <= numbers[0] < count:
                raise WrongError(f"{where} must be of the {count} that there are, not {shown(element)}")
            return match[1], numbers
        bounds = [int(part) if part else None for part in f"{match[2] or ''}{match[3] or ''}".split(":")]
        if bounds[2:] == [0]:
            raise WrongError(f"{where} must have a step other than 0, not {shown(element)}")
        return match[1], list(range(*slice(*bounds if len(bounds) > 1 else (None,)).indices(count)))

    def _infrastructure_edges(self) -> Iterator[tuple[str, str, _Link]]:
        links = {link.name: link for link in self.infrastructure.links}
        for number, edge in enumerate(self.infrastructure.edges):
            where = f"edge {number}"
            a, b = (self._between(where, each) for each in (edge.ep1, edge.ep2))
            yield from self._edges(where, edge, a, b, links)

    def _between(self, where: str, end: _Outside) -> list[str]:
        name, numbers = self._numbers(where, end.instance, self.instance_counts)
        inside = self._inside(where, self.instances[name].device, _Inside(component=end.component))
        self._require_room(0, len(numbers) * len(inside))
        return [f"{name}.{number}.{each}" for number, each in product(numbers, inside)]

    def _edges(
        self, where: str, edge: _Edge, ends: list[str], others: list[str], links: dict[str, _Link]
    ) -> list[tuple[str, str, _Link]]:
        if edge.link not in links:
            raise WrongError(
                f"{where}.link must be one of {', '.join(list(links)[:8]) or 'the links'}, not {shown(edge.link)}"
            )
        many = edge.scheme == "many2many"
        self._require_room(0, len(ends) * len(others) if many else 0)
        pairs = product(ends, others) if many else zip(ends, others, strict=False)
        return [(a, b, links[edge.link]) for a, b in pairs if a != b]


def write(path: Path, network: Network) -> None:
    """Write the links of a network as JSON if the name ends so, else as YAML; the first ``devices`` vertices are xpus.

    A link and the one back are an edge, each with the mean of their latencies, so that a way there and back is as long as
    it was. ValueError if they differ in rate or one is missing, which InfraGraph cannot say.
    """
    columns = network.link_source, network.link_destination, network.bytes_per_s, network.latency_ps
    directed = {(a, b): (rate, latency) for a, b, rate, latency in zip(*(each.tolist() for each in columns), strict=True)}
    names, edges = dict[tuple[float, float], str](), list[dict[str, Any]]()
    for (a, b), (rate, latency) in directed.items():
        back = directed.get((b, a))
        if a == b or back is None or back[0] != rate or len(directed) < len(network.link_source):
            raise ValueError(f"links must be one each way of one rate to be written as InfraGraph, not from {a} to {b}")
        if a < b:
            name = names.setdefault((rate, (latency + back[1]) / 2), f"link-{len(names)}")
            ep1, ep2 = (_end(end, network.devices) for end in (a, b))
            edges.append({"ep1": ep1, "ep2": ep2, "scheme": "one2one", "link": name})
    switches = max(map(max, directed), default=-1) + 1 - network.devices
    counts = {"gpu": ("xpu", network.devices)} | ({"switch": ("switch", switches)} if switches > 0 else {})
    document = {
        "name": "lightfabric",
        "devices": [
            {"name": name, "components": [{"name": kind, "count": 1, "choice": kind}], "links": [], "edges": []}
            for name, (kind, _) in counts.items()
        ],
        "links": [{"name": name, "physical": _physical(rate, ps)} for (rate, ps), name in names.items()],
        "instances": [{"name": name, "device": name, "count": count} for name, (_, count) in counts.items()],
        "edges": edges,
    }
    with written_whole(path) as beside:
        text = json.dumps(document, indent=1) if path.suffix == ".json" else yaml.safe_dump(document, sort_keys=False)
        beside.write_text(text, encoding="utf-8")


def _end(vertex: int, devices: int) -> dict[str, str]:
    if vertex < devices:
        return {"instance": f"gpu[{vertex}]", "component": "xpu[0]"}
    return {"instance": f"switch[{vertex - devices}]", "component": "switch[0]"}


def _physical(bytes_per_s: float, ps: float) -> dict[str, Any]:
    return {
        "bandwidth": {"choice": "gigabits_per_second", "gigabits_per_second": bytes_per_s * 8 / 1e9},
        "latency": {"choice": "ns", "ns": ps / 1e3},
    }


def _gbps(link: _Link, default: float) -> float:
    """The only bandwidth that a link has."""
    given = link.physical.bandwidth.model_dump(exclude_none=True)
    if not given:
        return default
    ((unit, value),) = list(given.items())[:1] if len(given) == 1 else [("", 0.0)]
    if unit not in _GBPS:
        must_be = "one bandwidth in gigabits_per_second or gigabytes_per_second"
        raise WrongError(f"link {link.name!r} must have {must_be}, not {', '.join(given)}")
    return value * _GBPS[unit]


def _latency_ps(link: _Link) -> float:
    given = link.physical.latency.model_dump(exclude_none=True)
    if len(given) > 1:
        raise WrongError(f"link {link.name!r} must have one latency, not {', '.join(given)}")
    return sum(value * _PS[unit] for unit, value in given.items())
