"""What multiplies and adds rows of ristretto255.

Three backends compute the same:

=======  ====================================================================
ifma     a native kernel: eight rows at once, in vectors of AVX512-IFMA
avx2     a native kernel: four rows at once, in vectors of AVX2
sodium   libsodium, one call for each row; runs everywhere
=======  ====================================================================
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import native
from fedtasks.crypto.kernels import get_kernel
from fedtasks.crypto.modular import Ring
from fedtasks.errors import ProtocolViolated

Bytes = npt.NDArray[np.uint8]

WIDTH = 32
ORDER = 2**252 + 27742317777372353535851937790883648493
GENERATOR: Bytes = np.frombuffer(
    bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"), dtype=np.uint8
).reshape(1, WIDTH)
"""The element that public keys are multiples of, as one row."""

_ONE: Bytes = np.eye(1, WIDTH, dtype=np.uint8)


class Backend(Protocol):
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
    """See `Backend`."""

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
        by = np.where(counted[:, None], weights, _ONE)
        products = np.empty_like(elements)
        if (bad := self.multiply(products, elements, by)) is None:
            sum_up(out, products[counted])
        return bad

    def reduce(self, out: Bytes, numbers: Bytes) -> None:
        _by_row(self._reduce, out, numbers)

    def invert(self, out: Bytes, rows: Bytes) -> int | None:
        if not (units := rows.any(axis=1)).all():
            return int(units.argmin())
        ring = Ring(ORDER)
        out[:] = ring.leave(ring.invert(ring.enter(rows[:, ::-1])))[:, ::-1]
        return None


def sum_up(out: Bytes, elements: Bytes) -> int | None:
    """Set one row to the sum of all elements, by libsodium, up to the first row that is none; returns that."""
    out[:] = 0  # the encoding of the identity
    add, to, element = _add(), out.ctypes.data, elements.ctypes.data
    return next((row for row in range(len(elements)) if add(to, to, element + row * WIDTH)), None)


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
    """See `Backend` and ``native/ristretto.h``."""

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


def get_backend() -> Backend:
    """Return what computes fastest on this machine, as far as the kernel that is chosen allows."""
    kernel = _KERNELS.get(get_kernel().name)
    return (_native(kernel) if kernel else None) or _sodium()
