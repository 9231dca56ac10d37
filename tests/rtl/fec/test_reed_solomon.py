# amaranth: UnusedElaboratable=no
"""The Reed-Solomon codec against reedsolo and galois, the vectors of 802.3 and a search of all codewords."""

import random
from itertools import product

import pytest
import reedsolo
from amaranth import Signal

from lightfabric.model.reed_solomon import KP4, KR4, Field, ReedSolomon
from lightfabric.rtl.fec.beat import beats, deinterleave, interleave
from lightfabric.rtl.fec.decoder import Decoder, Mode
from lightfabric.rtl.fec.encoder import Encoder
from lightfabric.rtl.fec.key_equation import Folding
from lightfabric.sim.bench.bench import BenchTimeoutError
from lightfabric.sim.fec.codeword import CodecBench, beats_of

TINY = ReedSolomon(7, 3, 3, 0b1011)
SMALL = ReedSolomon(15, 11, 4, 0b10011)
OTHERS = (
    ReedSolomon(15, 10, 4, 0b10011, 1),  # an odd number of parity symbols
    ReedSolomon(15, 2, 4, 0b11001, 14),  # the message ends in the first of several beats
    ReedSolomon(31, 21, 5, 0b100101, 3),
    ReedSolomon(255, 239, 8, 0x11D, 0),
    ReedSolomon(40, 34, 8, 0x11D, 120),
    ReedSolomon(60, 52, 12, 0x1053, 1),
    ReedSolomon(7, 5, 3, 0b1101, 6),
)
ODDS = 0.3


def oracle(code):
    return reedsolo.RSCodec(
        code.parity_symbols, nsize=code.field.order, fcr=code.first_root, prim=code.polynomial, c_exp=code.m
    )


def messages(code, rng, count):
    return [[rng.randrange(1 << code.m) for _ in range(code.k)] for _ in range(count)]


def encoded(code, message):
    return list(oracle(code).encode(message))


def with_errors(code, rng, codeword, errors):
    received = list(codeword)
    for place in rng.sample(range(code.n), errors):
        received[place] ^= rng.randrange(1, 1 << code.m)
    return received


def decoded(code, received):
    """What reedsolo makes of it: the codeword, corrected symbols, uncorrectable."""
    try:
        _, codeword, errata = oracle(code).decode(received)
    except reedsolo.ReedSolomonError:
        return None, 0, 1
    return list(codeword), len(errata), 0


def sent(bench, codewords, **options):
    code, p = bench.block.code, bench.block.p
    words = [beat for codeword in codewords for beat in beats_of(code, p, codeword)]
    return bench.run(words, len(words), **options)


def findings(run):
    return [(outputs["corrected"], outputs["uncorrectable"]) for _, outputs in run.out if outputs["last"]]


def assert_decodes_as_the_oracle(code, bench, received):
    run = sent(bench, received)
    expected = [decoded(code, word) for word in received]
    assert findings(run) == [(corrected, uncorrectable) for _, corrected, uncorrectable in expected]
    for (codeword, _, uncorrectable), given in zip(expected, bench.codewords(run), strict=True):
        assert uncorrectable or given == [*codeword, *[given[-1]] * (len(given) - code.n)]
    return run, expected


@pytest.mark.parametrize(
    ("code", "generator", "parity"),
    [
        (
            KR4,
            "432 290 945 265 592 391 614 900 925 656 32 701 6 904 1",
            "50 868 380 280 841 435 1015 875 433 667 96 823 273 57",
        ),
        (
            KP4,
            "523 834 128 158 185 127 392 193 610 788 361 883 503 942 385 495 720 94 132 593 249 282 565 108 1 552 230 187"
            " 552 575 1",
            "76 598 13 552 444 804 166 690 397 790 68 2 783 894 33 520 333 656 603 617 60 946 505 632 606 741 10 595 750"
            " 987",
        ),
    ],
    ids=["kr4", "kp4"],
)
@pytest.mark.parametrize("p", [1, 2, 4, 8, 16])
def test_the_encoder_makes_the_vectors_of_802_3(code, generator, parity, p):
    assert " ".join(map(str, code.generator)) == generator
    bench = CodecBench(Encoder(code, p))
    message = list(range(514))
    expected = [*message, *map(int, parity.split())]
    assert bench.codewords(sent(bench, [[*message, *[1023] * code.parity_symbols]])) == [expected]


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 7, 8, 13, 15])
def test_small_codewords_pass_the_codec_with_any_number_of_symbols_per_clock(p):
    rng = random.Random(p)
    plain = messages(SMALL, rng, 30)
    encoder, decoder = CodecBench(Encoder(SMALL, p)), CodecBench(Decoder(SMALL, p))
    run = sent(encoder, [[*message, *[15] * 4] for message in plain])
    filled = encoder.codewords(run)
    assert filled == [[*encoded(SMALL, message), *[0] * (len(filled[0]) - 15)] for message in plain]
    assert [cycle - 1 for cycle, _ in run.out] == run.in_cycles
    errors = [*range(4)] * 10
    received = [with_errors(SMALL, rng, word[:15], count) for word, count in zip(filled, errors, strict=False)]
    _, expected = assert_decodes_as_the_oracle(SMALL, decoder, received)
    assert {corrected for _, corrected, _ in expected} == {0, 1, 2}


