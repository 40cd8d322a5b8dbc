"""Batches of elements and scalars of ristretto255, over libsodium.

An array of elements or scalars is ``uint8`` of shape ``(n, 32)``, C-contiguous, one encoding per row as RFC 9496 says;
scalars are little-endian. One call of the library serves one row, on memory that is never copied.
"""

from __future__ import annotations

import ctypes
import hashlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import gmpy2
import numpy as np
import numpy.typing as npt
from rbcl._sodium import _sodium as _lib
from rbcl._sodium import lib_path

from fedtasks.crypto.modular import inverses
from fedtasks.errors import ProtocolViolated

Bytes = npt.NDArray[np.uint8]

WIDTH = 32
ORDER = 2**252 + 27742317777372353535851937790883648493

_BLOCK_BYTES = 128
_ZERO_BLOCK = hashlib.sha512(bytes(_BLOCK_BYTES))
# 16 bytes more than the order make the reduction uniform.
_WIDE_BYTES = WIDTH + 16


def _function(name: str, n_pointers: int) -> Callable[..., int]:
    found = getattr(_lib, name)
    found.argtypes = [ctypes.c_void_p] * n_pointers
    found.restype = ctypes.c_int
    return found  # type: ignore[no-any-return]


_multiply = _function("crypto_scalarmult_ristretto255", 3)
_multiply_base = _function("crypto_scalarmult_ristretto255_base", 2)
_add = _function("crypto_core_ristretto255_add", 3)
_from_hash = _function("crypto_core_ristretto255_from_hash", 2)
# The wheel unpacks the library into a file of its own for every process, and leaves it there.
Path(lib_path).unlink(missing_ok=True)
if _lib.sodium_init() < 0:
    raise ImportError("libsodium cannot be initialised")


def expander(domain: bytes) -> Callable[[bytes], bytes]:
    """Return the function that makes 64 uniform bytes of a message: ``expand_message_xmd`` with SHA-512.

    Notes
    -----
    Source: RFC 9380 section 5.3.1.
    """
    tail = domain + bytes([len(domain)])
    first_tail, second_tail = (64).to_bytes(2, "big") + b"\0" + tail, b"\x01" + tail

    def expand(message: bytes) -> bytes:
        first = _ZERO_BLOCK.copy()
        first.update(message + first_tail)
        return hashlib.sha512(first.digest() + second_tail).digest()

    return expand


def hash_to_group(messages: Sequence[bytes], domain: bytes) -> Bytes:
    """Map messages to elements whose discrete logarithms nobody knows.

    Notes
    -----
    Cost: two maps and 64 bytes of hash per message.
    Source: RFC 9380 appendix B, ristretto255_XMD:SHA-512_R255MAP_RO_.
    """
    expand = expander(domain)
    uniform = _array(b"".join([expand(message) for message in messages]), 64)
    elements = np.empty((len(messages), WIDTH), dtype=np.uint8)
    to, source = elements.ctypes.data, uniform.ctypes.data
    for row in range(len(messages)):
        _from_hash(to + row * WIDTH, source + row * 64)
    return elements


def hash_to_scalar(message: bytes, domain: bytes) -> int:
    """Return a uniform scalar for a message."""
    return int.from_bytes(expander(domain)(message), "little") % ORDER


def random_scalars(n: int) -> Bytes:
    """Return `n` uniform scalars, none of them zero."""
    raw = secrets.token_bytes(_WIDE_BYTES * n)
    places = range(0, len(raw), _WIDE_BYTES)
    return scalars([1 + int.from_bytes(raw[at : at + _WIDE_BYTES], "little") % (ORDER - 1) for at in places])


def scalars(numbers: Sequence[int]) -> Bytes:
    """Return numbers below `ORDER` as rows."""
    return _array(b"".join([int(number).to_bytes(WIDTH, "little") for number in numbers]), WIDTH)


def inverted(rows: Bytes) -> Bytes:
    """Return the inverse of every scalar, none of which is zero."""
    raw = rows.tobytes()
    numbers = [gmpy2.mpz(int.from_bytes(raw[at : at + WIDTH], "little")) for at in range(0, len(raw), WIDTH)]
    return scalars([int(number) for number in inverses(numbers, gmpy2.mpz(ORDER))])


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
    _check_width(elements)
    _check_width(by)
    step = WIDTH if len(by) == len(elements) else 0
    if not step and len(by) != 1:
        raise ValueError(f"{len(by)} scalars for {len(elements)} elements")
    elements, by = np.ascontiguousarray(elements), np.ascontiguousarray(by)
    products = np.empty((len(elements), WIDTH), dtype=np.uint8)
    to, scalar, element = products.ctypes.data, by.ctypes.data, elements.ctypes.data
    for row in range(len(elements)):
        if _multiply(to + row * WIDTH, scalar + row * step, element + row * WIDTH):
            raise ProtocolViolated(f"row {row} of {len(elements)} is not an element of the group, or its identity")
    return products


def multiply_base(by: Bytes) -> Bytes:
    """Multiply the generator by every scalar, none of which is zero."""
    by = np.ascontiguousarray(by)
    products = np.empty((len(by), WIDTH), dtype=np.uint8)
    to, scalar = products.ctypes.data, by.ctypes.data
    for row in range(len(by)):
        if _multiply_base(to + row * WIDTH, scalar + row * WIDTH):
            raise ValueError("a scalar is zero")
    return products


def total(elements: Bytes) -> Bytes:
    """Return the sum of all elements as one row.

    Raises
    ------
    ProtocolViolated
        A row is not the encoding of an element.
    """
    _check_width(elements)
    elements = np.ascontiguousarray(elements)
    found = np.zeros((1, WIDTH), dtype=np.uint8)  # the encoding of the identity
    to, element = found.ctypes.data, elements.ctypes.data
    for row in range(len(elements)):
        if _add(to, to, element + row * WIDTH):
            raise ProtocolViolated(f"row {row} of {len(elements)} is not an element of the group")
    return found


def _check_width(rows: Bytes) -> None:
    # The library would read past the end of shorter rows.
    if rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise ProtocolViolated(f"expected rows of {WIDTH} bytes, got shape {rows.shape}")


def _array(raw: bytes, width: int) -> Bytes:
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)
