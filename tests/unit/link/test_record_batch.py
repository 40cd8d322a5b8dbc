"""Record batches cross as they are, and nothing that arrives unfolds to more than was sent."""

from __future__ import annotations

import datetime
import json
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.errors import ProtocolViolated
from fedtasks.link import payload, record_batch

MIB = 1 << 20
DAY = datetime.date(2026, 1, 1)
COLUMNS: dict[str, pa.Array] = {
    "text": pa.array(["a", None, "ß"]),
    "large text": pa.array(["a", None, "ß"], pa.large_string()),
    "bytes": pa.array([b"a", None, b""]),
    "number": pa.array([1.5, None, 2.0]),
    "small number": pa.array([1, None, 2], pa.uint8()),
    "truth": pa.array([True, None, False]),
    "tag": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "day": pa.array([DAY] * 3),
    "moment": pa.array([datetime.datetime(2026, 1, 1)] * 3, pa.timestamp("us")),
    "moment somewhere": pa.array([datetime.datetime(2026, 1, 1)] * 3, pa.timestamp("ns", "Europe/Berlin")),
    "while": pa.array([datetime.timedelta(1)] * 3, pa.duration("ms")),
    "hour": pa.array([datetime.time(1)] * 3, pa.time32("s")),
    "money": pa.array([Decimal("1.25"), None, Decimal("2.5")], pa.decimal128(5, 2)),
    "nothing": pa.nulls(3),
    "list": pa.array([[1, 2], [], None]),
    "large list": pa.array([["x"], [], None], pa.large_list(pa.string())),
    "vector": pa.array([[1.0, 2.0], [3.0, 4.0], None], pa.list_(pa.float32(), 2)),
    "record": pa.array([{"a": 1, "b": ["x"]}, {"a": None, "b": []}, None]),
}


def through(batch: pa.RecordBatch) -> pa.RecordBatch:
    return record_batch.decode(b"".join(record_batch.encode(batch)))


@pytest.mark.parametrize("name", COLUMNS)
def test_column_comes_back_equal_and_so_do_its_slices(name: str) -> None:
    batch = pa.record_batch({name: COLUMNS[name]})
    for part in (batch, batch.slice(1), batch.slice(1, 1), batch.slice(2), batch.slice(0, 0)):
        back = through(part)
        assert back.schema.equals(part.schema)
        assert back.equals(part)


def test_batch_of_all_columns_comes_back_equal() -> None:
    batch = pa.record_batch(COLUMNS)
    assert through(batch).equals(batch)
    assert through(pa.record_batch({})).num_columns == 0


def test_column_that_may_not_be_empty_stays_so() -> None:
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    assert through(pa.record_batch([pa.array([1])], schema=schema)).schema.equals(schema)


def test_dictionary_arrives_as_its_values() -> None:
    column = pa.array(["x", "y", None, "x"])
    batch = pa.record_batch({"town": column.dictionary_encode()})
    assert through(batch).equals(pa.record_batch({"town": column}))


def test_slice_sends_nothing_of_the_other_rows() -> None:
    batch = pa.record_batch({"id": [f"secret {number}" for number in range(1000)]})
    for part in (batch.slice(10, 1), batch.slice(0, 1)):
        sent = b"".join(record_batch.encode(part))
        assert sent.count(b"secret") == 1


@pytest.mark.parametrize("column", [[False, True, True], [0, None, None], [0, 7, 7], [[0], [7], [7]], ["a", "b", "c"]])
def test_slice_sends_the_same_whatever_the_other_rows_are(column: list[Any]) -> None:
    columns = pa.array(column), pa.array([column[0]] * 3)
    sent = [b"".join(record_batch.encode(pa.record_batch({"x": each}).slice(0, 1))) for each in columns]
    assert sent[0] == sent[1]


