"""Batches of elements and scalars of ristretto255.

An array of elements or scalars is ``uint8`` of shape ``(n, 32)``, one encoding per row as RFC 9496 says; scalars are
little-endian. What computes is in `ristretto_backends`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import numpy as np

from fedtasks.crypto.hashing import Messages, Texts, expand_rows
from fedtasks.crypto.ristretto_backends import GENERATOR, ORDER, WIDTH, Bytes, get_backend, sum_up
from fedtasks.crypto.threads import in_slices
from fedtasks.errors import ProtocolViolated

__all__ = [
    "GENERATOR",
    "ORDER",
    "UNIFORM_BYTES",
    "WIDTH",
    "Bytes",
    "add_multiples",
    "hash_and_add",
    "hash_and_multiply",
    "hash_to_group",
    "hash_to_scalar",
    "inverted",
    "map_and_multiply",
    "map_to_group",
    "multiply",
    "multiply_base",
    "negated",
    "random_scalars",
    "reduced_scalars",
    "scalars",
    "total",
    "weighted_sum",
]

UNIFORM_BYTES = 64

_LEAST_SUMMANDS = 2048
"""So few rows of a weighted sum are not worth another thread: a sum is the cheaper by row the longer it is."""

_LEAST_FIXED = 256
"""As many of multiples of one base: each slice makes a table of its own."""


# ---------------------------------------------------------------------------------------------------------- hashing
def map_to_group(uniform: Bytes) -> Bytes:
    """Map rows of 64 uniform bytes, shape ``(n, 64)``, to elements whose discrete logarithms nobody knows.

    Notes
    -----
    Cost: two maps per row.
    Source: RFC 9496 section 4.3.4.
    """
    uniform = _rows(uniform, UNIFORM_BYTES)
    backend, elements = get_backend(), _empty(len(uniform))
    in_slices(len(uniform), lambda s: backend.map_to_group(elements[s], uniform[s]))
    return elements


def map_and_multiply(uniform: Bytes, by: Bytes) -> Bytes:
    """Return ``multiply(map_to_group(uniform), by)`` at less cost."""
    uniform = _rows(uniform, UNIFORM_BYTES)
    backend = get_backend()
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
    backend = get_backend()
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
    get_backend().reduce(found, uniform)
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
    if (bad := get_backend().invert(found, rows)) is not None:
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
    backend = get_backend()
    return _multiplied(len(elements), by, lambda out, s, factors: backend.multiply(out, elements[s], factors))


def multiply_base(by: Bytes) -> Bytes:
    """Multiply the generator by every scalar, none of which is zero."""
    by = _rows(by)
    backend, products = get_backend(), _empty(len(by))

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
    backend = get_backend()
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
    backend = get_backend()
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
    found = _empty(1)
    if (bad := sum_up(found, elements)) is not None:
        raise ProtocolViolated(f"row {bad} of {len(elements)} is not an element of the group")
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
