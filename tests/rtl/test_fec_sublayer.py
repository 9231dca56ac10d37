"""Error correction between words and lanes: units against an independent encoder, and words back from wrong units."""

import random
from itertools import groupby, pairwise

import pytest
from amaranth import Module, Signal
from reedsolo import RSCodec

from lightfabric.model.cycle.slot import beat_cycle
from lightfabric.model.spec import FEC_CODES, ChipletSpec
from lightfabric.rtl.fec.sublayer import FecDecoder, FecEncoder, seed
from lightfabric.sim.bench.simulator import simulator

SPECS = {
    "a codeword per beat": ChipletSpec(wavelengths_per_port=16, reach_m=1.0, fec="light"),
    "two beats": ChipletSpec(wavelengths_per_port=8, flit_bytes=64, reach_m=1.0, fec="light"),
    "one lane": ChipletSpec(wavelengths_per_port=1, flit_bytes=64, reach_m=1.0, fec="light", core_clock_mhz=900.0),
    "two abreast": ChipletSpec(wavelengths_per_port=32, flit_bytes=256, reach_m=1.0, fec="light"),
    "kr4 of four lanes": ChipletSpec(wavelengths_per_port=4, flit_bytes=64, reach_m=1.0, fec="kr4"),
    "kr4 of sixteen lanes": ChipletSpec(wavelengths_per_port=16, reach_m=1.0, fec="kr4"),
    "kp4 of two lanes": ChipletSpec(wavelengths_per_port=2, flit_bytes=64, reach_m=1.0, fec="kp4"),
}
FIELD = {"light": {"c_exp": 8, "prim": 0x11D}, "kr4": {"c_exp": 10, "prim": 0x409}, "kp4": {"c_exp": 10, "prim": 0x409}}
LARGE = ("two abreast", "kr4 of sixteen lanes")
SETS = 20
IDLE = ()
"""A beat of frames on fewer lanes than wavelengths that has no new words."""


def sequence(lane: int, words: int) -> list[int]:
    """What is added to the words of a lane, bit by bit: each is the sum of those 39 and 58 bits before [x^58 + x^39 + 1]."""
    bits = [seed(lane) >> at & 1 for at in range(58)]
    while len(bits) < 58 + 64 * words:
        bits.append(bits[-39] ^ bits[-58])
    return [sum(bit << at for at, bit in enumerate(bits[58 + 64 * n :][:64])) for n in range(words)]


