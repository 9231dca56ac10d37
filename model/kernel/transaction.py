"""Transactions in the two timings of TLM-2.0 [IEEE 1666-2011, 11], for models of software and hosts in Python processes.

A target answers by one function, :meth:`Target.transport`, which says how long it takes until the request is accepted and
until the response begins. Loosely timed, an initiator calls it and adds the time to its own clock, which may run ahead of
the system by a quantum. Approximately timed, the same times are events of the system: the end of the request and the
beginning of the response come as callbacks, and a target that is busy accepts later.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from lightfabric.model.kernel.system import System


class Command(Enum):
    """What a transaction does."""

    READ = auto()
    WRITE = auto()


@dataclass
class Payload:
    """A transaction: ``data`` is what is written or what was read; ``is_ok`` is the target's answer."""

    command: Command
    address: int
    data: bytes = b""
    is_ok: bool = False


@dataclass(frozen=True)
class Delay:
    """Cycles from the begin of a request to its end, and from there to the begin of the response."""

    accept_cycles: int
    response_cycles: int

    @property
    def cycles(self) -> int:
        """From the begin of the request to that of the response."""
        return self.accept_cycles + self.response_cycles


class Target(Protocol):
    """Whatever answers transactions."""

    def transport(self, payload: Payload) -> Delay:
        """Do what the payload says, at once, and tell how long it takes; no other request is accepted meanwhile."""
        ...


class LooselyTimed:
    """An initiator that runs ahead of the system by up to ``quantum_cycles``: few switches of processes, less exact order.

    ``local_cycles`` is how far it is ahead. A process calls :meth:`transport` or adds cycles of its own, then says
    ``yield from initiator.sync()``, which waits only when the quantum is used up.
    """

    def __init__(self, target: Target, quantum_cycles: int) -> None:
        if quantum_cycles < 0:
            raise ValueError(f"LooselyTimed.quantum_cycles must be at least 0, not {quantum_cycles}")
        self._target, self._quantum_cycles = target, quantum_cycles
        self.local_cycles = 0

    def transport(self, payload: Payload) -> None:
        """A whole transaction; its time is added to ``local_cycles``."""
        self.local_cycles += self._target.transport(payload).cycles

    def sync(self) -> Generator[int, None, None]:
        """Let the system catch up if more than a quantum is left."""
        if self.local_cycles > self._quantum_cycles:
            wait_cycles, self.local_cycles = self.local_cycles, 0
            yield wait_cycles


Heard = Callable[[Payload], None]


class ApproximatelyTimed:
    """An initiator whose requests and responses are events; a request waits until the one before is accepted."""

    def __init__(self, system: System, target: Target) -> None:
        self._system, self._target = system, target
        self._waiting = deque[tuple[Payload, Heard, Heard]]()

    def begin(self, payload: Payload, on_response: Heard, on_accepted: Heard = lambda _: None) -> None:
        """Begin a request now: ``on_accepted`` is called when it ends, ``on_response`` when the response begins."""
        self._waiting.append((payload, on_response, on_accepted))
        if len(self._waiting) == 1:
            self._serve()

    def _serve(self) -> None:
        payload, on_response, _ = self._waiting[0]
        delay, now = self._target.transport(payload), self._system.now
        self._system.at(now + delay.accept_cycles, self._accept)
        self._system.at(now + delay.cycles, lambda: on_response(payload))

    def _accept(self) -> None:
        payload, _, on_accepted = self._waiting.popleft()
        on_accepted(payload)
        if self._waiting:
            self._serve()
