"""A bus decoder: every access reaches the page that its address names, and no other, whatever pauses on the bus."""

import random

import pytest
from amaranth import Module

from lightfabric.rtl.bus_decoder import DECERR, BusDecoder, bus_address_bits
from lightfabric.rtl.register import OKAY, SLVERR, Registers
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, Field, Register
from lightfabric.sim.bench.bench import Bench
from lightfabric.sim.bench.register import CHANNELS, Access, Master, RegisterBench

WORDS = 5
TABLE = tuple(Register(f"word_{n}", (Field(f"word_{n}", 32, "control", "A word."),), "A word.") for n in range(WORDS))
PAGE = 1 << BUS_ADDRESS_BITS


class DecoderBench:
    def __init__(self, count: int):
        m = Module()
        m.submodules.decoder = self.decoder = decoder = BusDecoder(count)
        self.pages = [Registers(TABLE) for _ in range(count)]
        for n, (page, bus) in enumerate(zip(self.pages, decoder.pages, strict=True)):
            m.submodules[f"page_{n}"] = page
            for name, member in bus.signature.members.items():
                inside, outside = getattr(page.bus, name), getattr(bus, name)
                m.d.comb += inside.eq(outside) if member.flow.name == "Out" else outside.eq(inside)
        self._bench = Bench(m)

    def run(self, accesses, pauses=None, *, together=False):
        master = Master(self.decoder.bus, accesses, pauses or {}, together)
        self._bench.run([master], lambda _: master.done, 50 * len(accesses) + 100)
        return master


@pytest.fixture(scope="module", params=[1, 3, 4])
def bench(request):
    return DecoderBench(request.param)


def expected(count: int, accesses) -> list[tuple[int, int | None]]:
    """Response and data of each access, by a dictionary."""
    words, answers = dict.fromkeys(((page, n) for page in range(count) for n in range(WORDS)), 0), []
    for access in accesses:
        where = access.address // PAGE, access.address % PAGE // 4
        response = OKAY if where in words else SLVERR if where[0] < count else DECERR
        if access.data is not None and where in words:
            mask = sum(0xFF << 8 * byte for byte in range(4) if access.strobes >> byte & 1)
            words[where] = words[where] & ~mask | access.data & mask
        answers.append((response, words.get(where, 0) if access.data is None else None))
    return answers


def some_accesses(count: int, rng: random.Random, number: int) -> list[Access]:
    pages = 1 << bus_address_bits(count) - BUS_ADDRESS_BITS
    addresses = [rng.randrange(pages) * PAGE + 4 * rng.choice([*range(WORDS), WORDS, PAGE // 4 - 1]) for _ in range(number)]
    return [Access(a, rng.getrandbits(32) if rng.random() < 0.5 else None, rng.randrange(16)) for a in addresses]


@pytest.mark.parametrize("odds", [0.0, 0.5])
def test_accesses_reach_their_page_and_no_other(bench, odds):
    rng, count = random.Random(7), len(bench.pages)
    accesses = some_accesses(count, rng, 150)
    master = bench.run(accesses, {name: lambda _: rng.random() < odds for name in CHANNELS})
    assert [(answer.response, answer.data) for answer in master.answers] == expected(count, accesses)
    assert master.changed == []


def test_reads_and_writes_at_the_same_time_are_each_answered_in_order(bench):
    """As many as the bus takes: those that read do not read what is written."""
    count = len(bench.pages)
    written = [(page, word) for page in range(count) for word in (0, 1, 2)]
    accesses = [access for page, word in written for access in (Access(page * PAGE + 4 * word, 9), Access(page * PAGE + 16))]
    accesses += [Access(page * PAGE + 4 * WORDS) for page in range(count)]
    master = bench.run(accesses, together=True)
    assert [(answer.response, answer.data) for answer in master.answers] == expected(count, accesses)


@pytest.mark.parametrize("data", [None, 5], ids=["read", "write"])
def test_an_access_takes_as_long_as_at_the_page_and_some_cycles(bench, data):
    first, last = ("ar", "r") if data is None else ("aw", "b")
    (through,) = bench.run([Access(4, data)]).answers
    (alone,) = RegisterBench(TABLE).run([Access(4, data)]).answers
    assert through.cycles[last] - through.cycles[first] - (alone.cycles[last] - alone.cycles[first]) == 4


def test_a_decoder_without_a_page_is_refused():
    with pytest.raises(ValueError, match=r"^BusDecoder\.count must be at least 1, not 0$"):
        BusDecoder(0)