@pytest.mark.parametrize("p", [1, 3, 7])
def test_what_is_near_no_codeword_is_uncorrectable_and_else_the_nearest_one_comes_out(p):
    """Of all words of a tiny code, some at random: within t symbols there is one of its 512 codewords or none."""
    rng = random.Random(10 + p)
    codewords = [encoded(TINY, message) for message in product(range(8), repeat=3)]
    received = [[rng.randrange(8) for _ in range(7)] for _ in range(200)]
    bench = CodecBench(Decoder(TINY, p))
    run = sent(bench, received)
    seen = set()
    for word, given, found in zip(received, bench.codewords(run), findings(run), strict=True):
        near = [(sum(map(int.__ne__, word, other)), other) for other in codewords]
        distance, nearest = min(near)
        assert found == ((distance, 0) if distance <= 2 else (0, 1))
        assert distance > 2 or given[:7] == nearest
        seen.add(distance)
    assert {1, 2, 3} <= seen


@pytest.mark.parametrize("code", OTHERS, ids=lambda code: f"{code.n},{code.k}")
def test_any_code_is_encoded_and_decoded_as_by_the_oracle(code):
    rng = random.Random(code.n)
    for p in (1, 3) if code.m != 5 else (5,):
        plain = messages(code, rng, 5)
        encoder = CodecBench(Encoder(code, p))
        run = sent(encoder, [[*message, *[0] * code.parity_symbols] for message in plain])
        words = [word[: code.n] for word in encoder.codewords(run)]
        assert words == [encoded(code, message) for message in plain]
        errors = [0, 1, code.t, code.t, code.t + 1]
        received = [with_errors(code, rng, word, count) for word, count in zip(words, errors, strict=True)]
        assert_decodes_as_the_oracle(code, CodecBench(Decoder(code, p)), received)