def encoded(spec: ChipletSpec, frames: list[list[int]]) -> list[int]:
    """Units of whole codewords, a number for each beat: scrambled, transcoded, with the parity that reedsolo computes."""
    code, lanes = FEC_CODES[spec.fec], spec.wavelengths_per_port
    masks = [sequence(lane, len(frames)) for lane in range(lanes)]
    scrambled = [[word ^ masks[lane][n] for lane, word in enumerate(beat)] for n, beat in enumerate(frames)]
    width, units = lanes // spec.codewords_abreast, [0] * len(frames)
    parity = code.codeword_symbols - code.message_symbols
    rs = RSCodec(parity, nsize=(1 << code.symbol_bits) - 1, fcr=0, **FIELD[spec.fec])
    for part in range(spec.codewords_abreast):
        words = [word for beat in scrambled for word in beat[part * width : (part + 1) * width]]
        for first in range(0, len(words), code.words):
            bits, message = 0, ""
            for n, word in enumerate(words[first : first + code.words]):
                message = f"{word:064b}" + ("1" if spec.fec != "light" and n % 4 == 0 else "") + message
            bits = int(message, 2)
            mask = (1 << code.symbol_bits) - 1
            symbols = [bits >> code.symbol_bits * n & mask for n in range(code.message_symbols)]
            line = sum(int(symbol) << code.symbol_bits * n for n, symbol in enumerate(rs.encode(symbols)))
            beat_bits = width * code.block_bits
            for n in range(spec.codeword_beats):
                beat = line >> n * beat_bits & (1 << beat_bits) - 1
                units[first // width + n] |= beat << part * beat_bits
    return units


class Run:
    """Sends beats through an encoder, wrong bits and a decoder: a beat is the words of frames, None for a set or IDLE."""

    def __init__(self, spec: ChipletSpec, beats: list, wrong: dict[int, int], decodes: bool = True):
        m = Module()
        m.submodules.encoder = self.encoder = encoder = FecEncoder(spec)
        self.decoder = decoder = FecDecoder(spec)
        if decodes:
            m.submodules.decoder = decoder
        errors, frames = Signal(encoder.o.words.shape()), Signal()
        m.d.comb += [
            decoder.units.eq(encoder.o.words ^ errors),
            decoder.units_valid.eq(encoder.o.valid),
            decoder.frames.eq(frames),
        ]
        rate = spec.blocks_per_cycle
        self.cycles = [beat_cycle(n, 3, rate.numerator, rate.denominator) for n in range(len(beats))]
        self.units, self.words, self.found = [], [], []
        at = dict(zip(self.cycles, enumerate(beats), strict=True))
        sent_at = {cycle + encoder.latency_cycles: n for cycle, (n, _) in at.items()}

        async def drive(ctx):
            i = encoder.i
            for cycle in range(self.cycles[-1] + encoder.latency_cycles + decoder.latency_cycles + 3):
                n, beat = at.get(cycle, (0, None))
                ctx.set(i.valid, cycle in at)
                if cycle in at:
                    ctx.set(i.is_set, beat is None)
                    ctx.set(i.is_new, bool(beat))
                    ctx.set(i.set, n)
                    if beat:
                        ctx.set(i.words, sum(word << 64 * lane for lane, word in enumerate(beat)))
                out = sent_at.get(cycle)
                if out is not None:  # the last sets are taken for frames, so that those before them are not given up
                    ctx.set(frames, beats[out] is not None or out >= len(beats) - SETS)
                ctx.set(errors, wrong.get(out, 0))
                if ctx.get(encoder.o.valid):
                    self.units.append((cycle, ctx.get(encoder.o.words), ctx.get(encoder.o.set), ctx.get(encoder.o.is_set)))
                if ctx.get(decoder.words_valid):
                    self.words.append((cycle, ctx.get(decoder.words), ctx.get(decoder.bad)))
                codewords = [ctx.get(count) for count in decoder.codewords]
                self.found.append((cycle, ctx.get(decoder.corrected), ctx.get(decoder.uncorrectable), *codewords))
                await ctx.tick()

        sim = simulator(m)
        sim.add_clock(1e-9)
        sim.add_testbench(drive)
        sim.run()


def traffic(spec: ChipletSpec, rng: random.Random, codewords: int) -> list[list[int]]:
    return [[rng.getrandbits(64) for _ in range(spec.wavelengths_per_port)] for _ in range(codewords * spec.codeword_beats)]


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in LARGE)) for case in SPECS])
def test_words_come_back_from_units_with_as_many_wrong_symbols_as_are_corrected(case):
    """Three codewords, cut off in a fourth one, and after sets three more: with none, t and t + 1 wrong symbols."""
    spec, rng = SPECS[case], random.Random(4)
    code, count, steps = FEC_CODES[spec.fec], 3, spec.codeword_beats
    first, second, cut = traffic(spec, rng, count), traffic(spec, rng, count), traffic(spec, rng, 1)[: steps // 2]
    # Behind the last ones comes a whole codeword, so that nothing that is no codeword is found among them.
    beats = [None] * SETS + first + cut + [None] * SETS + second + traffic(spec, random.Random(5), 1) + [None] * SETS
    beat_bits = spec.block_bits_on_line * spec.wavelengths_per_port // spec.codewords_abreast
    wrong, places = dict[int, int](), (SETS, 2 * SETS + len(first) + len(cut))
    for start in places:
        for codeword, many in enumerate((0, code.correctable_symbols, code.correctable_symbols + 1)):
            for symbol in rng.sample(range(code.codeword_symbols), many):
                at = code.symbol_bits * symbol + rng.randrange(code.symbol_bits)
                beat = start + codeword * steps + at // beat_bits
                wrong[beat] = wrong.get(beat, 0) | 1 << at % beat_bits
    run = Run(spec, beats, wrong)
    shown = len(beats) - SETS // 2  # the last sets wait for beats behind them
    assert [cycle for cycle, *_ in run.units][:shown] == [cycle + run.encoder.latency_cycles for cycle in run.cycles][:shown]
    for n, beat in enumerate(beats[:shown]):
        assert run.units[n][3] == (beat is None)
        if beat is None:
            assert run.units[n][2] == n
    for start, frames in zip(places, (first, second), strict=True):
        assert [units for _, units, *_ in run.units[start : start + len(frames)]] == encoded(spec, frames)
    good = [start + n for start in places for n in range(len(first))]
    expected = [(run.cycles[n] + run.encoder.latency_cycles + run.decoder.latency_cycles, n) for n in good]
    # What sets overtake in the decoder is given up.
    seen = {cycle: (words, bad) for cycle, words, bad in run.words if cycle <= expected[-1][0]}
    last = [(cycle, n) for cycle, n in expected if n >= places[1]]
    early = [(cycle, n) for cycle, n in expected if n < places[1] and cycle in seen]
    assert set(seen) == {cycle for cycle, _ in early + last}
    for cycle, n in early + last:
        words, bad = seen[cycle]
        start = places[n >= places[1]]
        is_bad = (n - start) // steps == 2
        assert bad == is_bad
        if not is_bad:
            assert words == sum(word << 64 * lane for lane, word in enumerate(beats[n]))
    services = 1 + (len(early) == count * steps)
    told = [sum(found) for found in zip(*(found for cycle, *found in run.found if cycle <= expected[-1][0]), strict=True)]
    assert told[0] in (code.correctable_symbols * services, code.correctable_symbols * 2)
    assert told[1] in (services, 2)
    by_symbols = {n: count for n, count in enumerate(told[2:]) if count}
    assert by_symbols.keys() == {0, code.correctable_symbols}
    assert by_symbols[code.correctable_symbols] * code.correctable_symbols == told[0]


def test_codewords_are_counted_by_how_many_symbols_were_corrected():
    """From none to 15 wrong symbols of KP4, some of them twice, and two codewords of 16, against the bench's own count."""
    spec, rng = SPECS["kp4 of two lanes"], random.Random(6)
    code, beat_bits = FEC_CODES["kp4"], 68 * 2
    many = rng.sample([*range(17), *rng.choices(range(16), k=3), 16], 21)
    beats, wrong = [None] * SETS + traffic(spec, rng, len(many) + 1) + [None] * SETS, dict[int, int]()
    for codeword, symbols in enumerate(many):
        for symbol in rng.sample(range(code.codeword_symbols), symbols):
            beat, place = divmod(10 * symbol + rng.randrange(10), beat_bits)
            beat += SETS + codeword * spec.codeword_beats
            wrong[beat] = wrong.get(beat, 0) | 1 << place
    run = Run(spec, beats, wrong)
    # A codeword has been looked at when its first words come, and the next one a codeword later.
    first = SETS + (len(many) - 1) * spec.codeword_beats
    last = run.cycles[first] + run.encoder.latency_cycles + run.decoder.latency_cycles
    corrected, lost, *codewords = (sum(found) for found in zip(*(f for at, *f in run.found if at <= last), strict=True))
    assert codewords == [many.count(n) for n in range(16)]
    assert (lost, corrected) == (2, sum(n for n in many if n < 16))


@pytest.mark.parametrize("case", ["two beats", pytest.param("kr4 of sixteen lanes", marks=pytest.mark.slow)])
def test_units_come_in_order_whatever_lanes_were_left_before(case):
    """On one lane of eight a beat in eight has new words; then sets, and all lanes again, several times.

    Sets come with the latency, also those that cut off what is late: until then all units are right.
    """
    spec, rng = SPECS[case], random.Random(5)
    lanes, beats, expected, services = spec.wavelengths_per_port, [None] * SETS, {}, []
    for left in (1, lanes, 3, 1, lanes):
        frames = traffic(spec, rng, 16 // spec.codeword_beats)
        services.append((len(beats), left))
        for n, (beat, units) in enumerate(zip(frames, encoded(spec, frames), strict=True)):
            expected[len(beats)] = units
            beats += [beat, *[IDLE] * ((n + 1) * lanes // left - n * lanes // left - 1)]
        beats += [None] * SETS
    run = Run(spec, beats, {}, decodes=False)
    latency, at = run.encoder.latency_cycles, run.cycles
    sets = [(at[n] + latency, n) for n, beat in enumerate(beats) if beat is None]
    assert [(cycle, set_) for cycle, _, set_, is_set in run.units if is_set] == sets
    came = [list(group) for is_set, group in groupby(run.units, lambda unit: unit[3]) if not is_set]
    for units, (start, left) in zip(came, services, strict=True):
        end = beats.index(None, start)
        before = [unit for cycle, unit, *_ in units if cycle <= at[end]]
        late = latency + run.encoder.codewords[0].lag * -(-lanes // left)
        assert len(before) >= end - start - late
        assert all(expected.get(start + n, unit) == unit for n, unit in enumerate(before))


@pytest.mark.parametrize("wavelengths", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("fec", FEC_CODES)
def test_the_latency_of_encoder_and_decoder_is_what_the_spec_has_room_for(fec, wavelengths):
    for clock_mhz in (500.0, 1200.0):
        try:
            spec = ChipletSpec(
                wavelengths_per_port=wavelengths, flit_bytes=256, reach_m=0.5, fec=fec, core_clock_mhz=clock_mhz
            )
        except ValueError:
            continue  # the round trip is too long for its sequences
        encoder, decoder = FecEncoder(spec), FecDecoder(spec)
        assert encoder.latency_cycles + decoder.latency_cycles <= spec.fec_cycles


def test_scramblers_of_lanes_begin_apart():
    seeds = [seed(lane) for lane in range(32)]
    assert len(set(seeds)) == 32
    assert 0 not in seeds
    assert all(a != b for a, b in pairwise(seeds))
