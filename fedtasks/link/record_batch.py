"""Record batches as bytes and back, without anything that few bytes could unfold.

A record batch crosses as the types of its columns, the lengths of its arrays, and their buffers. Messages in Arrow's
own format may be compressed, may name one text from many places, and may have types of which few bytes stand for many
values: dictionaries, views, unions, runs, extensions. None of that has a place here, so what arrives takes as much
memory as was sent, and Arrow itself reads nothing but buffers whose sizes were checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fedtasks.errors import ProtocolViolated

_ALIGNMENT = 64
_MAX_HEAD = 1 << 20
_MAX_ARRAYS = 1 << 14
_MAX_NESTING = 8

_BYTE_BITS = 8
_INT32 = 2**31

_FLAT: dict[str, pa.DataType] = {
    str(each): each
    for each in (
        pa.bool_(),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
        *(pa.string(), pa.large_string(), pa.binary(), pa.large_binary()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(make(unit) for make in (pa.timestamp, pa.duration) for unit in ("s", "ms", "us", "ns")),
    )
}
_NULL = str(pa.null())


def encode(batch: pa.RecordBatch) -> Sequence[memoryview]:
    """Turn a record batch into the buffers that make it up.

    Raises
    ------
    TypeError
        A column has a type that has no place in messages, or there are too many columns.

    Notes
    -----
    Reveals: nothing of rows that a slice leaves out, not even in the last bytes of a buffer.
    Cost: one copy.
    """
    # Layout: length of the head as u32, head (JSON), zeros to the alignment, then each buffer and zeros likewise.
    columns = [_values(column) for column in batch.columns]
    schema = pa.schema(
        pa.field(field.name, column.type, field.nullable) for field, column in zip(batch.schema, columns, strict=True)
    )
    fields = [_describe(field) for field in schema]
    copied = pa.ipc.read_record_batch(pa.RecordBatch.from_arrays(columns, schema=schema).serialize(), schema)
    arrays = [array for column in copied.columns for array in _arrays(column)]
    lengths = [len(array) for array in arrays]
    buffers = [buffer for array in arrays for buffer in _exact(array)]
    sizes = [None if buffer is None else len(buffer) for buffer in buffers]
    head = json.dumps({"fields": fields, "lengths": lengths, "buffers": sizes}).encode()
    if len(head) > _MAX_HEAD or len(lengths) > _MAX_ARRAYS:
        raise TypeError(f"a record batch of {len(lengths)} columns cannot be sent; at most {_MAX_ARRAYS}")
    parts = [memoryview(struct.pack("<I", len(head)) + head)]
    size = len(parts[0])
    for buffer in buffers:
        if buffer is not None:
            parts += [memoryview(bytes(-size % _ALIGNMENT)), buffer]
            size += -size % _ALIGNMENT + len(buffer)
    if batch.num_rows > _BYTE_BITS * size:
        raise TypeError("a record batch of many rows without values cannot be sent; send their number")
    return parts


def decode(data: bytes | bytearray) -> pa.RecordBatch:
    """Turn bytes back into the record batch that was sent, whose values stay where they are.

    Raises
    ------
    ProtocolViolated
        `data` is none.
    """
    try:
        (length,) = struct.unpack_from("<I", data)
        if length > _MAX_HEAD:
            raise ValueError("the head is too long")
        head = json.loads(bytes(memoryview(data)[4 : 4 + length]))
        if len(head["fields"]) > _MAX_ARRAYS:
            raise ValueError("too many columns")
        schema = pa.schema([_field(each, 0) for each in head["fields"]])
        lengths = iter(head["lengths"])
        buffers = iter(_buffers(data, 4 + length, head["buffers"]))
        columns = [_array(field.type, lengths, buffers, _BYTE_BITS * len(data)) for field in schema]
        if [*lengths, *buffers]:
            raise ValueError("more than the columns need")
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        batch.validate(full=True)
    except (
        *(pa.ArrowException, OSError, ValueError, TypeError, LookupError, AttributeError, StopIteration),
        *(struct.error, OverflowError, RecursionError, MemoryError),
    ) as error:
        raise ProtocolViolated(f"a record batch that cannot be read ({type(error).__name__})") from error
    return batch


# ---------------------------------------------------------------------------------------------------------------- types
def _describe(field: pa.Field, nesting: int = 0) -> list[Any]:
    """Return name, type and nullability of a column as JSON has them."""
    return [field.name, _describe_type(field.type, nesting), field.nullable]


def _describe_type(kind: pa.DataType, nesting: int) -> Any:
    # A list of nulls would have any number of them in no bytes.
    if str(kind) in _FLAT or (pa.types.is_null(kind) and not nesting):
        return str(kind)
    if pa.types.is_timestamp(kind):
        return ["timestamp", kind.unit, kind.tz]
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width:
        return ["binary", kind.byte_width]
    if pa.types.is_decimal128(kind) or pa.types.is_decimal256(kind):
        return [f"decimal{kind.bit_width}", kind.precision, kind.scale]
    if nesting < _MAX_NESTING:
        if pa.types.is_struct(kind) and kind.num_fields:
            return ["struct", *(_describe(field, nesting + 1) for field in kind)]
        if pa.types.is_fixed_size_list(kind) and kind.list_size:
            return ["fixed_size_list", _describe(kind.value_field, nesting + 1), kind.list_size]
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return ["list" if pa.types.is_list(kind) else "large_list", _describe(kind.value_field, nesting + 1)]
    raise TypeError(f"a column of type {kind} cannot be sent; cast it to numbers, text, times, or lists of them")


def _field(described: Any, nesting: int) -> pa.Field:
    """Undo `_describe`; raise `ValueError`, `TypeError` or `LookupError` for what it never says."""
    name, kind, nullable = described
    if not isinstance(name, str) or not isinstance(nullable, bool):
        raise TypeError("a column without a name")
    return pa.field(name, _type(kind, nesting), nullable)


def _type(described: Any, nesting: int) -> pa.DataType:
    if isinstance(described, str):
        return pa.null() if described == _NULL and not nesting else _FLAT[described]
    match described:
        case ["timestamp", "s" | "ms" | "us" | "ns" as unit, str(zone)]:
            return pa.timestamp(unit, zone)
        case ["binary", int(width)]:
            return pa.binary(_positive(width))
        case ["decimal128", int(precision), int(scale)]:
            return pa.decimal128(precision, scale)
        case ["decimal256", int(precision), int(scale)]:
            return pa.decimal256(precision, scale)
        case _ if nesting == _MAX_NESTING:
            raise ValueError("types are nested too deeply")
        case ["struct", first, *more]:
            return pa.struct([_field(each, nesting + 1) for each in (first, *more)])
        case ["fixed_size_list", item, int(size)]:
            return pa.list_(_field(item, nesting + 1), _positive(size))
        case ["list", item]:
            return pa.list_(_field(item, nesting + 1))
        case ["large_list", item]:
            return pa.large_list(_field(item, nesting + 1))
    raise ValueError("a type that cannot be sent")


def _positive(size: int) -> int:
    if not 0 < size < _INT32:
        raise ValueError("a width out of bounds")
    return size


# --------------------------------------------------------------------------------------------------------------- arrays
def _values(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _arrays(array: pa.Array) -> Iterator[pa.Array]:
    """Yield an array and those that it is made of, in the order of their buffers."""
    yield array
    if pa.types.is_struct(array.type):
        children = [array.field(place) for place in range(array.type.num_fields)]
    else:
        children = [array.values] if array.type.num_fields else []
    for child in children:
        yield from _arrays(child)


def _exact(array: pa.Array) -> Iterator[memoryview | None]:
    """Yield the buffers of an array without those that it is made of, cut to what its rows need.

    What Arrow writes of a slice is rounded up, and the rest shows rows that do not belong to it.
    """
    kind, n = array.type, len(array)
    validity, *values = array.buffers()[: kind.num_buffers]
    yield _bits(validity, n)
    if pa.types.is_boolean(kind):
        yield _bits(values[0], n)
    elif _has_offsets(kind):
        is_large = str(kind).startswith("large_")
        offsets = _cut(values[0], (n + 1) * (8 if is_large else 4))
        yield offsets
        for each in values[1:]:
            yield _cut(each, offsets.cast("q" if is_large else "i")[n] if offsets else 0)
    elif values:
        yield _cut(values[0], n * kind.bit_width // _BYTE_BITS)


def _has_offsets(kind: pa.DataType) -> bool:
    return bool(kind.num_buffers == 3 or (kind.num_buffers == 2 and kind.num_fields == 1))


def _cut(buffer: pa.Buffer | None, size: int) -> memoryview:
    return memoryview(buffer if buffer is not None else b"")[:size]


def _bits(buffer: pa.Buffer | None, n: int) -> memoryview | None:
    """Return the first bits of a buffer, the others of the last byte as zeros."""
    if buffer is None:
        return None
    bits = bytearray(_cut(buffer, -(-n // _BYTE_BITS)))
    if n % _BYTE_BITS and bits:
        bits[-1] &= (1 << n % _BYTE_BITS) - 1
    return memoryview(bits)


def _buffers(data: bytes | bytearray, start: int, sizes: Sequence[Any]) -> list[pa.Buffer | None]:
    """Cut the bytes of a record batch into its buffers; raise `ValueError` unless they are all of it."""
    whole = pa.py_buffer(data)
    found: list[pa.Buffer | None] = []
    for size in sizes:
        if size is None:
            found.append(None)
            continue
        start += -start % _ALIGNMENT
        if type(size) is not int or not 0 <= size <= len(data) - start:
            raise ValueError("a buffer beyond the end")
        found.append(whole.slice(start, size))
        start += size
    if start != len(data):
        raise ValueError("bytes that belong to no buffer")
    return found


def _array(kind: pa.DataType, lengths: Iterator[Any], buffers: Iterator[pa.Buffer | None], most: int) -> pa.Array:
    """Put an array together from its buffers and those of the arrays that it is made of."""
    length = next(lengths)
    if type(length) is not int or not 0 <= length <= most:
        raise ValueError("an array of an impossible length")
    local = [next(buffers) for _ in range(kind.num_buffers)]
    children = [_array(kind.field(place).type, lengths, buffers, most) for place in range(kind.num_fields)]
    return pa.Array.from_buffers(kind, length, local, children=children or None)
