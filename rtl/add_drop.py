"""A node of a ring adds and drops wavelengths by a map, lets all others pass, and sends light past a dead neighbour.

The words of its state:

* *added*, *dropped*: wavelengths that rings of this node put on the fibre to the next node, and take off that from the one
  before; what comes and is not dropped *passes*
* *ends next*: wavelengths that are dropped by the next node; if light goes *past* that one, nobody would take them off, and
  they would go round to where the wavelength is used again, so this node *absorbs* them
* *past*: light comes from, or goes to, the neighbour after the nearest one, on a fibre of its own
* *turning*: the switch to or from that fibre has not settled, and nothing goes through this node
"""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

MAX_CYCLES = 1 << 30


def place_layout(wavelengths: int) -> data.StructLayout:
    """Lays out what a node does with a wavelength."""
    return data.StructLayout({"wavelength": (wavelengths - 1).bit_length(), "adds": 1, "drops": 1, "ends_next": 1})


class AddDropNode(wiring.Component):
    """Keeps the map of a node: which wavelengths it adds, drops and lets pass, and which way its light goes.

    ``set`` takes effect in the next cycle, or ``refused`` says that it does not: a wavelength that is added must not also
    pass, so while it comes it must be dropped, and there must be such a wavelength. Light that comes later to where one is
    added and none is dropped is a collision, which is shown and not mended: claims keep it from happening.

    When a neighbour has been dead for ``confirm_cycles``, or alive again for as long, light goes past it, or no longer, from
    ``settle_cycles`` later on. Links whose light goes through the node lose it until then: they train again and replay, so
    that no flit is lost. Those that end at the dead neighbour get no light. From reset on nothing is added or dropped, and
    neighbours are alive.

    Members
    -------
    set : In(1)
    place : In(place_layout(wavelengths))
    refused : Out(1), pulse, in the cycle after ``set``
    comes : In(wavelengths), light at the receiving side
    previous_dead, next_dead : In(1)
    added, dropped, passes : Out(wavelengths), rings that put light on the fibre and take it off, and light that goes on
    collides : Out(wavelengths)
    from_past, to_past : Out(1), of the switches at the two sides
    turning : Out(1)
    """

    def __init__(self, wavelengths: int, confirm_cycles: int, settle_cycles: int):
        if wavelengths < 2:
            raise ValueError(f"AddDropNode.wavelengths must be at least 2, not {wavelengths}")
        for name, cycles in (("confirm_cycles", confirm_cycles), ("settle_cycles", settle_cycles)):
            if not 1 <= cycles <= MAX_CYCLES:
                raise ValueError(f"AddDropNode.{name} must be from 1 to {MAX_CYCLES}, not {cycles}")
        self.wavelengths, self.confirm_cycles, self.settle_cycles = wavelengths, confirm_cycles, settle_cycles
        flags = dict.fromkeys(("refused", "from_past", "to_past", "turning"), Out(1))
        masks = dict.fromkeys(("added", "dropped", "passes", "collides"), Out(wavelengths))
        ins = {**dict.fromkeys(("set", "previous_dead", "next_dead"), In(1)), "comes": In(wavelengths)}
        super().__init__({**ins, "place": In(place_layout(wavelengths)), **flags, **masks})

    def elaborate(self, platform):
        m = Module()
        adds, drops, ends_next = (Signal(self.wavelengths, name=name) for name in ("adds", "drops", "ends_next"))
        place, wrong, absorbs, lit = self.place, Signal(), Signal(self.wavelengths), Signal(self.wavelengths)
        collides = place.adds & ~place.drops & self.comes.bit_select(place.wavelength, 1)
        m.d.comb += wrong.eq(collides | (place.wavelength >= self.wavelengths))
        m.d.sync += self.refused.eq(self.set & wrong)
        with m.If(self.set & ~wrong):
            for mask, value in ((adds, place.adds), (drops, place.drops), (ends_next, place.ends_next)):
                m.d.sync += mask.bit_select(place.wavelength, 1).eq(value)
        self._turn(m)
        m.d.comb += [
            absorbs.eq(ends_next & self.to_past.replicate(self.wavelengths)),
            lit.eq(~absorbs & (~self.turning).replicate(self.wavelengths)),
            self.dropped.eq(drops),
            self.added.eq(adds & lit),
            self.passes.eq(self.comes & ~drops & lit),
            self.collides.eq(self.added & self.passes),
        ]
        return m

    def _turn(self, m):
        """Turns the switch of a side when its neighbour is found dead, or alive; one that is in doubt is as it was."""
        settling = Signal(range(self.settle_cycles + 1))
        m.d.comb += self.turning.eq(settling != 0)
        turns = []
        for dead, past in ((self.previous_dead, self.from_past), (self.next_dead, self.to_past)):
            doubt, turn = Signal(range(self.confirm_cycles + 1)), Signal()
            m.d.comb += turn.eq((dead != past) & (doubt == self.confirm_cycles - 1))
            m.d.sync += doubt.eq(doubt + 1)
            with m.If((dead == past) | turn):
                m.d.sync += doubt.eq(0)
            with m.If(turn):
                m.d.sync += past.eq(dead)
            turns.append(turn)
        with m.If(Cat(turns).any()):
            m.d.sync += settling.eq(self.settle_cycles)
        with m.Elif(self.turning):
            m.d.sync += settling.eq(settling - 1)
