"""Batches of elements and scalars of ristretto255.

An array of elements or scalars is ``uint8`` of shape ``(n, 32)``, one encoding per row as RFC 9496 says; scalars are
little-endian. Three backends compute the same:

=======  ====================================================================
ifma     a native kernel: eight rows at once, in vectors of AVX512-IFMA
avx2     a native kernel: four rows at once, in vectors of AVX2
sodium   libsodium, one call for each row; runs everywhere
=======  ====================================================================
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import native
from fedtasks.crypto.hashing import Messages, Texts, expand_rows
from fedtasks.crypto.kernels import get_kernel
from fedtasks.crypto.modular import Ring
from fedtasks.crypto.threads import in_slices
from fedtasks.errors import ProtocolViolated

Bytes = npt.NDArray[np.uint8]

WIDTH = 32
UNIFORM_BYTES = 64
ORDER = 2**252 + 27742317777372353535851937790883648493
GENERATOR: Bytes = np.frombuffer(
    bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"), dtype=np.uint8
).reshape(1, WIDTH)
"""The element that public keys are multiples of, as one row."""

_LEAST_SUMMANDS = 2048
"""So few rows of a weighted sum are not worth another thread: a sum is the cheaper by row the longer it is."""

_LEAST_FIXED = 256
"""As many of multiples of one base: each slice makes a table of its own."""


# --------------------------------------------------------------------------------------------------------- backends
class _Backend(Protocol):
    """Work on C-contiguous rows; returns the first bad row, or None. `by` may have one row for all."""

    def multiply(self, out: Bytes, elements: Bytes, by: Bytes) -> int | None:
        """Bad: no element, or the product is the identity."""

    def multiply_base(self, out: Bytes, by: Bytes) -> int | None:
        """Bad: the product is the identity."""

    def add_multiples(self, out: Bytes, elements: Bytes, base: Bytes, by: Bytes) -> int | None:
        """Bad: no element, or the sum is the identity."""

    def map_and_add(self, out: Bytes, uniform: Bytes, base: Bytes, by: Bytes) -> int | None:
        """Bad: the sum is the identity."""

    def map_to_group(self, out: Bytes, uniform: Bytes) -> None:
        """No row is bad."""

    def map_and_multiply(self, out: Bytes, uniform: Bytes, by: Bytes) -> int | None:
        """Bad: the product is the identity."""

    def weighted_sum(self, out: Bytes, elements: Bytes, weights: Bytes) -> int | None:
        """Bad: no element, or the identity."""

    def reduce(self, out: Bytes, numbers: Bytes) -> None:
        """No row is bad."""

    def invert(self, out: Bytes, rows: Bytes) -> int | None:
        """Bad: zero."""


@cache
def _libsodium() -> ctypes.CDLL:
    """Load the library, which costs a tenth of a second: only who needs it does."""
    from rbcl._sodium import _sodium, lib_path

    # The wheel unpacks the library into a file of its own for every process, and leaves it there.
    Path(lib_path).unlink(missing_ok=True)
    if _sodium.sodium_init() < 0:
        raise ImportError("libsodium cannot be initialised")
    found: ctypes.CDLL = _sodium
    return found


@cache
def _function(name: str, n_pointers: int, result: type[ctypes.c_int] | None = ctypes.c_int) -> Callable[..., int]:
    found = getattr(_libsodium(), name)
    found.argtypes = [ctypes.c_void_p] * n_pointers
    found.restype = result
    return found  # type: ignore[no-any-return]


def _add() -> Callable[..., int]:
    return _function("crypto_core_ristretto255_add", 3)


class _Sodium:
    """See `_Backend`."""

    def __init__(self) -> None:
        self._multiply = _function("crypto_scalarmult_ristretto255", 3)
        self._multiply_base = _function("crypto_scalarmult_ristretto255_base", 2)
        self._from_hash = _function("crypto_core_ristretto255_from_hash", 2)
        self._reduce = _function("crypto_core_ristretto255_scalar_reduce", 2, None)

    def multiply(self, out: Bytes, elements: Bytes, by: Bytes) -> int | None:
        return _by_row(self._multiply, out, by, elements)

    def multiply_base(self, out: Bytes, by: Bytes) -> int | None:
        return _by_row(self._multiply_base, out, by)

    def add_multiples(self, out: Bytes, elements: Bytes, base: Bytes, by: Bytes) -> int | None:
        multiples = np.empty_like(out)
        if base.tobytes() == GENERATOR.tobytes():
            bad = self.multiply_base(multiples, by)
        else:
            bad = self.multiply(multiples, np.repeat(base, len(out), axis=0), by)
        if bad is None:
            bad = _by_row(_add(), out, elements, multiples)
        return _first_identity(out) if bad is None else bad

    def map_and_add(self, out: Bytes, uniform: Bytes, base: Bytes, by: Bytes) -> int | None:
        elements = np.empty_like(out)
        self.map_to_group(elements, uniform)
        return self.add_multiples(out, elements, base, by)

    def map_to_group(self, out: Bytes, uniform: Bytes) -> None:
        _by_row(self._from_hash, out, uniform)

    def map_and_multiply(self, out: Bytes, uniform: Bytes, by: Bytes) -> int | None:
        elements = np.empty_like(out)
        self.map_to_group(elements, uniform)
        return self.multiply(out, elements, by)

    def weighted_sum(self, out: Bytes, elements: Bytes, weights: Bytes) -> int | None:
        counted: npt.NDArray[np.bool_] = np.any(weights, axis=1)
        # The library returns no identity; so a weight of zero is one until the element has been checked.
        by = np.where(counted[:, None], weights, scalars([1]))
        products = np.empty_like(elements)
        if (bad := self.multiply(products, elements, by)) is None:
            out[:] = total(products[counted])
        return bad

    def reduce(self, out: Bytes, numbers: Bytes) -> None:
        _by_row(self._reduce, out, numbers)

    def invert(self, out: Bytes, rows: Bytes) -> int | None:
        if not (units := rows.any(axis=1)).all():
            return int(units.argmin())
        ring = Ring(ORDER)
        out[:] = ring.leave(ring.invert(ring.enter(rows[:, ::-1])))[:, ::-1]
        return None


def _by_row(function: Callable[..., int], out: Bytes, *inputs: Bytes) -> int | None:
    """Call a function for each row on memory that is never copied, up to the first row that it refuses."""
    n, to = len(out), out.ctypes.data
    places = [(rows.ctypes.data, rows.shape[1] if len(rows) == n else 0) for rows in inputs]
    for row in range(n):
        if function(to + row * WIDTH, *[start + row * step for start, step in places]):
            return row
    return None


def _first_identity(elements: Bytes) -> int | None:
    others = elements.any(axis=1)
    return None if others.all() else int(others.argmin())


class _Native:
    """See `_Backend` and ``native/ristretto.h``."""

    def __init__(self, library: ctypes.CDLL, kernel: str) -> None:
        self._library = library
        self._kernel = kernel

    def multiply(self, out: Bytes, elements: Bytes, by: Bytes) -> int | None:
        return self._call(f"{self._kernel}_multiply", len(out), out, elements, by, _step(by, out))

    def multiply_base(self, out: Bytes, by: Bytes) -> int | None:
        return self._call(f"{self._kernel}_multiply_base", len(out), out, GENERATOR, by)

    def add_multiples(self, out: Bytes, elements: Bytes, base: Bytes, by: Bytes) -> int | None:
        return self._call(f"{self._kernel}_add_multiples", len(out), out, elements, base, by)

    def map_and_add(self, out: Bytes, uniform: Bytes, base: Bytes, by: Bytes) -> int | None:
        return self._call(f"{self._kernel}_map_add_multiples", len(out), out, uniform, base, by)

    def map_to_group(self, out: Bytes, uniform: Bytes) -> None:
        self._call(f"{self._kernel}_from_uniform", len(out), out, uniform)

    def map_and_multiply(self, out: Bytes, uniform: Bytes, by: Bytes) -> int | None:
        return self._call(f"{self._kernel}_map_multiply", len(out), out, uniform, by, _step(by, out))

    def weighted_sum(self, out: Bytes, elements: Bytes, weights: Bytes) -> int | None:
        return self._call(f"{self._kernel}_weighted_sum", len(elements), out, elements, weights)

    def reduce(self, out: Bytes, numbers: Bytes) -> None:
        self._call("reduce_scalars", len(out), out, numbers)

    def invert(self, out: Bytes, rows: Bytes) -> int | None:
        return self._call("invert_scalars", len(out), out, rows)

    def _call(self, function: str, n: int, *arguments: Bytes | int) -> int | None:
        given = [ctypes.c_size_t(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data) for a in arguments]
        called = self._library[f"fedtasks_ristretto_{function}"]  # an object of its own: threads share none
        called.restype = ctypes.c_int64
        found: int = called(*given, ctypes.c_size_t(n))
        if found == _NO_MEMORY:
            raise MemoryError(f"no memory for {n} elements")
        if found == _NO_BASE:
            raise ProtocolViolated("the base is not an element of the group")
        return None if found == _FINE else found


_FINE, _NO_MEMORY, _NO_BASE = -1, -2, -3


def _step(by: Bytes, out: Bytes) -> int:
    return WIDTH if len(by) == len(out) else 0


# Nearly every processor with AVX-512 but without IFMA has AVX2.
_KERNELS = {"ifma": "ifma", "avx512": "avx2", "avx2": "avx2"}


_sodium = cache(_Sodium)


@cache
def _native(kernel: str) -> _Native | None:
    library = native.load()
    if library is None or not library[f"fedtasks_ristretto_{kernel}_works"]():
        return None
    return _Native(library, kernel)


def _backend() -> _Backend:
    kernel = _KERNELS.get(get_kernel().name)
    return (_native(kernel) if kernel else None) or _sodium()


# ---------------------------------------------------------------------------------------------------------- hashing
def map_to_group(uniform: Bytes) -> Bytes:
    """Map rows of 64 uniform bytes, shape ``(n, 64)``, to elements whose discrete logarithms nobody knows.

    Notes
    -----
    Cost: two maps per row.
    Source: RFC 9496 section 4.3.4.
    """
    uniform = _rows(uniform, UNIFORM_BYTES)
    backend, elements = _backend(), _empty(len(uniform))
    in_slices(len(uniform), lambda s: backend.map_to_group(elements[s], uniform[s]))
    return elements


def map_and_multiply(uniform: Bytes, by: Bytes) -> Bytes:
    """Return ``multiply(map_to_group(uniform), by)`` at less cost."""
    uniform = _rows(uniform, UNIFORM_BYTES)
    backend = _backend()
    return _multiplied(len(uniform), by, lambda out, s, factors: backend.map_and_multiply(out, uniform[s], factors))


def hash_to_group(messages: Messages, domain: bytes) -> Bytes:
    """Map messages to elements whose discrete logarithms nobody knows.

    Notes
    -----
    Cost: two maps and 64 bytes of hash per message.
    Source: RFC 9380 appendix B, ristretto255_XMD:SHA-512_R255MAP_RO_.
    """
    return map_to_group(expand_rows(domain, Texts.of(messages)))


def hash_and_multiply(messages: Messages, domain: bytes, by: Bytes) -> Bytes:
    """Return ``multiply(hash_to_group(messages, domain), by)`` at less cost."""
    return map_and_multiply(expand_rows(domain, Texts.of(messages)), by)


def hash_and_add(messages: Messages, domain: bytes, base: Bytes, by: Bytes) -> Bytes:
    """Return ``add_multiples(hash_to_group(messages, domain), base, by)`` at less cost."""
    uniform = expand_rows(domain, Texts.of(messages))
    backend = _backend()
    return _with_multiples(len(uniform), base, by, lambda out, s: backend.map_and_add(out, uniform[s], base, by[s]))


def hash_to_scalar(message: bytes, domain: bytes) -> int:
    """Return a uniform scalar for a message."""
    return int.from_bytes(expand_rows(domain, Texts.of([message])).tobytes(), "little") % ORDER


# ---------------------------------------------------------------------------------------------------------- scalars
def random_scalars(n: int) -> Bytes:
    """Return `n` uniform scalars, none of them zero."""
    while True:
        found = reduced_scalars(_array(secrets.token_bytes(UNIFORM_BYTES * n), UNIFORM_BYTES))
        if found.any(axis=1).all():  # but for a chance of n in 2**252
            return found


def reduced_scalars(uniform: Bytes) -> Bytes:
    """Return little-endian numbers of 64 bytes, shape ``(n, 64)``, modulo the order: uniform if the bytes are."""
    uniform = _rows(uniform, UNIFORM_BYTES)
    found = _empty(len(uniform))
    _backend().reduce(found, uniform)
    return found


def scalars(numbers: Sequence[int]) -> Bytes:
    """Return numbers below `ORDER` as rows."""
    return _array(b"".join([int(number).to_bytes(WIDTH, "little") for number in numbers]), WIDTH)


def inverted(rows: Bytes) -> Bytes:
    """Return the inverse of every scalar.

    Raises
    ------
    ZeroDivisionError
        A scalar is zero.
    """
    rows = _rows(rows)
    found = _empty(len(rows))
    if (bad := _backend().invert(found, rows)) is not None:
        raise ZeroDivisionError(f"scalar {bad} of {len(rows)} is zero")
    return found


def negated(rows: Bytes) -> Bytes:
    """Return the negative of every scalar below `ORDER` that is not zero."""
    rows = _rows(rows)
    order = np.frombuffer(ORDER.to_bytes(WIDTH, "little"), dtype="<u4").astype(np.int64)
    limbs = order - rows.view("<u4").astype(np.int64)
    for limb in range(WIDTH // 4 - 1):
        limbs[:, limb + 1] += limbs[:, limb] >> 32  # a borrow: the shift keeps the sign
    return (limbs & 0xFFFFFFFF).astype("<u4").view(np.uint8)


# --------------------------------------------------------------------------------------------------------- elements
def multiply(elements: Bytes, by: Bytes) -> Bytes:
    """Multiply elements by scalars, row by row, or all by one.

    Parameters
    ----------
    elements, by
        Shape ``(n, 32)``; `by` may have one row instead of `n`.

    Raises
    ------
    ProtocolViolated
        A row is not the encoding of an element, or it is the identity; names the row.

    Notes
    -----
    Time does not depend on the scalars.
    """
    elements = _rows(elements)
    backend = _backend()
    return _multiplied(len(elements), by, lambda out, s, factors: backend.multiply(out, elements[s], factors))


def multiply_base(by: Bytes) -> Bytes:
    """Multiply the generator by every scalar, none of which is zero."""
    by = _rows(by)
    backend, products = _backend(), _empty(len(by))

    def work(s: slice) -> None:
        if backend.multiply_base(products[s], by[s]) is not None:
            raise ValueError("a scalar is zero")

    in_slices(len(by), work)
    return products


def add_multiples(elements: Bytes, base: Bytes, by: Bytes) -> Bytes:
    """Return ``elements + by * base``, row by row.

    Parameters
    ----------
    elements, by
        Shape ``(n, 32)``; no scalar is zero.
    base
        The one element, public, that is multiplied by every scalar: one row.

    Raises
    ------
    ProtocolViolated
        The base or a row is not the encoding of an element, or a sum is the identity; names the row.

    Notes
    -----
    Time does not depend on the scalars.
    Cost: by the native kernels a third of a multiplication per row, for they make a table of the base's multiples for
    each batch; by libsodium an addition more than a multiplication, of the generator a third.
    Source: Brickell, Gordon, McCurley and Wilson, "Fast exponentiation with precomputation", 1992.
    """
    elements = _rows(elements)
    backend = _backend()
    return _with_multiples(len(elements), base, by, lambda out, s: backend.add_multiples(out, elements[s], base, by[s]))


def weighted_sum(elements: Bytes, weights: Bytes) -> Bytes:
    """Return the sum of all elements, each multiplied by its weight, as one row.

    Parameters
    ----------
    elements
        Shape ``(n, 32)``.
    weights
        Scalars of the same shape, which may be zero. They are public: time depends on them.

    Raises
    ------
    ProtocolViolated
        A row is not the encoding of an element, or it is the identity; names the row.

    Notes
    -----
    Cost: in thousands of rows a fifth of a multiplication per row.
    Source: Pippenger, "On the evaluation of powers and related problems", 1976.
    """
    elements, weights = _rows(elements), _rows(weights)
    if len(weights) != len(elements):
        raise ValueError(f"{len(weights)} weights for {len(elements)} elements")
    backend = _backend()
    parts: list[Bytes] = []

    def work(s: slice) -> None:
        part = _empty(1)
        _check(backend.weighted_sum(part, elements[s], weights[s]), s, len(elements))
        parts.append(part)

    in_slices(len(elements), work, _LEAST_SUMMANDS)
    return parts[0] if len(parts) == 1 else total(np.concatenate(parts))


def total(elements: Bytes) -> Bytes:
    """Return the sum of all elements as one row.

    Raises
    ------
    ProtocolViolated
        A row is not the encoding of an element.
    """
    elements = _rows(elements)
    found = np.zeros((1, WIDTH), dtype=np.uint8)  # the encoding of the identity
    add, to, element = _add(), found.ctypes.data, elements.ctypes.data
    for row in range(len(elements)):
        if add(to, to, element + row * WIDTH):
            raise ProtocolViolated(f"row {row} of {len(elements)} is not an element of the group")
    return found


def _multiplied(n: int, by: Bytes, multiply_slice: Callable[[Bytes, slice, Bytes], int | None]) -> Bytes:
    by = _rows(by)
    if len(by) not in (n, 1):
        raise ValueError(f"{len(by)} scalars for {n} elements")
    products = _empty(n)

    def work(s: slice) -> None:
        _check(multiply_slice(products[s], s, by[s] if len(by) == n else by), s, n)

    in_slices(n, work)
    return products


def _with_multiples(n: int, base: Bytes, by: Bytes, add_slice: Callable[[Bytes, slice], int | None]) -> Bytes:
    if len(_rows(base)) != 1 or len(_rows(by)) != n or not by.flags.c_contiguous or not base.flags.c_contiguous:
        raise ValueError(f"{len(by)} scalars and {len(base)} bases for {n} elements")
    sums = _empty(n)
    in_slices(n, lambda s: _check(add_slice(sums[s], s), s, n), _LEAST_FIXED)
    return sums


def _check(bad: int | None, part: slice, n: int) -> None:
    if bad is not None:
        row = part.start + bad
        raise ProtocolViolated(f"row {row} of {n} is not an element of the group, or its identity")


def _rows(rows: Bytes, width: int = WIDTH) -> Bytes:
    # Backends would read past the end of shorter rows.
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ProtocolViolated(f"expected rows of {width} bytes, got shape {rows.shape}")
    return np.ascontiguousarray(rows)


def _empty(n: int) -> Bytes:
    return np.empty((n, WIDTH), dtype=np.uint8)


def _array(raw: bytes, width: int) -> Bytes:
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)