@pytest.mark.parametrize(
    ("code", "p", "clocks"),
    [
        *((KR4, p, clocks) for p, clocks in ((1, 316), (2, 162), (4, 120), (8, 64), (16, 36))),
        *((KP4, p, clocks) for p, clocks in ((1, 488), (2, 248), (4, 128), (8, 68), (16, 38))),
    ],
)
def test_codewords_of_802_3_are_decoded_as_by_the_oracle_without_a_pause(code, p, clocks):
    """The last number is the latency; the key equation is solved before the next codeword has come."""
    rng = random.Random(p)
    counts = (code.t, code.t + 1, 1, 0, code.t - 1)[: max(2, p // 3)]
    received = [
        with_errors(code, rng, encoded(code, message), count)
        for message, count in zip(messages(code, rng, len(counts)), counts, strict=True)
    ]
    bench = CodecBench(Decoder(code, p))
    run, expected = assert_decodes_as_the_oracle(code, bench, received)
    assert [found[1:] for found in expected[:2]] == [(code.t, 0), (0, 1)]
    folding = Folding(code, code.beats(p))
    assert folding.clocks <= code.beats(p)
    assert 7 + folding.clocks == bench.block.latency_clocks == clocks
    begin = code.beats(p) - 1 + clocks
    assert [cycle for cycle, _ in run.out] == list(range(begin, begin + len(run.out)))
    assert {at % code.beats(p) for at, (_, outputs) in enumerate(run.out) if outputs["first"]} == {0}


@pytest.mark.parametrize("p", [2, 5, 15])
def test_gaps_change_no_symbol_and_leave_codewords_whole(p):
    rng = random.Random(p)
    bench, encoder = CodecBench(Decoder(SMALL, p)), CodecBench(Encoder(SMALL, p))
    plain = messages(SMALL, rng, 40)
    words = [encoded(SMALL, message) for message in plain]
    received = [with_errors(SMALL, rng, word, rng.randint(0, 2)) for word in words]

    def with_gaps(codewords):
        pauses = ([None] * int(rng.random() < ODDS) * rng.randint(1, 30) for _ in range(len(codewords) * 15))
        return [beat for word in codewords for real in beats_of(SMALL, p, word) for beat in (*next(pauses), real)]

    count = SMALL.beats(p) * len(words)
    run = bench.run(with_gaps(received), count)
    assert [word[:15] for word in bench.codewords(run)] == words
    cycles = [cycle for cycle, _ in run.out]
    for at in range(0, count, SMALL.beats(p)):
        leaves = run.in_cycles[at + SMALL.beats(p) - 1] + bench.block.latency_clocks
        assert cycles[at : at + SMALL.beats(p)] == list(range(leaves, leaves + SMALL.beats(p)))
    coded = encoder.run(with_gaps([[*message, 1, 2, 3, 4] for message in plain]), count)
    assert [word[:15] for word in encoder.codewords(coded)] == words


@pytest.mark.parametrize("p", [2, 5, 8])
def test_a_mark_within_a_codeword_gives_it_up_and_begins_another(p):
    rng = random.Random(p)
    words = [encoded(SMALL, message) for message in messages(SMALL, rng, 12)]
    beats_in, kept = [], []
    for word in words:
        cut = rng.choice([SMALL.beats(p), rng.randrange(1, SMALL.beats(p))])
        beats_in += beats_of(SMALL, p, with_errors(SMALL, rng, word, 2))[:cut]
        kept += [word] if cut == SMALL.beats(p) else []
    bench = CodecBench(Decoder(SMALL, p))
    run = bench.run(beats_in, len(kept) * SMALL.beats(p))
    assert 0 < len(kept) < 12
    assert [word[:15] for word in bench.codewords(run)] == kept
    assert findings(run) == [(2, 0)] * len(kept)
    with pytest.raises(BenchTimeoutError, match="within 500 cycles"):
        bench.run(beats_in, len(kept) * SMALL.beats(p) + 1, bound_cycles=500)


def test_modes_detect_and_bypass_change_no_symbol():
    rng = random.Random(1)
    received = [
        with_errors(SMALL, rng, encoded(SMALL, message), count)
        for message, count in zip(messages(SMALL, rng, 4), (0, 1, 2, 4), strict=True)
    ]
    bench = CodecBench(Decoder(SMALL, 4))
    for mode, found in ((Mode.DETECT, [0, 1, 1, 1]), (Mode.BYPASS, [0, 0, 0, 0])):
        run = sent(bench, received, mode=mode)
        assert [word[:15] for word in bench.codewords(run)] == received
        assert findings(run) == [(0, uncorrectable) for uncorrectable in found]


def test_interleaved_codewords_alternate_on_the_line():
    data = [Signal(12, name=f"data_{at}") for at in range(3)]
    line = interleave(SMALL, data)
    assert [repr(part) for part in line.parts] == [
        f"(slice (sig data_{word}) {at}:{at + 4})" for at in (0, 4, 8) for word in range(3)
    ]
    symbols = Signal(36)
    assert [[part.start for part in word.parts] for word in deinterleave(SMALL, symbols, 3)] == [
        [0, 12, 24], [4, 16, 28], [8, 20, 32],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((10, 4, 2), "Field.m must be from 3 to 12, not 2"),
        ((10, 4, 13), "Field.m must be from 3 to 12, not 13"),
        ((15, 11, 4, 0b100101), "Field.polynomial must be of degree 4, not 37"),
        ((15, 11, 4, 0b11111), "Field.polynomial must be primitive, not 31"),
        ((15, 11, 4, 0b10010), "Field.polynomial must be primitive, not 18"),
        ((16, 11, 4, 0b10011), "ReedSolomon.n must be from 3 to 15, not 16"),
        ((15, 14, 4, 0b10011), "ReedSolomon.k must be from 1 to 13, not 14"),
        ((15, 0, 4, 0b10011), "ReedSolomon.k must be from 1 to 13, not 0"),
        ((15, 11, 4, 0b10011, 15), "ReedSolomon.first_root must be from 0 to 14, not 15"),
    ],
)
def test_a_code_that_is_none_is_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ReedSolomon(*fields)


@pytest.mark.parametrize("p", [0, 16])
def test_more_symbols_per_clock_than_a_codeword_has_are_refused(p):
    with pytest.raises(ValueError, match=rf"^beats\.p must be from 1 to 15, not {p}$"):
        beats(SMALL, p)


def test_the_inverse_of_a_field_is_its_inverse():
    field = Field(12, 0x1053)
    assert all(field.multiply(element, field.inverse(element)) == 1 for element in range(1, 4096))
    assert field.inverse(0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("code", [KR4, KP4], ids=["kr4", "kp4"])
def test_galois_decodes_the_same(code):
    import galois

    field = galois.GF(1 << code.m, irreducible_poly=galois.Poly.Int(code.polynomial))
    reference = galois.ReedSolomon(1023, 1023 - code.parity_symbols, field=field, c=0)
    rng = random.Random(5)
    plain = messages(code, rng, code.t + 4)
    words = reference.encode(field(plain)).tolist()
    received = [with_errors(code, rng, word, count) for count, word in enumerate(words)]
    codewords, counts = reference.decode(field(received), output="codeword", errors=True)
    bench = CodecBench(Decoder(code, 8))
    run = sent(bench, received)
    assert findings(run) == [(max(count, 0), int(count < 0)) for count in counts.tolist()]
    for given, expected, count in zip(bench.codewords(run), codewords.tolist(), counts, strict=True):
        assert count < 0 or given == expected
