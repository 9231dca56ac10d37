"""The bit-exact references against published vectors and packages that share no code with them."""

import galois
import numpy as np
import pytest
from crc import Calculator, Configuration
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.model import codec
from lightfabric.model.spec import ChipletSpec

CATALOGUE = {  # name -> (parameters for the package crc, bytes that the message is extended to, CRC of "123456789")
    "crc32c": (Configuration(32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, True, True), 0, 0xE3069283),  # RFC 3720
    "crc24": (Configuration(24, 0x328B63, 0xFFFFFF, 0xFFFFFF, False, False), 0, 0xB4F3E6),  # CRC-24/INTERLAKEN
    "crc16": (Configuration(16, 0x8005, 0, 0, True, False), 128, None),  # UCIe 1.1 by its letter
    "crc16-umts": (Configuration(16, 0x8005, 0, 0, False, False), 128, None),  # CRC-16/UMTS, FEE8 without the zeros
}
CALCULATORS = {name: Calculator(entry[0], optimized=True) for name, entry in CATALOGUE.items()}


def oracle(name: str, message: bytes) -> int:
    """By the package crc, which shares no code with ours."""
    return CALCULATORS[name].checksum(message.ljust(CATALOGUE[name][1], b"\0"))


def oracle_field(spec: ChipletSpec, body: bytes) -> int:
    """The CRC field: one CRC, or two of 16 bits over 128 bytes each [UCIe 1.1, 256-byte flits]."""
    block = CATALOGUE[spec.crc][1]
    parts = [body[at : at + block] for at in range(0, len(body), block)] if block else [body]
    return sum(oracle(spec.crc, part) << 16 * n for n, part in enumerate(parts))


FREE = {name: bits for name, bits in codec.header_fields(ChipletSpec()).items() if name not in ("length_bytes", "implicit")}
SEQUENCES = 255
FIELDS = {name: st.integers(0, (1 << bits) - 1) for name, bits in FREE.items()}

BLOCKS = (0x000000000000001E, 0x0706050403020178, 0xFFFFFFFFFFFFFFFF, 0)
SCRAMBLED = {  # two independent implementations of IEEE 802.3 49.2.6 agree on these
    0: (0x78000F000000001E, 0x6426B90403058178, 0x45DA98A9FCAF6BFB, 0x1A63C2C04ABEE951),
    (1 << 58) - 1: (0x7BFFF0800000001E, 0x9BC946FBFCFA4178, 0xBA2558A9F4AF6B04, 0xE59C3E3FB57EE956),
}


def test_the_crc_of_the_check_string_is_the_published_one():
    checks = {name: entry[2] for name, entry in CATALOGUE.items() if entry[2]}
    assert {name: codec.CRCS[name].compute(b"123456789") for name in checks} == checks
    assert Calculator(CATALOGUE["crc16-umts"][0]).checksum(b"123456789") == 0xFEE8, "the oracle itself"


def test_the_crc_of_ucie_by_its_letter():
    """Vectors that two independent readings of UCIe 1.1 agree on."""
    crc = codec.CRCS["crc16"]
    assert (crc.compute(bytes(range(128))), crc.compute(b"\xff" * 128)) == (0x249F, 0x002E)


@pytest.mark.parametrize("name", CATALOGUE)
@given(data=st.binary(max_size=300))
def test_each_crc_is_that_of_the_crc_package(name, data):
    assert codec.CRCS[name].compute(data) == oracle(name, data)


