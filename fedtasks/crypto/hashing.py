"""Hashes of many rows at once: a row is the concatenation of what columns hold for it.

========  ==============================================================
kernel    how
========  ==============================================================
avx512    eight or sixteen rows at once in vectors, see ``hash_rows.c``
avx2      four or eight
plain     row by row in C
hashlib   row by row in Python
========  ==============================================================
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, repeat
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import native
from fedtasks.crypto.kernels import get_kernel
from fedtasks.crypto.threads import in_slices

Bytes = npt.NDArray[np.uint8]
Algorithm = Literal["sha256", "sha384", "sha512"]
Kernel = Literal["avx512", "avx2", "plain", "hashlib"]

_DIGEST_BYTES: dict[Algorithm, int] = {"sha256": 32, "sha384": 48, "sha512": 64}
_NATIVE: dict[Kernel, int] = {"avx512": 1, "avx2": 2, "plain": 0}
_LEAST_ROWS = 2048
"""So many rows take as long as it takes to hand them to a thread."""


@dataclass(frozen=True, eq=False)
class Texts:
    """A column of byte strings, laid out as Arrow does: row i is ``data[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    data
        ``uint8``, C-contiguous; what stands before the first offset and behind the last one is left alone.
    offsets
        ``int64``, C-contiguous, one more than there are rows.

    Raises
    ------
    ValueError
        The arrays are not of that form, or an offset is below the one before it or beyond the data.
    """

    data: Bytes
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        data, offsets = self.data, self.offsets
        if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
            raise ValueError(f"data of texts must be contiguous bytes, not {data.dtype} of shape {data.shape}")
        if offsets.dtype != np.int64 or offsets.ndim != 1 or not offsets.flags.c_contiguous or not len(offsets):
            raise ValueError(f"offsets must be contiguous int64, not {offsets.dtype} of shape {offsets.shape}")
        # C code reads where they point to.
        if offsets[0] < 0 or offsets[-1] > len(data) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("offsets must ascend within the data")

    @classmethod
    def of(cls, messages: Messages) -> Texts:
        """Take messages in either form; a sequence is copied."""
        if isinstance(messages, Texts):
            return messages
        offsets = np.zeros(len(messages) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, messages), dtype=np.int64, count=len(messages)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(messages), dtype=np.uint8), offsets)

    @classmethod
    def from_buffers(
        cls,
        offsets: bytes | memoryview,
        data: bytes | memoryview | None,
        n_rows: int,
        first: int = 0,
        offset_bytes: Literal[4, 8] = 4,
    ) -> Texts:
        """Take an Arrow column of strings or binaries without copying its data.

        Parameters
        ----------
        offsets, data
            The second and the third buffer of the column; Arrow may leave out the data of empty texts.
        n_rows, first
            Its length, and the place of its first row in the buffers: its ``offset``.
        offset_bytes
            8 for a large string or a large binary.

        Raises
        ------
        ValueError
            The buffers are too short.

        Notes
        -----
        A null counts as an empty text; who must not have nulls looks for them first.
        """
        if n_rows == 0:
            # Arrow may leave out the only offset, too.
            return cls.of([])
        kind = np.int32 if offset_bytes == 4 else np.int64
        wide = np.frombuffer(offsets, kind, n_rows + 1, first * offset_bytes).astype(np.int64, copy=False)
        return cls(np.frombuffer(b"" if data is None else data, dtype=np.uint8), wide)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many bytes each text has."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[bytes]:
        raw, places = self.data.tobytes(), self.offsets.tolist()
        return (raw[start:end] for start, end in pairwise(places))


Messages: TypeAlias = Sequence[bytes] | Texts


@dataclass(frozen=True, eq=False)
class Length:
    """The column of how long texts are, in so many bytes, big-endian.

    Raises
    ------
    ValueError
        A text is longer than these bytes can say.
    """

    texts: Texts
    n_bytes: Literal[2, 4]

    def __post_init__(self) -> None:
        if self.n_bytes not in (2, 4):
            raise ValueError(f"a length has 2 or 4 bytes, not {self.n_bytes}")
        longest = int(self.texts.lengths.max(initial=0))
        if longest >= 256**self.n_bytes:
            raise ValueError(f"a text of {longest} bytes is too long for a length of {self.n_bytes} bytes")


Part: TypeAlias = bytes | Texts | Length | Bytes
"""A column: the same bytes for every row, texts, their lengths, or ``uint8`` of shape ``(n, width)``."""


def hash_rows(algorithm: Algorithm, *parts: Part, kernel: Kernel | None = None) -> Bytes:
    """Hash rows that are put together from columns.

    Parameters
    ----------
    parts
        What a row consists of, in order; all but constants have as many rows.
    kernel
        By default the fastest one, or that in Python where `fedtasks.crypto.kernels` says ``portable``.

    Returns
    -------
    ndarray
        ``uint8``, shape ``(n, 32)``, ``(n, 48)`` or ``(n, 64)``: one digest per row.

    Raises
    ------
    ValueError
        The columns differ in length, nothing says how many rows there are, an array does not hold rows of bytes, or
        there is no such hash or kernel.

    Notes
    -----
    Cost: in vectors, about 0.1 µs for each row of one block (64 bytes with SHA-256, else 128) on one core.
    Source: FIPS 180-4.
    """
    if algorithm not in _DIGEST_BYTES:
        raise ValueError(f"there is no hash {algorithm!r}; there are {', '.join(_DIGEST_BYTES)}")
    kernel = kernel or ("hashlib" if get_kernel().name == "portable" else available_kernels()[0])
    if kernel not in available_kernels():
        raise ValueError(f"kernel {kernel!r} does not run here; there are {', '.join(available_kernels())}")
    n_rows = _count_rows(parts)
    if kernel == "hashlib":
        return _hash_in_python(algorithm, parts, n_rows)
    return _hash_in_c(_NATIVE[kernel], _DIGEST_BYTES[algorithm], parts, n_rows)


def expand_rows(domain: bytes, *parts: Part) -> Bytes:
    """Make 64 uniform bytes of every row: ``expand_message_xmd`` with SHA-512.

    Parameters
    ----------
    domain
        Which use this is for, at most 255 bytes.
    parts
        As in `hash_rows`.

    Returns
    -------
    ndarray
        ``uint8``, shape ``(n, 64)``.

    Notes
    -----
    Cost: three blocks per short row; the block of zeros before each is hashed once.
    Source: RFC 9380 section 5.3.1; 64 bytes are one digest, so that nothing is chained.
    """
    tail = domain + bytes([len(domain)])
    first = hash_rows("sha512", bytes(128), *parts, (64).to_bytes(2, "big") + b"\0" + tail)
    return hash_rows("sha512", first, b"\x01" + tail)


@cache
def available_kernels() -> tuple[Kernel, ...]:
    """Return the names of the kernels that run on this machine, the fastest first."""
    works = getattr(native.load(), "fedtasks_hash_works", None)
    found: list[Kernel] = [] if works is None else [name for name, number in _NATIVE.items() if works(number)]
    return (*found, "hashlib")


def _count_rows(parts: Sequence[Part]) -> int:
    for part in parts:
        if isinstance(part, np.ndarray) and (part.dtype != np.uint8 or part.ndim != 2):
            raise ValueError(f"a column must be bytes of shape (n, width), not {part.dtype} of shape {part.shape}")
    columns = [part.texts if isinstance(part, Length) else part for part in parts if not isinstance(part, bytes)]
    found = {len(column) for column in columns}
    if len(found) != 1:
        raise ValueError(f"columns must have one length, not {sorted(found)}" if found else "there is no column")
    return found.pop()


class _Part(ctypes.Structure):
    """``fedtasks_hash_part``, see ``hash_rows.h``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("step", ctypes.c_size_t),
        ("width", ctypes.c_size_t),
        ("length_bytes", ctypes.c_size_t),
    )


