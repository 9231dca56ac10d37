"""The bit-exact references against published vectors and packages that share no code with them."""

import galois
import pytest
from crc import Calculator, Configuration
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.model import codec
from lightfabric.model.spec import ChipletSpec

CRC32C = Calculator(
    Configuration(32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, reverse_input=True, reverse_output=True), optimized=True
)
BLOCKS = (0x000000000000001E, 0x0706050403020178, 0xFFFFFFFFFFFFFFFF, 0)
SCRAMBLED = {  # two independent implementations of IEEE 802.3 49.2.6 agree on these
    0: (0x78000F000000001E, 0x6426B90403058178, 0x45DA98A9FCAF6BFB, 0x1A63C2C04ABEE951),
    (1 << 58) - 1: (0x7BFFF0800000001E, 0x9BC946FBFCFA4178, 0xBA2558A9F4AF6B04, 0xE59C3E3FB57EE956),
}


def test_crc32c_of_the_check_string_is_that_of_rfc_3720():
    assert codec.crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=300))
def test_crc32c_is_that_of_the_crc_package(data):
    assert codec.crc32c(data) == CRC32C.checksum(data)


@given(
    st.integers(32, 200).flatmap(lambda bits: st.tuples(st.just(bits), st.integers(0, (1 << bits) - 1))),
    st.integers(0, 2**32 - 1),
)
def test_the_hardware_rows_are_the_serial_crc(word, state):
    bits, data = word
    parities = (((data ^ state) & row).bit_count() for row in codec.crc_rows(bits))
    assert sum((parity & 1) << row for row, parity in enumerate(parities)) == codec.crc_update(state, data, bits)


@given(st.binary(max_size=40))
def test_every_message_with_its_crc_leaves_the_same_state(data):
    whole = data + CRC32C.checksum(data).to_bytes(4, "little")
    assert codec.crc_update(codec.CRC_INIT, int.from_bytes(whole, "little"), 8 * len(whole)) == codec.CRC_RESIDUE


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


FIELDS = {name: st.integers(0, (1 << bits) - 1) for name, bits in codec.HEADER_FIELDS.items() if name != "length_bytes"}


@given(st.builds(codec.Flit, payload=st.binary(max_size=116), **FIELDS), st.integers(0, 1023))
def test_a_flit_comes_back_from_its_beats_and_a_flipped_bit_is_seen(flit, flipped):
    spec = ChipletSpec()
    encoded = flit.encode(spec)
    assert len(encoded) == spec.flit_bytes
    assert codec.Flit.decode(spec, codec.from_beats(spec, codec.beats(spec, encoded))) == flit
    assert CRC32C.checksum(encoded[:-4]) == int.from_bytes(encoded[-4:], "little")
    broken = int.from_bytes(encoded, "little") ^ 1 << flipped
    assert codec.Flit.decode(spec, broken.to_bytes(spec.flit_bytes, "little")) is None


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
