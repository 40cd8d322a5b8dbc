"""Payloads as bytes and back; what comes back is checked before anything is allocated for it."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message

from fedtasks.errors import ProtocolViolated
from fedtasks.link import record_batch
from fedtasks.link.link import Payload
from fedtasks.wire.v1 import session_pb2

BYTES = session_pb2.PAYLOAD_KIND_BYTES
ARRAY = session_pb2.PAYLOAD_KIND_ARRAY
RECORD_BATCH = session_pb2.PAYLOAD_KIND_RECORD_BATCH
PROTOBUF = session_pb2.PAYLOAD_KIND_PROTOBUF

_DTYPE = re.compile(r"[<>|][biufcSUmM][0-9]{1,9}(\[[0-9a-zA-Z]{1,12}\])?")
_MAX_DIMENSIONS = 32
_ALIGNMENT = 64
_MAX_CODE_POINT = 0x10FFFF


def encode(payload: Payload) -> tuple[session_pb2.PayloadKind, Sequence[memoryview]]:
    """Turn a payload into its kind and the buffers that make it up, without copying a contiguous array.

    Raises
    ------
    TypeError
        The payload is of another type, an array of objects, records or masked values, or a record batch with a column
        whose type has no place in messages.

    Notes
    -----
    A column of dictionary-encoded values crosses as its values. Metadata of a schema does not cross.
    """
    if isinstance(payload, bytes):
        return BYTES, [memoryview(payload)]
    if isinstance(payload, np.ndarray):
        return ARRAY, _encode_array(payload)
    if isinstance(payload, pa.RecordBatch):
        return RECORD_BATCH, record_batch.encode(payload)
    if isinstance(payload, Message):
        return PROTOBUF, [memoryview(payload.SerializeToString())]
    raise TypeError(f"a {type(payload).__name__} cannot be sent; send bytes, an array, a record batch or a message")


def decode(kind: session_pb2.PayloadKind, data: bytes | bytearray) -> Payload:
    """Turn bytes back into what was sent; an array is a read-only view of `data`, a protobuf message stays bytes.

    Raises
    ------
    ProtocolViolated
        `data` is not what its kind promises.
    """
    if kind in (BYTES, PROTOBUF):
        return bytes(data)  # of bytes, the same object
    if kind == ARRAY:
        return _decode_array(data)
    if kind == RECORD_BATCH:
        return record_batch.decode(data)
    raise ProtocolViolated(f"payload kind {kind} is not known")


def _encode_array(array: np.ndarray) -> Sequence[memoryview]:
    # Layout: length of dtype, dtype, number of dimensions, dimensions as u64, zeros to the alignment, C-order buffer.
    dtype = array.dtype.str.encode()
    if isinstance(array, np.ma.MaskedArray) or not _DTYPE.fullmatch(array.dtype.str) or array.dtype.itemsize == 0:
        raise TypeError(f"an array of dtype {array.dtype} cannot be sent; convert it to numbers, text or times")
    if array.ndim > _MAX_DIMENSIONS:
        raise TypeError(f"an array of {array.ndim} dimensions cannot be sent; at most {_MAX_DIMENSIONS}")
    head = struct.pack(f"<B{len(dtype)}sB{array.ndim}Q", len(dtype), dtype, array.ndim, *array.shape)
    buffer = np.asarray(array, order="C").reshape(-1).view(np.uint8)
    return [memoryview(head + bytes(-len(head) % _ALIGNMENT)), buffer.data]


def _decode_array(data: bytes | bytearray) -> np.ndarray:
    try:
        (length,) = struct.unpack_from("<B", data)
        name, n_dimensions = struct.unpack_from(f"<{length}sB", data, 1)
        if n_dimensions > _MAX_DIMENSIONS:
            raise ProtocolViolated(f"an array of {n_dimensions} dimensions")
        shape = struct.unpack_from(f"<{n_dimensions}Q", data, length + 2)
        text = name.decode("ascii")
        if not _DTYPE.fullmatch(text):
            raise ProtocolViolated("an array of a dtype that may not be sent")
        dtype = np.dtype(text)
    except (struct.error, UnicodeDecodeError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolViolated(f"an array with a garbled head ({type(error).__name__})") from error
    start = length + 2 + 8 * n_dimensions
    start += -start % _ALIGNMENT
    n_items = math.prod(shape)
    if dtype.itemsize == 0 or start + n_items * dtype.itemsize != len(data):
        raise ProtocolViolated("an array whose shape does not fit its size")
    try:
        array = np.frombuffer(data, dtype, n_items, start) if n_items else np.empty(0, dtype)
        array = array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise ProtocolViolated("an array of an impossible shape") from error
    _check_values(array)
    array.flags.writeable = False
    return array


def _check_values(array: np.ndarray) -> None:
    """Refuse bit patterns that numpy takes on trust."""
    flat = array.reshape(-1)
    if array.dtype.kind == "b" and flat.size and flat.view(np.uint8).max() > 1:
        raise ProtocolViolated("an array of truth values that holds others")
    if array.dtype.kind == "U" and flat.size:
        code_points = flat.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if code_points.max() > _MAX_CODE_POINT:
            raise ProtocolViolated("an array of text that is not Unicode")
