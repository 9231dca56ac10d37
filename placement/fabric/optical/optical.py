"""What optical fabrics share: circuits for the traffic at hand, and what they give each part of it."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair, joined, pair_keys
from lightfabric.model.fabric.optical import optical as model
from lightfabric.model.task import Part, TaskGraph
from lightfabric.placement.circuit.assign import permutations
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.fabric.fabric import Fabric, most_moved, rate_of
from lightfabric.placement.graph.reconfiguration import in_configurations, with_turns
from lightfabric.placement.mapping.traffic import CONTEXT, DATA, EXCHANGE, PIPELINE, TENSOR, Traffic, in_rings
from lightfabric.placement.plan import Plan

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad

_ALL = (TENSOR, PIPELINE, DATA, EXCHANGE)
_PARTS = {
    "never": (_ALL,),
    "phase": ((TENSOR, PIPELINE, EXCHANGE), (DATA,)),
    "collective": ((TENSOR, EXCHANGE), (PIPELINE,), (DATA,)),
    "inside": ((TENSOR,), (EXCHANGE,), (PIPELINE,), (DATA,)),
    "periodic": ((TENSOR,), (EXCHANGE,), (PIPELINE,), (DATA,)),
}
"""Parts of the traffic that share a configuration. A task stands for all sums, or exchanges, of the layers of a pass, which
alternate, so these share one unless ports turn inside of layers."""


class Optical(model.Optical, Fabric):
    """A fabric of circuits, whose lanes are shared among the pairs that talk at the same time."""

    @abstractmethod
    def assign(self, gpus: int, demand_bytes: dict[Pair, int], first: Collection[Pair] = ()) -> Circuits:
        """Circuits for all pairs with a demand, those that come ``first`` before others if not all can have their own.

        ValueError with what is needed and what there is if there are too few.
        """

    def preferences(self, dealt: Traffic) -> list[Collection[Pair]]:
        """Choices of pairs that come first."""
        return [()]

    def hops(self, placed: Traffic, gpus: int) -> NDArray[np.int64] | int:
        """Lengths of fibre on which a wavelength of each pair cannot be used by others."""
        return 1

    @property
    def partners(self) -> int:
        """GPUs to which one has circuits at most."""
        return self.chiplet.ports

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The parts of traffic that share circuits; the next ones have others."""
        return _PARTS[self.spec.reconfigure]

    def rate_options(self, plan: Plan, placed: Traffic) -> list[tuple[Rates, Circuits | None]]:
        """All ways to share circuits, of each configuration, which is chosen for its own traffic alone.

        Ports that turn inside of an exchange do so with each number of partners at a time, or not at all.
        """
        exchange, policy = self.lit(placed).of(EXCHANGE), self.spec.reconfigure
        turns, whole = policy in ("inside", "periodic") and len(exchange.part) > 0, dict[Pair, int]()
        ways = (
            [(self.parts, steps) for steps in _cuts(exchange, plan.gpus, self.partners)] if turns else [(self.parts, whole)]
        )
        if turns and policy == "inside":
            ways.append((_PARTS["collective"], whole))
        return [option for parts, steps in ways for option in self._options(plan, placed, parts, steps)]

    def _options(
        self, plan: Plan, placed: Traffic, parts: tuple[tuple[int, ...], ...], steps: dict[Pair, int]
    ) -> Iterator[tuple[Rates, Circuits]]:
        used = [own for own in parts if np.isin(self.lit(placed).phase, own).any()] or [_ALL]
        first = np.cumsum([0, *(1 + max(steps.values(), default=0) * (EXCHANGE in own) for own in used)]).tolist()
        of_part = [next((first[n] for n, own in enumerate(used) if part in own), 0) for part in range(len(Part))]
        of_part[CONTEXT] = of_part[EXCHANGE]
        of_part = tuple(of_part)
        of_flow = Circuits({}, {}, of_part, steps).configuration_of(placed.part, placed.source, placed.destination)
        each = [placed[of_flow == n] for n in range(first[-1])]
        dealt = [in_rings(flows, self.rings, plan.gpus) for flows in each]
        ways = [
            [(self.circuit_rates(way, flows, in_ring, plan.gpus), way) for way in self.ways(plan.gpus, in_ring)]
            for flows, in_ring in zip(each, dealt, strict=True)
        ]
        moved = [most_moved(flows.at_once(EXCHANGE), EXCHANGE) for flows in each]
        by_clock = self.spec.reconfigure == "periodic" and len(each) > 1
        share = self.spec.duty / (1 + self.spec.duty) / len(each) if by_clock else 1.0
        # Steps would have too many ways together, and each of them has as many bytes for all of its pairs.
        for chosen in product(*(own[:1] if steps else own for own in ways)):
            # What a configuration does not carry it carries at an infinite rate.
            rates = np.min([(rate.tensor, rate.pipeline, rate.data, rate.expert) for rate, _ in chosen], axis=0)
            seconds = [size / rate.expert for size, (rate, _) in zip(moved, chosen, strict=True) if size]
            # Steps of an exchange follow each other, but by the clock those of the next one are lit before it has ended.
            together = max(seconds, default=0.0) if by_clock else sum(seconds)
            rates[-1] = rate_of(most_moved(placed.at_once(EXCHANGE), EXCHANGE), together)
            yield Rates(*(share * rates).tolist()), joined([way for _, way in chosen], of_part, plan.gpus, steps)

    def lit(self, placed: Traffic) -> Traffic:
        """The traffic that is on circuits."""
        return placed

    def ways(self, gpus: int, flows: Traffic) -> list[Circuits]:
        """Circuits shared by demand, and by the weight that minimises the sum of the parts' times: sqrt(bytes / hops)."""
        # Circuits are handed out by whole numbers, and the factor keeps the roots apart when they are rounded.
        root = np.rint(1000 * np.sqrt(flows.size_bytes / self.hops(flows, gpus))).astype(np.int64)
        demands = [_summed(flows, weight) for weight in (flows.size_bytes, root)]
        found, reasons = list[Circuits](), list[ValueError]()
        for first, demand in product(self.preferences(flows), demands):
            try:
                found.append(self.assign(gpus, demand, first))
            except ValueError as error:
                reasons.append(error)
        if not found:
            raise reasons[0]
        return found

    def reconfigured(self, graph: TaskGraph, circuits: Circuits | None) -> TaskGraph:
        """Turn ports between configurations: those of the passes first, or as traffic would begin undelayed.

        Those that turn by the clock do so without any task.
        """
        if circuits is None or circuits.configurations == 1:
            return graph
        moved = in_configurations(graph, circuits)
        if self.spec.reconfigure == "periodic":
            return moved
        begin = moved.device.astype(np.int64) // graph.devices
        if self.spec.reconfigure != "phase":
            from lightfabric.model.fluid.engine import run

            begin = run(moved, self.network(moved.devices, moved.demand_bytes(), circuits)).start_ps
        dark_ps = self.dark_ps(graph.devices, circuits)
        return with_turns(moved, circuits, dark_ps, begin, as_one=self.turns_as_one)

    def reconfiguration_seconds(
        self, found: Prediction, placed: Traffic, circuits: Circuits | None, micro_batches: float
    ) -> float:
        """Once for gradients, and back behind the optimiser; between stages behind the passes that come next.

        And between the steps of each exchange. Where ports turn by the clock the rates know of it.
        """
        if circuits is None or circuits.configurations == 1 or self.spec.reconfigure == "periodic":
            return 0.0
        plan = found.plan
        assert plan is not None, "it is of one plan"
        dark, of_part = self.dark_ps(plan.gpus, circuits) / 1e12, circuits.of_part
        seconds, passes = 0.0, 2 * micro_batches * plan.virtual_stages
        if of_part[DATA]:
            # Ports may turn in the last pass if none of its layers sends by light; it takes less than two mean passes.
            in_pass = not np.isin(self.lit(placed).phase, (TENSOR, EXCHANGE)).any()
            hidden = 2 * found.compute / passes if in_pass else found.beside
            seconds += max(dark - hidden, 0.0) + max(dark - found.optimiser, 0.0)
        if of_part[EXCHANGE] or circuits.steps:
            sums = of_part[EXCHANGE] > 0 and bool((self.lit(placed).part == TENSOR).any())
            seconds += found.exchanges * dark * (max(circuits.steps.values(), default=0) + sums)
        if of_part[PIPELINE]:
            # On the way through all stages a message waits for the ports before it goes on.
            seconds += 2 * (plan.pp - 1) * dark + max(passes * 2 * dark - found.compute, 0.0)
        return seconds

    def relayed(
        self,
        gpus: int,
        source: NDArray[np.int64],
        destination: NDArray[np.int64],
        circuits: Circuits | None,
    ) -> list[NDArray[np.int64]]:
        """The stops of circuits that do not change, if all pairs have them and some are relayed."""
        if circuits is None or circuits.configurations > 1:
            return []
        paths = [circuits.stops.get(pair, ()) for pair in zip(source.tolist(), destination.tolist(), strict=True)]
        size = np.array([len(path) for path in paths], np.int64)
        most = int(size.max())
        if most <= 2 or not size.all():
            return []
        stops = np.full((len(paths), most), -1)
        stops[np.arange(most) < size[:, None]] = np.fromiter(chain.from_iterable(paths), np.int64)
        return [stops]

    def with_ways(self, gpus: int, circuits: Circuits | None, pairs: Iterable[Pair]) -> Circuits | None:
        """Circuits with ways for neighbours that had nothing to say to each other; ValueError if they have no circuit."""
        assert circuits is not None, "light has circuits"
        new = {pair: pair for pair in pairs if pair not in circuits.stops}
        if not new.keys() <= circuits.lanes.keys():
            raise ValueError("circuits must be there between all neighbours")
        return replace(circuits, stops={**circuits.stops, **new})

    def lane_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the lanes carry in the configuration in which one carries most."""
        if circuits.configurations == 1:
            return self.own_load(gpus, circuits, placed)
        of_flow = circuits.configuration_of(placed.part, placed.source, placed.destination)
        each = range(circuits.configurations)
        loads = [self.own_load(gpus, circuits.only(number, gpus), placed[of_flow == number]) for number in each]
        return max(loads, key=lambda load: load.most_bytes)

    @abstractmethod
    def own_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the lanes of circuits of a single configuration carry."""

    def circuit_rates(self, circuits: Circuits, placed: Traffic, dealt: Traffic, gpus: int) -> Rates:
        """Rate of each part alone on circuits: what the slowest of its pairs gets, shared with pairs relayed over it.

        It is the rate at which what is ``placed`` is moved, by the rings that it is ``dealt`` out to.
        """
        rates: list[float] = []
        for part in (TENSOR, PIPELINE, DATA, EXCHANGE):
            # What goes to experts and what comes back alternate, so an exchange never shares circuits with its own way back.
            flows, own = ((each.at_once(part) if part == EXCHANGE else each.of(part)) for each in (dealt, placed))
            moved = most_moved(own, part) if part in (DATA, EXCHANGE) else _most_of_pair(own)
            rates.append(rate_of(moved, self.seconds(circuits, flows, gpus)))
        return Rates(*rates)

    def seconds(self, circuits: Circuits, flows: Traffic, gpus: int) -> float:
        """Time of the slowest circuit."""
        legs, size = circuits.legs, np.zeros(len(circuits.stops))
        np.add.at(size, np.searchsorted(legs.pair_key, pair_keys(flows.source, flows.destination)), flows.size_bytes)
        load = np.bincount(legs.circuit, size[legs.pair], len(circuits.lanes))
        lanes, (source, destination) = np.array(list(circuits.lanes.values())) / self.lanes_per_port, circuits.ends
        return float((load / (lanes * self.ports_bytes_per_s(self.lengths_m(source, destination, gpus)))).max(initial=0.0))


