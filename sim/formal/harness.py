"""All proof harnesses are made of these: small specs, the inside of a block, counters and bounds."""

from dataclasses import replace

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring

from lightfabric.model.spec import ChipletSpec


class NarrowSpec(ChipletSpec):
    """Describes a chiplet whose flits carry one byte, to spare the solver the others, and whose replay buffer may be short.

    A replay buffer that is shorter than the round trip makes a link slower and must not make it wrong.
    """

    def _require_replay_depth(self) -> None:
        pass

    @property
    def payload_bytes(self) -> int:
        """One byte tells flits apart as well as any number."""
        return 1


SMALL = NarrowSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=2, buffer_flits=3, replay_flits=3)
"""Its buffers hold three flits, so that pointers wrap where their bits do not; its replay buffer is never full."""
SLOW = replace(SMALL, wavelengths_per_port=4, replay_flits=2)
"""It has two beats to a flit, so no two slots in a row; in its replay buffer every place is used."""
TIGHT = replace(SMALL, virtual_channels=1, buffer_flits=2, replay_flits=2)
"""It has the least with which anything can overtake, for searches from reset."""


class Inside:
    """Elaborates a block once and for good, so that what a harness reads of its state is what is proven.

    A block declares in ``state``, by name, the signals that its proofs speak of. KeyError names one that it does not
    declare, ValueError one that it does not drive: of that anything could be proven.
    """

    def __init__(self, block):
        module = block.elaborate(None)
        # A second elaboration would make other signals, and a proof would speak of those of the first.
        block.elaborate = lambda _: module
        self.submodules = module.submodules
        self._owner, self._state = type(block).__name__, getattr(block, "state", {})
        for name, signal in self._state.items():
            # What nothing drives stays as it is after reset.
            if signal not in module._driving:
                raise ValueError(f"{self._owner}.state must hold signals that the block drives, not {name}")

    def __getitem__(self, name: str) -> Signal:
        """Looks up a signal by its declared name."""
        if name not in self._state:
            raise KeyError(f"{self._owner}.state must have {name}, which a proof speaks of")
        return self._state[name]


def replaced(block, assignments) -> None:
    """Takes the inside of a block away and drives its outputs by ``assignments``, the harness's abstraction of it."""
    module = Module()
    module.d.comb += assignments
    block.elaborate = lambda _: module


def counts(m, up, down, name: str, most: int):
    """Counts how often ``up`` less how often ``down`` was 1 before this cycle, at most ``most``."""
    count = Signal(range(most + 1), name=name)
    m.d.sync += count.eq(count + up - down)
    return count


def was(m, value, name: str, init: int = 0):
    """Gives ``value`` as it was in the cycle before, and ``init`` in the first."""
    past = Signal.like(value, name=name, init=init)
    m.d.sync += past.eq(value)
    return past


def latched(m, happens, name: str):
    """Tells whether ``happens`` was 1 in any cycle before."""
    happened = Signal(name=name)
    m.d.sync += happened.eq(happened | happens)
    return happened


def within(m, most: int, waits, name: str, message: str):
    """Asserts that there are never more than ``most`` cycles in a row in which somebody ``waits``."""
    waited = Signal(range(most + 2), name=f"{name}_waited")
    m.d.sync += waited.eq(Mux(waits, waited + 1, 0))
    m.d.comb += [Assert(waited <= most, message), Cover(waited == most, f"the longest wait ({name})")]


class Harness(wiring.Component):
    """Puts blocks into an environment whose every input the solver chooses; ``_prove`` adds both, and what must hold."""

    def elaborate(self, _platform):
        """Makes the module that is proven."""
        m = Module()
        self._prove(m)
        return m
