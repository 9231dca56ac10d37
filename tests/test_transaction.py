"""Transactions in both timings of TLM-2.0 against the same closed form."""

import pytest

from lightfabric.model.kernel.block import Module
from lightfabric.model.kernel.system import System
from lightfabric.model.kernel.transaction import ApproximatelyTimed, Command, Delay, LooselyTimed, Payload

WRITES = [Payload(Command.WRITE, address, bytes([address])) for address in range(6)]
READS = [Payload(Command.READ, address) for address in range(6)]


class Memory:
    """Accepts in 2 cycles, answers a write in 3 and a read in 7 more."""

    def __init__(self):
        self.content = {}

    def transport(self, payload):
        if payload.command is Command.WRITE:
            self.content[payload.address] = payload.data
        else:
            payload.data = self.content[payload.address]
        payload.is_ok = True
        return Delay(2, 3 if payload.command is Command.WRITE else 7)


def loosely_timed(quantum_cycles):
    """When each transaction of a process ends, in its own time, and how often the process waited."""
    system, memory, ends, waits = System(Module()), Memory(), [], []

    def process():
        initiator = LooselyTimed(memory, quantum_cycles)
        for payload in [*WRITES, *READS]:
            initiator.transport(payload)
            ends.append(system.now + initiator.local_cycles)
            for cycles in initiator.sync():
                waits.append(cycles)
                yield cycles

    system.start(process())
    system.run_to_idle()
    return ends, waits


CLOSED_FORM = [5 * (n + 1) for n in range(6)] + [30 + 9 * (n + 1) for n in range(6)]


@pytest.mark.parametrize("quantum_cycles", [0, 1, 20, 1000])
def test_a_quantum_changes_how_often_a_process_waits_and_not_when_things_end(quantum_cycles):
    ends, waits = loosely_timed(quantum_cycles)
    assert ends == CLOSED_FORM
    assert [payload.data for payload in READS] == [bytes([n]) for n in range(6)]
    assert len(waits) == {0: 12, 1: 12, 20: 3, 1000: 0}[quantum_cycles]


def test_one_after_the_other_both_timings_agree():
    system, ends = System(Module()), []
    initiator, left = ApproximatelyTimed(system, Memory()), [*WRITES, *READS]

    def go_on(_=None):
        if _ is not None:
            ends.append(system.now)
        if left:
            initiator.begin(left.pop(0), go_on)

    system.at(0, go_on)
    system.run_to_idle()
    assert ends == CLOSED_FORM


def test_requests_begun_at_once_are_accepted_in_turn_and_their_responses_overlap():
    system, accepted, ended = System(Module()), [], []
    initiator = ApproximatelyTimed(system, Memory())

    def begin():
        for payload in WRITES[:4]:
            initiator.begin(
                payload, lambda p: ended.append((system.now, p.address)), lambda p: accepted.append((system.now, p.address))
            )

    system.at(10, begin)
    system.run_to_idle()
    assert accepted == [(12, 0), (14, 1), (16, 2), (18, 3)]
    assert ended == [(15, 0), (17, 1), (19, 2), (21, 3)]


def test_a_quantum_below_zero_is_named():
    with pytest.raises(ValueError, match=r"^LooselyTimed.quantum_cycles must be at least 0, not -1$"):
        LooselyTimed(Memory(), -1)