def _hash_in_c(kernel: int, digest_bytes: int, parts: Sequence[Part], n_rows: int) -> Bytes:
    # C holds addresses alone, so the arrays stay in this variable.
    columns = [_rows_in_memory(part) if isinstance(part, np.ndarray) else part for part in parts]
    described = (_Part * len(columns))(*map(_describe, columns))
    digests = np.empty((n_rows, digest_bytes), dtype=np.uint8)

    def work(rows: slice) -> None:
        native.call(
            "fedtasks_hash_rows", kernel, digest_bytes, digests, described, len(described), rows.start, rows.stop
        )

    in_slices(n_rows, work, least=_LEAST_ROWS)
    return digests


def _rows_in_memory(rows: Bytes) -> Bytes:
    """Return rows whose bytes stand side by side, at any distance from row to row that does not go back."""
    step, inner = rows.strides
    return rows if step >= 0 and (inner == 1 or rows.shape[1] < 2) else np.ascontiguousarray(rows)


def _describe(part: Part) -> _Part:
    if isinstance(part, Length):
        described = _describe(part.texts)
        described.length_bytes = part.n_bytes
        return described
    if isinstance(part, Texts):
        return _Part(part.data.ctypes.data, part.offsets.ctypes.data)
    if isinstance(part, bytes):
        return _Part(np.frombuffer(part, dtype=np.uint8).ctypes.data, None, 0, len(part))
    return _Part(part.ctypes.data, None, part.strides[0], part.shape[1])


def _hash_in_python(algorithm: Algorithm, parts: Sequence[Part], n_rows: int) -> Bytes:
    make = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}[algorithm]
    rows = zip(*(_each_row(part, n_rows) for part in parts), strict=True)
    digests = b"".join([make(b"".join(row)).digest() for row in rows])
    return np.frombuffer(bytearray(digests), dtype=np.uint8).reshape(n_rows, _DIGEST_BYTES[algorithm])


def _each_row(part: Part, n_rows: int) -> Iterable[bytes]:
    if isinstance(part, bytes):
        return repeat(part, n_rows)
    if isinstance(part, Texts):
        return part
    if isinstance(part, Length):
        return [length.to_bytes(part.n_bytes, "big") for length in part.texts.lengths.tolist()]
    return [row.tobytes() for row in part]
