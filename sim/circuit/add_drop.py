"""The bench of the add-drop node is a ring of them, through which light goes on by what they say of themselves."""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth import Module

from lightfabric.rtl.add_drop import AddDropNode
from lightfabric.sim.bench.bench import Bench

Light = dict[tuple[int, int], set[int]]
"""(node, wavelength) -> the nodes whose light of it comes there."""


@dataclass(frozen=True)
class Place:
    """Holds a ``set`` of a node: what it is to do with a wavelength, in which cycle."""

    cycle: int
    node: int
    wavelength: int
    adds: int = 0
    drops: int = 0
    ends_next: int = 0


@dataclass
class RingRun:
    """Holds, for each cycle, the light that came to each node, and what was dropped where; then refusals and collisions."""

    light: list[Light]
    dropped: list[Light]
    refused: list[tuple[int, int]]
    collided: int = 0


class RingBench:
    """Holds a ring of nodes, elaborated once; each fibre leads to the next node, and each second one past it."""

    def __init__(self, nodes: int, wavelengths: int, confirm_cycles: int, settle_cycles: int):
        m = Module()
        self._nodes = [AddDropNode(wavelengths, confirm_cycles, settle_cycles) for _ in range(nodes)]
        for number, node in enumerate(self._nodes):
            m.submodules[f"node_{number}"] = node
        self._wavelengths, self._bench = wavelengths, Bench(m)

    def run(self, places: list[Place], dead: Callable[[int, int], bool], cycles: int) -> RingRun:
        """Run for so many cycles; ``dead(cycle, node)`` nodes neither add, drop nor pass anything."""
        run, nodes, count = RingRun([], [], []), self._nodes, len(self._nodes)
        names = ("added", "dropped", "passes", "turning", "from_past", "to_past", "refused", "collides")

        class Fibres:
            samples = tuple(getattr(node, name) for node in nodes for name in names)

            def step(self, ctx, cycle, *values):
                told = [dict(zip(names, values[n * 8 : n * 8 + 8], strict=True)) for n in range(count)]
                for n, node in enumerate(nodes):
                    now = [place for place in places if (place.cycle, place.node) == (cycle, n)]
                    ctx.set(node.set, bool(now))
                    if now:
                        words = {name: getattr(now[0], name) for name in ("wavelength", "adds", "drops", "ends_next")}
                        ctx.set(node.place, words)
                    ctx.set(node.previous_dead, dead(cycle, (n - 1) % count))
                    ctx.set(node.next_dead, dead(cycle, (n + 1) % count))
                if cycle:
                    bench_light(told, cycle - 1, ctx)

        def bench_light(told, cycle, ctx):
            light: Light = {}
            dropped: Light = {}
            for n in range(count):
                if told[n]["refused"]:
                    run.refused.append((cycle, n))
                run.collided += told[n]["collides"] != 0
            for n in range(count):
                for wavelength in range(self._wavelengths):
                    if told[n]["added"] >> wavelength & 1 and not dead(cycle, n):
                        self._lead(told, cycle, n, wavelength, dead, light, dropped)
            for n, node in enumerate(nodes):
                ctx.set(node.comes, sum(1 << w for w in range(self._wavelengths) if light.get((n, w))))
            run.light.append(light)
            run.dropped.append(dropped)

        self._bench.run([Fibres()], lambda cycle: cycle >= cycles, cycles + 1)
        return run

    def _lead(self, told, cycle, source, wavelength, dead, light: Light, dropped: Light) -> None:
        """Lead light from its source on until it is dropped, goes out, or has been all the way round."""
        here, count = source, len(told)
        for _ in range(count):
            if told[here]["turning"]:
                return
            past = told[here]["to_past"]
            there = (here + 1 + past) % count
            # A receiver listens to one of its two fibres.
            if dead(cycle, there) or told[there]["from_past"] != past:
                return
            light.setdefault((there, wavelength), set()).add(source)
            if told[there]["dropped"] >> wavelength & 1:
                dropped.setdefault((there, wavelength), set()).add(source)
                return
            if not told[there]["passes"] >> wavelength & 1:
                return
            here = there
