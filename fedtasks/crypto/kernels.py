"""Kernels: the same batch arithmetic modulo an odd number, computed in several ways.

========  =====================================================  =========================
kernel    how                                                    residues
========  =====================================================  =========================
ifma      eight numbers at once in vectors of AVX512-IFMA         Montgomery, 52-bit limbs
avx512    eight at once, by doubles in vectors of AVX-512         Montgomery, 52-bit limbs
avx2      four at once, by doubles in vectors of AVX2             Montgomery, 52-bit limbs
openssl   OpenSSL's libcrypto, called from C                      Montgomery, 64-bit limbs
portable  gmpy2, called from Python                               plain, 64-bit limbs
========  =====================================================  =========================

`fedtasks.crypto.modular` is the interface for what needs arithmetic; nothing else calls a kernel. Those who have C of
their own beside it (`ristretto`, `hashing`) ask here whether to use it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

import gmpy2
import numpy as np
import numpy.typing as npt

from fedtasks.crypto import native
from fedtasks.errors import ConfigError

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

VARIABLE = "FEDTASKS_KERNEL"
"""Names the kernel to use; otherwise it is the fastest one that runs on this machine."""


@dataclass(frozen=True)
class Modulus:
    """What a kernel knows of an odd modulus.

    Attributes
    ----------
    n
        The modulus.
    base, parts
        Residues are single numbers (1) and `base` is n; or they are pairs (2) and `base` is the root of n: then a pair
        (a, b) is ``a - b * base``.
    limb_bits, limbs
        How a residue is laid out: `limbs` little-endian words that hold `limb_bits` bits each, of a pair half of them
        each.
    r
        What residues are multiplied by: 2 to the power of all bits of a number in Montgomery form, else 1.
    words
        The base as a row.
    n_inverse
        -1/base modulo 2 to the power of `limb_bits`.
    """

    n: int
    base: int
    parts: int
    r: int
    limb_bits: int
    limbs: int
    words: Words
    n_inverse: int

    @classmethod
    def of(cls, base: int, limb_bits: int, limbs: int, *, parts: int = 1, montgomery: bool = True) -> Modulus:
        """Compute the constants of a modulus, the power of `base`, whose numbers have so many limbs."""
        r = 1 << (limb_bits * limbs) if montgomery else 1
        inverse = -pow(base, -1, 1 << limb_bits) % (1 << limb_bits)
        words = to_limbs(base, limb_bits, limbs)
        return cls(base**parts, base, parts, r, limb_bits, parts * limbs, words, inverse)

    @property
    def number_limbs(self) -> int:
        """Limbs of a number: of a whole residue, or of half a pair."""
        return self.limbs // self.parts

    @cached_property
    def one(self) -> Words:
        """The number one."""
        return self.row(self.r)

    @cached_property
    def square(self) -> Words:
        """What takes a number into Montgomery form by one multiplication."""
        return self.row(self.r**2)

    def row(self, number: int) -> Words:
        """Lay a number out as a residue, not in Montgomery form."""
        number %= self.n
        if self.parts == 1:
            return to_limbs(number, self.limb_bits, self.limbs)
        halves = (number % self.base, -(number // self.base) % self.base)
        return np.concatenate([to_limbs(half, self.limb_bits, self.number_limbs) for half in halves], axis=1)


def to_limbs(number: int, limb_bits: int, limbs: int) -> Words:
    """Return a number as one row of limbs."""
    mask = (1 << limb_bits) - 1
    return np.array([[(number >> (limb_bits * place)) & mask for place in range(limbs)]], dtype=np.uint64)


class Kernel(Protocol):
    """Arithmetic on residues: ``uint64`` of shape ``(n, limbs)``, C-contiguous, in the kernel's own form.

    Results are written into `out`, which may be an operand. Nothing is checked here.
    """

    name: str

    def modulus(self, n: int) -> Modulus:
        """Prepare an odd modulus; raises `ValueError` when it is too long for the kernel."""

    def square_modulus(self, root: int) -> Modulus:
        """Prepare the square of an odd number; raises as `modulus`."""

    def enter(self, out: Words, rows: Bytes, modulus: Modulus) -> None:
        """Take rows of big-endian bytes, each below 2 to the power of all bits of a residue."""

    def leave(self, out: Bytes, residues: Words, modulus: Modulus) -> None:
        """Give residues as rows of big-endian bytes, each below n."""

    def convert(self, out: Words, residues: Words, source: Modulus, target: Modulus, factor: int) -> None:
        """Take residues modulo `source`, as they are there, times a factor."""

    def multiply(self, out: Words, a: Words, b: Words, modulus: Modulus) -> None:
        """Multiply row by row; either may have one row."""

    def add(self, out: Words, a: Words, b: Words, modulus: Modulus) -> None:
        """Add row by row."""

    def power(self, out: Words, residues: Words, exponent: int, bits: int, secret: bool, modulus: Modulus) -> None:
        """Raise every row to one exponent of so many bits."""

    def fixed_base(self, out: Words, table: Words, window_bits: int, digits: Bytes, modulus: Modulus) -> None:
        """Multiply what each row's digits choose from their tables: shape ``(windows << window_bits, limbs)``.

        Of a pair (a, b) a table has (a, b / a), its second number as a residue modulo the root.
        """

    def segmented_product(self, out: Words, values: Words, order: Indices, starts: Indices, modulus: Modulus) -> None:
        """Multiply ``values[order[starts[s]:starts[s + 1]]]`` for each segment s."""

    def factor_product(self, out: Words, values: Words, order: Indices, starts: Indices, modulus: Modulus) -> None:
        """Do the same with values as tables have them, by segments of at most 256 rows."""


class PortableKernel:
    """See `Kernel`; one Python integer for each row."""

    name = "portable"

    def modulus(self, n: int) -> Modulus:
        """See `Kernel`."""
        return Modulus.of(n, 64, -(-n.bit_length() // 64), montgomery=False)

    def square_modulus(self, root: int) -> Modulus:
        """See `Kernel`."""
        return self.modulus(root * root)

    def enter(self, out: Words, rows: Bytes, modulus: Modulus) -> None:
        """See `Kernel`."""
        n = gmpy2.mpz(modulus.n)
        _write(out, [number % n for number in _read(rows, "big")])

    def leave(self, out: Bytes, residues: Words, modulus: Modulus) -> None:
        """See `Kernel`."""
        _write(out, _read(residues), "big")

    def convert(self, out: Words, residues: Words, source: Modulus, target: Modulus, factor: int) -> None:
        """See `Kernel`."""
        n, by = gmpy2.mpz(target.n), gmpy2.mpz(factor)
        _write(out, [number * by % n for number in _read(residues)])

    def multiply(self, out: Words, a: Words, b: Words, modulus: Modulus) -> None:
        """See `Kernel`."""
        n = gmpy2.mpz(modulus.n)
        left, right = (_read(each) * (len(out) // max(1, len(each))) for each in (a, b))
        _write(out, [x * y % n for x, y in zip(left, right, strict=True)])

    def add(self, out: Words, a: Words, b: Words, modulus: Modulus) -> None:
        """See `Kernel`."""
        n = gmpy2.mpz(modulus.n)
        _write(out, [(x + y) % n for x, y in zip(_read(a), _read(b), strict=True)])

    def power(self, out: Words, residues: Words, exponent: int, bits: int, secret: bool, modulus: Modulus) -> None:
        """See `Kernel`."""
        n = gmpy2.mpz(modulus.n)
        if secret and exponent:
            _write(out, [gmpy2.powmod_sec(number, exponent, n) for number in _read(residues)])
        else:
            _write(out, gmpy2.powmod_base_list(_read(residues), exponent, n))

    def fixed_base(self, out: Words, table: Words, window_bits: int, digits: Bytes, modulus: Modulus) -> None:
        """See `Kernel`; memory accesses depend on the digits."""
        n, entries = gmpy2.mpz(modulus.n), _read(table)
        products = [gmpy2.mpz(1)] * len(digits)
        for window, column in enumerate(digits.T.tolist()):
            here = entries[window << window_bits : (window + 1) << window_bits]
            products = [product * here[digit] % n for product, digit in zip(products, column, strict=True)]
        _write(out, products)

    def segmented_product(self, out: Words, values: Words, order: Indices, starts: Indices, modulus: Modulus) -> None:
        """See `Kernel`."""
        n, numbers = gmpy2.mpz(modulus.n), _read(values)
        products = []
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            product = gmpy2.mpz(1)
            for row in order[start:end].tolist():
                product = product * numbers[row] % n
            products.append(product)
        _write(out, products)

    def factor_product(self, out: Words, values: Words, order: Indices, starts: Indices, modulus: Modulus) -> None:
        """See `Kernel`; there are no pairs."""
        self.segmented_product(out, values, order, starts, modulus)


def _read(rows: npt.NDArray[Any], order: str = "little") -> list[gmpy2.mpz]:
    width, raw = rows.shape[1] * rows.itemsize, rows.tobytes()
    return [gmpy2.mpz.from_bytes(raw[at : at + width], order) for at in range(0, len(raw), width)]


def _write(out: npt.NDArray[Any], numbers: Sequence[gmpy2.mpz], order: str = "little") -> None:
    width = out.shape[1] * out.itemsize
    raw = b"".join([number.to_bytes(width, order) for number in numbers])
    out[:] = np.frombuffer(raw, dtype=out.dtype).reshape(out.shape)


class NativeKernel:
    """See `Kernel`; C code that releases the GIL, see ``native/kernels.h``.

    Parameters
    ----------
    name
        What its functions in C are called by.
    limb_bits, block, max_limbs
        Bits of a limb; a number of limbs is a multiple of `block`, at most `max_limbs`.
    spare_bits
        So many bits of a number above those of n are free.
    pair_spare_bits
        The same of the two numbers of a residue modulo a square; None if residues there are single numbers.
    """

    def __init__(
        self, name: str, limb_bits: int, block: int, spare_bits: int, max_limbs: int, pair_spare_bits: int | None = None
    ) -> None:
        self.name = name
        self._limb_bits, self._block, self._spare_bits, self._max_limbs = limb_bits, block, spare_bits, max_limbs
        self._pair_spare_bits = pair_spare_bits

    @staticmethod
    def works(name: str) -> bool:
        """Whether the library is there and has the kernel, and this machine can run it."""
        library = native.load()
        return library is not None and bool(getattr(library, f"fedtasks_{name}_works")())

    def modulus(self, n: int) -> Modulus:
        """See `Kernel`."""
        return self._modulus(n, 1, self._spare_bits)

    def square_modulus(self, root: int) -> Modulus:
        """See `Kernel`."""
        if self._pair_spare_bits is None:
            return self.modulus(root * root)
        return self._modulus(root, 2, self._pair_spare_bits)

    def enter(self, out: Words, rows: Bytes, modulus: Modulus) -> None:
        """See `Kernel`; of a pair the lower and the upper limbs of a row are numbers of their own."""
        self._call("from_bytes", out, rows, rows.shape[1], len(rows), modulus.limbs)
        if modulus.parts == 1:
            self.multiply(out, out, modulus.square, modulus)
            return
        width = modulus.number_limbs
        upper = np.zeros_like(out)
        upper[:, :width] = out[:, width:]
        out[:, width:] = 0
        self.multiply(out, out, modulus.square, modulus)
        self.multiply(upper, upper, modulus.row(modulus.r**3), modulus)
        self.add(out, out, upper, modulus)

    def leave(self, out: Bytes, residues: Words, modulus: Modulus) -> None:
        """See `Kernel`."""
        plain = np.empty_like(residues)
        self.multiply(plain, residues, to_limbs(1, self._limb_bits, modulus.limbs), modulus)
        width, parts = modulus.number_limbs, modulus.parts
        self._call("to_bytes", out, out.shape[1], plain, len(plain), modulus.words, width, parts)

    def convert(self, out: Words, residues: Words, source: Modulus, target: Modulus, factor: int) -> None:
        """See `Kernel`; a residue is cut into pieces that fit the target, which are scaled and added up."""
        factor = pow(source.r, -1, target.n) * factor * target.r**2
        piece = np.zeros_like(out)
        for part in range(source.parts):
            number = residues[:, part * source.number_limbs : (part + 1) * source.number_limbs]
            for start in range(0, source.number_limbs, target.number_limbs):
                here = number[:, start : start + target.number_limbs]
                piece[:] = 0
                piece[:, : here.shape[1]] = here
                by = (-source.base) ** part * factor << (self._limb_bits * start)
                self.multiply(piece, piece, target.row(by), target)
                if part or start:
                    self.add(out, out, piece, target)
                else:
                    out[:] = piece

    def multiply(self, out: Words, a: Words, b: Words, modulus: Modulus) -> None:
        """See `Kernel`."""
        steps = [modulus.limbs if len(each) == len(out) else 0 for each in (a, b)]
        self._call("multiply", out, a, steps[0], b, steps[1], len(out), *self._constants(modulus))

    def add(self, out: Words, a: Words, b: Words, modulus: Modulus) -> None:
        """See `Kernel`."""
        self._call("add", out, a, b, len(out), modulus.words, modulus.number_limbs, modulus.parts)

    def power(self, out: Words, residues: Words, exponent: int, bits: int, secret: bool, modulus: Modulus) -> None:
        """See `Kernel`."""
        raw = np.frombuffer(exponent.to_bytes(-(-bits // 8) or 1, "little"), dtype=np.uint8)
        constants = (modulus.one, *self._constants(modulus))
        self._call("power", out, residues, len(out), raw, bits, int(secret), *constants)

    def fixed_base(self, out: Words, table: Words, window_bits: int, digits: Bytes, modulus: Modulus) -> None:
        """See `Kernel`."""
        windows = len(table) >> window_bits
        constants = (modulus.one, *self._constants(modulus))
        self._call("fixed_base", out, table, windows, window_bits, digits, len(out), *constants)

    def segmented_product(self, out: Words, values: Words, order: Indices, starts: Indices, modulus: Modulus) -> None:
        """See `Kernel`."""
        constants = (modulus.one, *self._constants(modulus))
        self._call("segmented_product", out, values, order, starts, len(out), *constants)

    def factor_product(self, out: Words, values: Words, order: Indices, starts: Indices, modulus: Modulus) -> None:
        """See `Kernel`."""
        if modulus.parts == 1:
            self.segmented_product(out, values, order, starts, modulus)
            return
        constants = (modulus.one, *self._constants(modulus))
        self._call("factor_product", out, values, order, starts, len(out), *constants)

    def _modulus(self, base: int, parts: int, spare_bits: int) -> Modulus:
        limbs = -(-(base.bit_length() + spare_bits) // self._limb_bits)
        limbs = -(-limbs // self._block) * self._block
        if parts * limbs > self._max_limbs:
            raise ValueError(f"a modulus of {parts * base.bit_length()} bits is too long for kernel {self.name}")
        return Modulus.of(base, self._limb_bits, limbs, parts=parts)

    def _constants(self, modulus: Modulus) -> tuple[Words, ctypes.c_uint64, int, int]:
        return modulus.words, ctypes.c_uint64(modulus.n_inverse), modulus.number_limbs, modulus.parts

    def _call(self, function: str, *arguments: Any) -> None:
        native.call(f"fedtasks_{self.name}_{function}", *arguments)


# Limits of those in lanes: see modular_lanes.h.
_LANES: dict[str, Any] = {"limb_bits": 52, "block": 10, "spare_bits": 4, "max_limbs": 160, "pair_spare_bits": 12}
_KERNELS: dict[str, Kernel] = {
    "ifma": NativeKernel("ifma", **_LANES),
    "avx512": NativeKernel("avx512", **_LANES),
    "avx2": NativeKernel("avx2", **_LANES),
    "openssl": NativeKernel("openssl", limb_bits=64, block=1, spare_bits=0, max_limbs=1 << 10),
    "portable": PortableKernel(),
}
_chosen: ContextVar[str] = ContextVar("kernel", default="")


@cache
def available_kernels() -> tuple[str, ...]:
    """Return the names of the kernels that run on this machine, the fastest first."""
    return tuple(name for name in _KERNELS if name == "portable" or NativeKernel.works(name))


def get_kernel(name: str | None = None) -> Kernel:
    """Return a kernel: the one of this name, else the one in use, see `using`, else the fastest.

    Raises
    ------
    ConfigError
        There is no such kernel, or it does not run on this machine.
    """
    found = available_kernels()
    name = name or _chosen.get() or os.environ.get(VARIABLE) or found[0]
    if name not in found:
        raise ConfigError(f"kernel {name!r} does not run here; there are {', '.join(found)}", field=VARIABLE)
    return _KERNELS[name]


@contextmanager
def using(name: str) -> Iterator[None]:
    """Let this thread use a kernel, whatever ``FEDTASKS_KERNEL`` says: for tests and measurements.

    Raises
    ------
    ConfigError
        As `get_kernel`.
    """
    token = _chosen.set(get_kernel(name).name)
    try:
        yield
    finally:
        _chosen.reset(token)