def test_values_are_not_copied_when_they_arrive() -> None:
    data = b"".join(record_batch.encode(pa.record_batch({"n": range(10_000)})))
    before = pa.total_allocated_bytes()
    batch = record_batch.decode(data)
    assert pa.total_allocated_bytes() == before
    assert batch.num_rows == 10_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[None], []]),
        pa.array(["x"], pa.string_view()),
        pa.RunEndEncodedArray.from_arrays(pa.array([1000], pa.int32()), pa.array([1])),
        pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
        pa.array([{}], pa.struct([])),
        pa.array([b""], pa.binary(0)),
        pa.array([[[[[[[[[[1]]]]]]]]]]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
        pa.nulls(1_000_000),
        pa.array([["x"]]).cast(pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_column_of_which_few_bytes_stand_for_many_values_cannot_be_sent(column: pa.Array) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        record_batch.encode(pa.record_batch([column], names=["x"]))


# -------------------------------------------------------------------------------------------------------------- hostile
def message(fields: Any, lengths: Any, buffers: Any, body: bytes = b"") -> bytes:
    head = json.dumps({"fields": fields, "lengths": lengths, "buffers": buffers}).encode()
    start = struct.pack("<I", len(head)) + head
    return start + bytes(-len(start) % 64) * bool(body) + body


def arrow_stream(batch: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def refused_with(data: bytes) -> int:
    """Return how many bytes Arrow allocates at most while a record batch is refused."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    default = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(ProtocolViolated):
            payload.decode(payload.RECORD_BATCH, data)
    finally:
        pa.set_memory_pool(default)
    return int(pool.max_memory() or 0)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_message_of_arrow_is_refused_before_it_is_decompressed(codec: str) -> None:
    zeros = pa.Array.from_buffers(pa.uint8(), 64 * MIB, [None, pa.py_buffer(bytes(64 * MIB))])
    bomb = arrow_stream(pa.record_batch([zeros], ["n"]), compression=codec)
    assert len(bomb) < MIB
    assert refused_with(bomb) < MIB


@pytest.mark.parametrize(
    "data",
    [
        message([["n", "null", True]], [2**40], [None]),
        message([["n", "null", True]], [-1], [None]),
        message([["n", ["list", ["item", "null", True]], True]], [1, 2**30], [None, 8, None], struct.pack("<ii", 0, 1)),
        message([["n", ["binary", 0], True]], [2**40], [None, 0]),
        message([["n", ["binary", 2**31 - 1], True]], [2**20], [None, 8], bytes(8)),
        message([["n", ["fixed_size_list", ["i", "int8", True], 2**31 - 1], True]], [8, 8], [None, None, 8], bytes(8)),
        message([["n", ["struct"], True]], [2**40], [None]),
        message([["n", "int64", True]], [2**62], [None, 8], bytes(8)),
        message([["n", "int64", True]], [2], [None, 8], bytes(8)),
        message([["n", "int64", True]], [1], [None, 16], bytes(8)),
        message([["n", "int64", True]], [1], [None, -8], bytes(8)),
        message([["n", "int64", True]], [1], [None, 8.0], bytes(8)),
        message([["n", "int64", True]], [1], [None, 8], bytes(64)),
        message([["n", "int64", True]], [1], [None], b""),
        message([["n", "int64", True]], [1, 1], [None, 8], bytes(8)),
        message([["n", "int64", True]], [1], [None, 8, 0], bytes(8)),
        message([["n", "int64", True], ["m", "null", True]], [1, 2], [None, 8, None], bytes(8)),
        message([["n", "string", True]], [1], [None, 8, 0], struct.pack("<ii", 0, 2**31 - 1)),
        message([["n", "string", True]], [1], [None, 8, 1], struct.pack("<ii", 0, 1) + bytes(56) + b"\xff"),
        message([["n", "string", True]], [1], [None, None, None]),
        message([["n", "string_view", True]], [1], [None, 16], bytes(16)),
        message([["n", "dictionary<values=string, indices=int8>", True]], [1], [None, 1], bytes(1)),
        message([["n", ["decimal128", 10**9, 2], True]], [1], [None, 16], bytes(16)),
        message([["n", ["timestamp", "us", 3], True]], [1], [None, 8], bytes(8)),
        message([["n", ["timestamp", "us", "\ud800"], True]], [1], [None, 8], bytes(8)),
        message([["\ud800", "int8", True]], [1], [None, 1], bytes(1)),
        message([[3, "int64", True]], [1], [None, 8], bytes(8)),
        message([["n", "int64", 1]], [1], [None, 8], bytes(8)),
        message([["n", None, True]], [1], [None, 8], bytes(8)),
        message([["n", [], True]], [1], [None, 8], bytes(8)),
        message([["n", "int64"]], [1], [None, 8], bytes(8)),
        message([["n", "null", True]] * (1 << 15), [1] * (1 << 15), [None] * (1 << 15)),
        message("fields", [], []),
        message([], 3, []),
        message([], [], {}) + b"more",
        struct.pack("<I", 100_000) + b"[" * 100_000,
        struct.pack("<I", 2 * MIB) + b" " * (2 * MIB),
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 2) + b"[]",
        b"\x01",
        b"",
    ],
)
def test_hostile_record_batch_is_refused_without_allocating_for_it(data: bytes) -> None:
    assert refused_with(data) < MIB


def nested(depth: int) -> Any:
    kind: Any = "int8"
    for _ in range(depth):
        kind = ["list", ["item", kind, True]]
    return kind


@pytest.mark.parametrize("depth", [9, 100, 5000])
def test_type_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    text = '["list",["item",' * depth + '"int8"' + ",true]]" * depth
    head = f'{{"fields":[["n",{text},true]],"lengths":[],"buffers":[]}}'.encode()
    assert refused_with(struct.pack("<I", len(head)) + head) < MIB


def flipped(original: bytes) -> st.SearchStrategy[bytes]:
    changes = st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), min_size=1, max_size=5)

    def change(places: list[tuple[int, int]], size: int) -> bytes:
        damaged = bytearray(original)
        for place, byte in places:
            damaged[place] = byte
        return bytes(damaged[:size])

    return st.builds(change, changes, st.integers(0, len(original)) | st.just(len(original)))


WHOLE = b"".join(record_batch.encode(pa.record_batch({name: COLUMNS[name] for name in ("text", "list", "record")})))


@settings(max_examples=400, deadline=None)
@given(flipped(WHOLE))
def test_damaged_record_batch_is_refused_or_can_be_read_to_its_end(data: bytes) -> None:
    try:
        batch = record_batch.decode(data)
    except ProtocolViolated:
        return
    assert batch.nbytes <= 8 * len(data)
    batch.to_pylist()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**64) | st.sampled_from(["n", "null", "list", "int8", "struct"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(JSON, JSON, JSON, st.binary(max_size=70))
def test_head_of_any_json_is_refused_or_a_record_batch(fields: Any, lengths: Any, buffers: Any, body: bytes) -> None:
    try:
        batch = record_batch.decode(message(fields, lengths, buffers, body))
    except ProtocolViolated:
        return
    batch.to_pylist()