def _most_of_pair(flows: Traffic) -> int:
    """Bytes of the pair that sends most."""
    _, pair = np.unique(pair_keys(flows.source, flows.destination), return_inverse=True)
    return int(np.bincount(pair, flows.size_bytes).max(initial=0))


def _cuts(exchange: Traffic, gpus: int, ports: int) -> list[dict[Pair, int]]:
    """Cut an exchange into steps of at most as many partners of a GPU as it has ports, half of them, and so on to one.

    Partners are taken in the order in which they follow the GPU, so that each is another's in a step; where they are not, by
    matchings of a colouring [Koenig 1916].
    """
    key = np.unique(exchange.source.astype(np.int64) * gpus + exchange.destination)
    source, destination = key // gpus, key % gpus
    order = np.lexsort(((destination - source) % gpus, source))
    source, destination = source[order], destination[order]
    turn = np.arange(len(source)) - np.searchsorted(source, source)
    pairs = list(zip(source.tolist(), destination.tolist(), strict=True))
    if len(np.unique(turn * gpus + destination)) < len(turn):
        most = max(int(np.bincount(end).max()) for end in (source, destination))
        to = permutations(Circuits(dict.fromkeys(pairs, 1), {}), gpus, most)
        turn = (to[:, source] == destination).argmax(axis=0)
    last = int(turn.max(initial=0))
    widths = [ports >> halved for halved in range(ports.bit_length()) if ports >> halved <= last]
    whole: list[dict[Pair, int]] = [{}] if last < ports else []
    return whole + [dict(zip(pairs, (turn // width).tolist(), strict=True)) for width in widths]


def demand_of(placed: Traffic) -> dict[Pair, int]:
    """Bytes of each pair of GPUs."""
    return _summed(placed, placed.size_bytes)


def _summed(placed: Traffic, weight: NDArray[np.int64]) -> dict[Pair, int]:
    total: dict[Pair, int] = {}
    for source, destination, each in zip(placed.source.tolist(), placed.destination.tolist(), weight.tolist(), strict=True):
        total[source, destination] = total.get((source, destination), 0) + each
    return total
