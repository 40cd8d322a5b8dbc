"""Arithmetic modulo an odd number, over batches, by the fastest kernel of this machine and in all its cores.

Numbers come and go as ``uint8`` of shape ``(n, width)``, one big-endian number per row. In between they are residues,
``uint64`` of shape ``(n, limbs)`` in the kernel's own form, in which they stay over a whole job::

    ring = Ring(n)
    a, b = ring.enter(rows), ring.enter(others)
    rows = ring.leave(ring.multiply(ring.power(a, 65537), b))

Residues can be cut, joined and picked by row like any array, and belong to one ring of one kernel.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TypeAlias

import gmpy2
import numpy as np
import numpy.typing as npt

from fedtasks.crypto.kernels import Bytes, Indices, Kernel, Modulus, Words, get_kernel
from fedtasks.crypto.threads import in_slices
from fedtasks.errors import ProtocolViolated

WINDOW_BITS = 5
"""A window of a fixed base: wider ones need fewer multiplications, and longer tables to be read for each."""

_Multiply: TypeAlias = Callable[[Words, Words, Indices, Indices, Modulus], None]

_CHAIN_ROWS = 256
"""Longer segments are multiplied in pieces, so that lanes and threads stay busy when a few hold most rows."""


class Ring:
    """The integers modulo an odd number.

    Parameters
    ----------
    n
        The modulus, odd and at least 3.
    kernel
        By which kernel; see `get_kernel`.

    Attributes
    ----------
    width
        Bytes of a row.
    limbs
        Words of a residue.

    Raises
    ------
    ValueError
        The modulus is even, or no number to compute with.
    ConfigError
        The kernel does not run on this machine.
    """

    def __init__(self, n: int, kernel: str | None = None) -> None:
        if n < 3 or n % 2 == 0:
            raise ValueError("a modulus must be odd and at least 3")
        self.n = n
        self.width = (n.bit_length() + 7) // 8
        self._kernel: Kernel = get_kernel(kernel)
        self._modulus: Modulus = self._prepare()
        self.limbs = self._modulus.limbs

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return self._kernel.name

    @property
    def ones(self) -> Words:
        """The number one as the only row."""
        return self._modulus.one

    # ------------------------------------------------------------------------------------------------- rows
    def enter(self, rows: Bytes) -> Words:
        """Take rows of `width` bytes as residues.

        Raises
        ------
        ProtocolViolated
            A row is not a number below the modulus, or rows have another width.
        """
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ProtocolViolated(f"expected rows of {self.width} bytes, got shape {rows.shape}")
        above = self._first_above(rows)
        if above is not None:
            raise ProtocolViolated(f"row {above} of {len(rows)} is not a number below the modulus")
        return self._enter(np.ascontiguousarray(rows))

    def enter_units(self, rows: Bytes) -> Words:
        """Take rows of which each must have an inverse.

        Raises
        ------
        ProtocolViolated
            A row has none: it is 0, or has a factor in common with the modulus. Or it is none that `enter` takes.

        Notes
        -----
        Cost: a multiplication per row and one greatest common divisor for all, as a product has an inverse exactly if
        each of its factors has one.
        """
        residues = self.enter(rows)
        if not self._is_unit(self.leave(self.product(residues))[0]):
            raise self._without_inverse(rows)
        return residues

    def leave(self, residues: Words) -> Bytes:
        """Return residues as rows of `width` bytes, each below the modulus."""
        residues = self._checked(residues)
        rows = np.empty((len(residues), self.width), dtype=np.uint8)
        in_slices(len(rows), lambda s: self._kernel.leave(rows[s], residues[s], self._modulus))
        return rows

    def number(self, number: int) -> Words:
        """Take one number as the only row."""
        raw = (number % self.n).to_bytes(self.width, "big")
        return self._enter(np.frombuffer(raw, dtype=np.uint8).reshape(1, -1))

    def random(self, n_rows: int) -> Words:
        """Return uniform residues from the operating system's generator.

        Notes
        -----
        128 bits more than the modulus has are reduced, so that no residue is likelier than another by more than
        2**-128. One that is zero, or that shares a factor with an RSA modulus, never turns up.
        """
        more = 16
        raw = np.frombuffer(secrets.token_bytes(n_rows * (self.width + more)), dtype=np.uint8)
        raw = raw.reshape(n_rows, self.width + more)
        high, low = (self._enter(np.ascontiguousarray(part)) for part in (raw[:, :more], raw[:, more:]))
        return self.add(self.multiply(high, self.number(1 << (8 * self.width))), low)

    def convert(self, residues: Words, source: Ring, factor: int = 1) -> Words:
        """Take residues of another ring of the same kernel, times a factor.

        It must not matter to the result what multiple of `source.n` is added to a residue: n divides `source.n`, or
        `factor` times it.
        """
        residues = source._checked(residues)
        found = self._new(len(residues))
        in_slices(
            len(found),
            lambda s: self._kernel.convert(found[s], residues[s], source._modulus, self._modulus, factor % self.n),
        )
        return found

    # ------------------------------------------------------------------------------------------- operations
    def multiply(self, a: Words, b: Words) -> Words:
        """Multiply row by row; `b` may have one row instead, by which all are multiplied."""
        a, b = self._checked(a), self._checked(b)
        if len(b) not in (1, len(a)):
            raise ValueError(f"{len(b)} rows for {len(a)}")
        found = self._new(len(a))
        one = len(b) != len(a)
        in_slices(len(a), lambda s: self._kernel.multiply(found[s], a[s], b if one else b[s], self._modulus))
        return found

    def add(self, a: Words, b: Words) -> Words:
        """Add row by row."""
        a, b = self._checked(a), self._checked(b)
        if len(a) != len(b):
            raise ValueError(f"{len(b)} rows for {len(a)}")
        found = self._new(len(a))
        in_slices(len(a), lambda s: self._kernel.add(found[s], a[s], b[s], self._modulus))
        return found

    def power(self, residues: Words, exponent: int) -> Words:
        """Raise every row to an exponent that is no secret."""
        return self._power(residues, exponent, exponent.bit_length(), secret=False)

    def secret_power(self, residues: Words, exponent: int, bits: int) -> Words:
        """Raise every row to a secret exponent of at most `bits` bits.

        Notes
        -----
        Time and memory accesses depend on `bits` alone, by the portable kernel on the exponent's length too.
        """
        if exponent.bit_length() > bits:
            raise ValueError(f"the exponent has more than {bits} bits")
        return self._power(residues, exponent, bits, secret=True)

    def invert(self, residues: Words) -> Words:
        """Invert every row by one inversion and three multiplications each.

        Raises
        ------
        ZeroDivisionError
            A row has no inverse.

        Notes
        -----
        Source: Montgomery, "Speeding the Pollard and elliptic curve methods of factorization", 1987; as a tree of
        products, each level of which is one batch.
        """
        if len(residues) == 0:
            return residues
        levels = [residues]
        while (n_rows := len(levels[-1])) > 1:
            level, even = levels[-1], n_rows // 2 * 2
            products = self.multiply(level[0:even:2], level[1:even:2])
            levels.append(np.concatenate([products, level[even:]]))
        root = int.from_bytes(self.leave(levels.pop()).tobytes(), "big")
        inverse = self.number(int(gmpy2.invert(root, self.n)))
        for level in reversed(levels):
            even = len(level) // 2 * 2
            parents = inverse[: even // 2]
            below = self._new(len(level))
            below[0:even:2] = self.multiply(parents, level[1:even:2])
            below[1:even:2] = self.multiply(parents, level[0:even:2])
            below[even:] = inverse[even // 2 :]
            inverse = below
        return inverse

    def product(self, residues: Words) -> Words:
        """Return the product of all rows as one row."""
        return self.segmented_product(residues, np.zeros(len(residues), dtype=np.int64), 1)

    def segmented_product(self, values: Words, segments: npt.NDArray[np.integer], n_segments: int) -> Words:
        """Multiply the rows that belong to the same segment.

        Parameters
        ----------
        segments
            Which segment a row belongs to, shape ``(n,)``; rows of -1 belong to none.
        n_segments
            How many there are.

        Returns
        -------
        ndarray
            One residue per segment, one for an empty one.

        Notes
        -----
        Cost: a multiplication per row. Time depends on `segments`.
        """
        values = self._checked(values)
        if segments.shape != (len(values),):
            raise ValueError(f"{segments.shape} segments for {len(values)} rows")
        if len(segments) and not -1 <= int(segments.min()) <= int(segments.max()) < n_segments:
            raise ValueError(f"a segment is not between 0 and {n_segments - 1}")
        order = np.argsort(segments, kind="stable")
        counts = np.bincount(segments.astype(np.int64) + 1, minlength=n_segments + 1)
        return self.products(values, order, np.cumsum(counts))

    def products(self, values: Words, order: Indices, starts: Indices) -> Words:
        """Multiply the rows that each segment names; a row may be named by many.

        Parameters
        ----------
        order
            Numbers of rows, segment after segment.
        starts
            Where each segment begins in `order`, and where the last one ends.

        Returns
        -------
        ndarray
            One residue per segment, one for an empty one.

        Notes
        -----
        Cost: a multiplication for each number in `order`. Time depends on `order` and `starts`.
        """
        return self._products(self._kernel.segmented_product, values, order, starts)

    def _products(self, multiply: _Multiply, values: Words, order: Indices, starts: Indices) -> Words:
        values, order, starts = self._checked(values), np.ascontiguousarray(order), np.ascontiguousarray(starts)
        counts = np.diff(starts)
        if len(counts) and (counts.min() < 0 or starts[0] < 0 or starts[-1] > len(order)):
            raise ValueError("segments are not one behind the other")
        if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(values):
            raise ValueError(f"a row is not between 0 and {len(values) - 1}")
        pieces = np.maximum(-(-counts // _CHAIN_ROWS), 1)
        if pieces.max(initial=1) == 1:
            return self._chains(multiply, values, order, starts)
        # Cut every segment into pieces of equal length; their products make up segments of their own.
        first = np.concatenate([[0], np.cumsum(pieces)])
        piece = np.arange(first[-1]) - np.repeat(first[:-1], pieces)
        lengths, begins = np.repeat(counts, pieces), np.repeat(starts[:-1], pieces)
        of_piece = begins + piece * lengths // np.repeat(pieces, pieces)
        partial = self._chains(multiply, values, order, np.concatenate([of_piece, starts[-1:]]))
        return self.products(partial, np.arange(len(partial)), first)

    def fixed_base(self, base: int, exponent_bits: int) -> FixedBase:
        """Prepare powers of one base, which has an inverse, to many exponents."""
        return FixedBase.of(self, base, exponent_bits)

    # ------------------------------------------------------------------------------------------------ parts
    def _checked(self, residues: Words) -> Words:
        """Return residues as kernels take them; C code would read past the end of shorter ones."""
        if residues.dtype != np.uint64 or residues.ndim != 2 or residues.shape[1] != self.limbs:
            raise ValueError(f"not residues of this ring: {residues.dtype} of shape {residues.shape}")
        return np.ascontiguousarray(residues)

    def _new(self, n_rows: int) -> Words:
        return np.empty((n_rows, self.limbs), dtype=np.uint64)

    def _prepare(self) -> Modulus:
        return self._kernel.modulus(self.n)

    def _as_table(self, residues: Words) -> Words:
        """Return residues as kernels take them in tables."""
        return residues

    def _enter(self, rows: Bytes) -> Words:
        found = self._new(len(rows))
        in_slices(len(rows), lambda s: self._kernel.enter(found[s], rows[s], self._modulus))
        return found

    def _without_inverse(self, rows: Bytes) -> ProtocolViolated:
        wrong = next(place for place, row in enumerate(rows) if not self._is_unit(row))
        return ProtocolViolated(f"row {wrong} of {len(rows)} has no inverse modulo the key")

    def _is_unit(self, row: Bytes) -> bool:
        return bool(gmpy2.gcd(int.from_bytes(row.tobytes(), "big"), self.n) == 1)

    def _first_above(self, rows: Bytes) -> int | None:
        """Return the first row that is not below the modulus."""
        bound = np.frombuffer(self.n.to_bytes(self.width, "big"), dtype=np.uint8)
        differs = rows != bound
        place = differs.argmax(axis=1)
        below = rows[np.arange(len(rows)), place] < bound[place]
        return None if below.all() else int(below.argmin())

    def _power(self, residues: Words, exponent: int, bits: int, secret: bool) -> Words:
        residues = self._checked(residues)
        found = self._new(len(residues))
        in_slices(
            len(found), lambda s: self._kernel.power(found[s], residues[s], exponent, bits, secret, self._modulus)
        )
        return found

    def _chains(self, multiply: _Multiply, values: Words, order: Indices, starts: Indices) -> Words:
        found = self._new(len(starts) - 1)

        def work(s: slice) -> None:
            here = np.ascontiguousarray(starts[s.start : s.stop + 1])
            multiply(found[s], values, order, here, self._modulus)

        in_slices(len(found), work, least=8)
        return found


@dataclass(frozen=True)
class FixedBase:
    """Powers of one base by tables of its powers: no squaring, one multiplication for each window of an exponent.

    Attributes
    ----------
    ring, exponent_bits
        Where it lies, and how long exponents may be.
    """

    ring: Ring
    exponent_bits: int
    _table: Words

    @classmethod
    def of(cls, ring: Ring, base: int, exponent_bits: int) -> FixedBase:
        """Compute the tables."""
        n_windows = -(-exponent_bits // WINDOW_BITS)
        columns = [np.repeat(ring.ones, n_windows, axis=0)]
        # The first power of each window is that of the window before, squared once for each of its bits.
        first = [ring.number(base)]
        for _ in range(n_windows - 1):
            first.append(ring.power(first[-1], 1 << WINDOW_BITS))
        bases = np.concatenate(first)
        for _ in range((1 << WINDOW_BITS) - 1):
            columns.append(ring.multiply(columns[-1], bases))
        return cls(ring, exponent_bits, ring._as_table(np.stack(columns, axis=1).reshape(-1, ring.limbs)))

    def power(self, exponents: Bytes) -> Words:
        """Raise the base to each row's exponent, a secret.

        Parameters
        ----------
        exponents
            Shape ``(n, ceil(exponent_bits / 8))``, big-endian.

        Notes
        -----
        Time and memory accesses do not depend on the exponents, but by the portable kernel.
        Source: Brickell, Gordon, McCurley and Wilson, "Fast exponentiation with precomputation", 1992.
        """
        width = -(-self.exponent_bits // 8)
        if exponents.ndim != 2 or exponents.shape[1] != width:
            raise ValueError(f"expected exponents of {width} bytes, got shape {exponents.shape}")
        found = self.ring._new(len(exponents))
        digits = self._digits(exponents)
        in_slices(
            len(found),
            lambda s: self.ring._kernel.fixed_base(found[s], self._table, WINDOW_BITS, digits[s], self.ring._modulus),
        )
        return found

    def _digits(self, exponents: Bytes) -> Bytes:
        n_windows = len(self._table) >> WINDOW_BITS
        if self.exponent_bits % 8 and (exponents[:, 0] >> (self.exponent_bits % 8)).any():
            raise ValueError(f"an exponent has more than {self.exponent_bits} bits")
        first = np.arange(n_windows) * WINDOW_BITS
        # A window lies in two neighbouring bytes, of which the last one's neighbour is nothing.
        low = np.zeros((len(exponents), exponents.shape[1] + 1), dtype=np.uint16)
        low[:, :-1] = exponents[:, ::-1]
        pairs = low[:, first // 8] | low[:, first // 8 + 1] << 8
        digits = pairs >> (first % 8).astype(np.uint16) & ((1 << WINDOW_BITS) - 1)
        return np.ascontiguousarray(digits, dtype=np.uint8)


class SquareRing(Ring):
    """The integers modulo the square of an odd number, faster than `Ring` knows them.

    Parameters
    ----------
    root
        The modulus is its square.
    """

    def __init__(self, root: int, kernel: str | None = None) -> None:
        self.root = root
        super().__init__(root * root, kernel)

    def _prepare(self) -> Modulus:
        return self._kernel.square_modulus(self.root)

    def one_plus(self, magnitudes: Bytes, negative: npt.NDArray[np.bool_]) -> Words:
        """Return ``1 + m * root`` for numbers m, given as absolute values below the root and which are below zero.

        Parameters
        ----------
        magnitudes
            Rows of big-endian bytes, at most as wide as the root.
        """
        if self._modulus.parts == 1:
            rows = np.zeros((len(magnitudes), self.width), dtype=np.uint8)
            rows[:, self.width - magnitudes.shape[1] :] = magnitudes
            slope = np.concatenate([self.number(self.root), self.number(-self.root)])[negative.astype(np.int64)]
            return self.add(self.multiply(self._enter(rows), slope), np.repeat(self.ones, len(rows), axis=0))
        # A pair (a, b) is a - b * root, so that m is taken from the second number of 1.
        halves = self._halves
        first, second = (np.repeat(half, len(magnitudes), axis=0) for half in np.split(self.ones, 2, axis=1))
        signs = np.concatenate([halves.number(-1), halves.ones])[negative.astype(np.int64)]
        taken = halves.multiply(halves._enter(np.ascontiguousarray(magnitudes)), signs)
        return np.concatenate([first, halves.add(second, taken)], axis=1)

    def enter_factors(self, rows: Bytes) -> Words:
        """Take rows of which each must have an inverse, in a form for `factor_products` alone.

        Raises
        ------
        ProtocolViolated
            As `enter_units`.

        Notes
        -----
        Cost: about two multiplications per row, and one inversion for all.
        """
        if self._modulus.parts == 1:
            return self.enter_units(rows)
        try:
            return self._as_table(self.enter(rows))
        except ZeroDivisionError:
            raise self._without_inverse(rows) from None

    def factor_products(self, values: Words, order: Indices, starts: Indices) -> Words:
        """Multiply as `products` does, but what `enter_factors` has taken.

        Notes
        -----
        Cost: four fifths of a multiplication for each number in `order`, and two fifths for each segment.
        """
        return self._products(self._kernel.factor_product, values, order, starts)

    def _as_table(self, residues: Words) -> Words:
        if self._modulus.parts == 1:
            return residues
        first, second = (np.ascontiguousarray(half) for half in np.split(residues, 2, axis=1))
        return np.concatenate([first, self._halves.multiply(second, self._halves.invert(first))], axis=1)

    @cached_property
    def _halves(self) -> _Halves:
        return _Halves(self)


class _Halves(Ring):
    """The integers modulo a root, laid out as the numbers of residues modulo its square."""

    def __init__(self, square: SquareRing) -> None:
        self._square = square
        super().__init__(square.root, square.kernel)

    def _prepare(self) -> Modulus:
        whole = self._square._modulus
        return Modulus.of(whole.base, whole.limb_bits, whole.number_limbs)


class CrtRing(Ring):
    """The integers modulo the product of secret primes of about equal length, or of powers of them.

    Parameters
    ----------
    factors
        Two or more, odd and without a common divisor.
    """

    def __init__(self, *factors: int, kernel: str | None = None) -> None:
        super().__init__(math.prod(factors), kernel)
        self._factors = tuple(Ring(factor, kernel) for factor in factors)

    @cached_property
    def _idempotents(self) -> tuple[int, ...]:
        """What is one modulo one factor and zero modulo the others."""
        rests = [(self.n // ring.n, ring.n) for ring in self._factors]
        return tuple(rest * pow(rest, -1, factor) for rest, factor in rests)

    def crt_power(self, residues: Words, exponents: Sequence[int]) -> Words:
        """Raise every row to a secret exponent, given modulo the order of each factor's units.

        Notes
        -----
        Reveals: a fault in one part of the computation reveals the factors to who sees the result: verify it.
        Cost: for each factor an exponentiation of its length.
        Source: Quisquater and Couvreur, "Fast decipherment algorithm for RSA public-key cryptosystem", 1982; the parts
        are joined by idempotents, so that nothing depends on their values. RFC 8017 section 5.1.2 for more than two.
        """
        parts = []
        for ring, exponent, idempotent in zip(self._factors, exponents, self._idempotents, strict=True):
            power = ring.secret_power(ring.convert(residues, self), exponent, ring.n.bit_length())
            parts.append(self.convert(power, ring, idempotent))
        return reduce(self.add, parts)
