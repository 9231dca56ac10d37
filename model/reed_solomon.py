"""Reed-Solomon codes are described here, and encoded symbol by symbol; the hardware makes its XOR trees from that."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lightfabric.model.spec.require import require, require_between


@dataclass(frozen=True)
class Field:
    """Computes in GF(2^m), whose elements are polynomials in alpha, bit i the factor of alpha^i.

    ``polynomial`` has the degree m and alpha, the element 2, as a primitive root.
    """

    m: int
    polynomial: int

    def __post_init__(self) -> None:
        require_between(self, 3, 12, "m")
        require(self, "polynomial", self.polynomial.bit_length() == self.m + 1, f"of degree {self.m}")
        require(self, "polynomial", len(set(self.powers)) == self.order, "primitive")

    @property
    def order(self) -> int:
        """Count the elements but for 0."""
        return (1 << self.m) - 1

    @cached_property
    def powers(self) -> tuple[int, ...]:
        """List alpha^0 to alpha^(order - 1)."""
        powers = [1]
        while len(powers) < self.order:
            doubled = powers[-1] << 1
            powers.append(doubled ^ (self.polynomial if doubled >> self.m else 0))
        return tuple(powers)

    @cached_property
    def _logarithms(self) -> dict[int, int]:
        return {power: exponent for exponent, power in enumerate(self.powers)}

    def power(self, exponent: int) -> int:
        """Compute alpha to any exponent, negative ones included."""
        return self.powers[exponent % self.order]

    def multiply(self, a: int, b: int) -> int:
        """Multiply two elements of the field."""
        return self.power(self._logarithms[a] + self._logarithms[b]) if a and b else 0

    def inverse(self, a: int) -> int:
        """Invert an element; 0 has no inverse and gives 0."""
        return self.power(-self._logarithms[a]) if a else 0


@dataclass(frozen=True)
class ReedSolomon:
    """Describes a code RS(n, k) over GF(2^m): of n symbols of m bits the first k are the message, in the order of the line.

    The first symbol has the highest power. The generator polynomial has the roots alpha^first_root,
    alpha^(first_root + 1), ..., n - k of them. SpecError if there is no such code.
    """

    n: int
    k: int
    m: int = 10
    polynomial: int = 0x409
    first_root: int = 0

    def __post_init__(self) -> None:
        require_between(self, 3, self.field.order, "n")
        require_between(self, 1, self.n - 2, "k")
        require_between(self, 0, self.field.order - 1, "first_root")

    @cached_property
    def field(self) -> Field:
        """Make the field of the symbols."""
        return Field(self.m, self.polynomial)

    @property
    def parity_symbols(self) -> int:
        """Count the symbols after the message."""
        return self.n - self.k

    @property
    def t(self) -> int:
        """Count the symbols in error that can be corrected."""
        return self.parity_symbols // 2

    def beats(self, p: int) -> int:
        """Count the beats of p symbols that hold a codeword; the last one may have room for more."""
        return -(-self.n // p)

    @cached_property
    def generator(self) -> tuple[int, ...]:
        """Multiply out the generator polynomial, the factor of x^0 first.

        >>> KR4.generator
        (432, 290, 945, 265, 592, 391, 614, 900, 925, 656, 32, 701, 6, 904, 1)
        """
        product = [1]
        for exponent in range(self.first_root, self.first_root + self.parity_symbols):
            root = self.field.power(exponent)
            product = [self.field.multiply(root, a) ^ b for a, b in zip([*product, 0], [0, *product], strict=True)]
        return tuple(product)

    def parity(self, message: Sequence[int]) -> list[int]:
        """Compute the symbols that follow a message of any length up to k, as zeros before it change nothing."""
        remainder = [0] * self.parity_symbols
        for symbol in message:
            factor = remainder[0] ^ symbol
            shifted = [*remainder[1:], 0]
            products = (self.field.multiply(factor, coefficient) for coefficient in reversed(self.generator[:-1]))
            remainder = [a ^ b for a, b in zip(shifted, products, strict=True)]
        return remainder


KR4 = ReedSolomon(528, 514)
"""Of 100GBASE-KR4 and CR4 [802.3 clause 91]."""
KP4 = ReedSolomon(544, 514)
"""Of 100GBASE-KP4, 200G and 400G [802.3 clauses 91 and 119], and of UALink, whose 640 bytes it makes 680."""
LIGHT = ReedSolomon(132, 128, 8, 0x11D)
"""Of lines that are good already: two bytes in 16 words, in the room of their sync headers."""