@pytest.mark.parametrize("name", CATALOGUE)
@given(
    st.integers(4, 25).flatmap(lambda count: st.tuples(st.just(8 * count), st.binary(min_size=count, max_size=count))),
    st.integers(0, 2**32 - 1),
)
def test_the_hardware_rows_are_the_serial_crc(name, word, register):
    crc, (bits, content) = codec.CRCS[name], word
    register &= (1 << crc.bits) - 1
    stream = crc.stream(int.from_bytes(content, "little"), bits)
    parities = (((stream ^ register) & row).bit_count() for row in crc.rows(bits))
    assert sum((parity & 1) << row for row, parity in enumerate(parities)) == crc.update(register, stream, bits)


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_three_wrong_bits_of_a_small_flit_go_unseen(name):
    """All patterns: a CRC is linear, so two or three wrong bits are unseen if what they change adds up to nothing."""
    spec = ChipletSpec(wavelengths_per_port=8, flit_bytes=64, crc=name)
    body_bits, nothing = 8 * (spec.flit_bytes - spec.CRC_BYTES), oracle_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES))
    bodies = ((1 << bit).to_bytes(body_bits // 8, "little") for bit in range(body_bits))
    changes = [oracle_field(spec, body) ^ nothing for body in bodies] + [1 << bit for bit in range(codec.CRC_BITS)]
    assert 0 not in changes
    assert len(set(changes)) == len(changes)
    alone = set(changes)
    assert not any(one ^ other in alone for n, one in enumerate(changes) for other in changes[n + 1 :])


@pytest.mark.parametrize("name", CATALOGUE)
@given(st.data())
def test_a_flit_with_up_to_three_wrong_bits_is_dropped(name, data):
    """Also where they touch the bits by which a flit says whether it is implicit."""
    spec = ChipletSpec(wavelengths_per_port=8, flit_bytes=64, crc=name)
    flit = data.draw(st.builds(codec.Flit, payload=st.binary(max_size=52), **FIELDS))
    own = data.draw(st.integers(0, SEQUENCES - 1))
    encoded = int.from_bytes(flit.encode(spec, own), "little")
    near_header = st.integers(0, 63) | st.integers(0, 511)
    for bit in data.draw(st.sets(near_header, min_size=1, max_size=3)):
        encoded ^= 1 << bit
    assert codec.Flit.decode(spec, encoded.to_bytes(64, "little"), own) is None


@pytest.mark.parametrize("name", ["crc16", "crc16-umts"])
def test_random_corruption_goes_unseen_at_the_rate_of_the_crc(name):
    """2**-16 of garbage with a good flag: Poisson, 5 standard deviations; also nothing is seen too often."""
    spec, rng, seed = ChipletSpec(wavelengths_per_port=8, flit_bytes=64, crc=name), np.random.default_rng(11), 11
    count = 150_000
    mean, unseen = count / 2**16, 0
    header = codec.Flit(b"\1" * 52, codec.DATA).encode(spec)[:8]
    for _ in range(count):
        body = header + rng.bytes(spec.payload_bytes)
        field = int(rng.integers(1 << 16)).to_bytes(4, "little")
        unseen += codec.Flit.decode(spec, body + field) is not None
    assert abs(unseen - mean) < 5 * mean**0.5 + 1, f"seed {seed}"


@pytest.mark.parametrize("state", SCRAMBLED)
def test_the_scrambler_gives_the_published_blocks(state):
    start, line = state, []
    for block in BLOCKS:
        state, scrambled = codec.scramble(state, block)
        line.append(scrambled)
    assert tuple(line) == SCRAMBLED[start]
    state = start
    for block, scrambled in zip(BLOCKS, line, strict=True):
        state, plain = codec.descramble(state, scrambled)
        assert plain == block


def test_zeros_are_scrambled_to_the_sequence_of_the_polynomial():
    lfsr = galois.FLFSR(galois.Poly.Degrees([58, 39, 0]), state=[1] * 58)
    state, bits = (1 << 58) - 1, []
    for _ in range(8):
        state, block = codec.scramble(state, 0)
        bits += [block >> n & 1 for n in range(64)]
    assert bits == lfsr.step(58 + len(bits))[58:].tolist()


@given(st.integers(0, 2**58 - 1), st.integers(0, 2**58 - 1), st.lists(st.integers(0, 2**64 - 1), min_size=2))
def test_a_descrambler_that_starts_wrong_is_right_after_58_bits(sender, receiver, blocks):
    plain = []
    for block in blocks:
        sender, scrambled = codec.scramble(sender, block)
        receiver, got = codec.descramble(receiver, scrambled)
        plain.append(got)
    assert plain[1:] == blocks[1:]
    assert plain[0] >> 58 == blocks[0] >> 58


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("flit_bytes", [64, 128, 256])
@given(st.data())
def test_a_flit_comes_back_from_its_beats(name, flit_bytes, data):
    spec = ChipletSpec(wavelengths_per_port=8, flit_bytes=flit_bytes, crc=name)
    flit = data.draw(st.builds(codec.Flit, payload=st.binary(max_size=spec.payload_bytes), **FIELDS))
    own = data.draw(st.integers(0, SEQUENCES - 1))
    encoded = flit.encode(spec, own)
    assert len(encoded) == spec.flit_bytes
    assert codec.Flit.decode(spec, codec.from_beats(spec, codec.beats(spec, encoded)), own) == flit
    body = bytes([encoded[0] ^ (own if flit.implicit else 0)]) + encoded[1:-4]
    assert int.from_bytes(encoded[-4:], "little") == oracle_field(spec, body)


@given(st.integers(0, SEQUENCES - 1), st.integers(0, SEQUENCES - 1))
def test_a_flit_that_does_not_say_its_sequence_is_dropped_under_another(own, expected):
    spec, flit = ChipletSpec(crc="crc16"), codec.Flit(b"abc", codec.DATA, code=codec.ACK, sequence=7)
    assert (codec.Flit.decode(spec, flit.encode(spec, own), expected) == flit) == (own == expected)


@pytest.mark.parametrize(
    ("flit", "message"),
    [
        (codec.Flit(bytes(117)), r"Flit\.payload must have at most 116 bytes, not 117"),
        (codec.Flit(destination=1024), r"Flit\.destination must be from 0 to 1023, not 1024"),
    ],
)
def test_what_does_not_fit_a_flit_is_named(flit, message):
    with pytest.raises(ValueError, match=message):
        flit.encode(ChipletSpec())
