from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedtasks.errors import ProtocolViolated
from fedtasks.link import payload
from fedtasks.link.link import Payload
from fedtasks.wire.v1 import run_pb2

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.unicode_string_dtypes(endianness="?", min_len=1),
    hnp.byte_string_dtypes(min_len=1),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def wire(value: Payload) -> tuple[int, bytes]:
    kind, parts = payload.encode(value)
    return kind, b"".join(parts)


def through(value: Payload) -> Payload:
    kind, data = wire(value)
    return payload.decode(kind, data)


@given(hnp.arrays(DTYPES, SHAPES))
def test_array_of_any_dtype_and_shape_comes_back_equal(array: np.ndarray) -> None:
    back = through(array)

    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::2, ::-1], np.asfortranarray, lambda a: a[1]])
def test_array_that_is_not_contiguous_comes_back_equal(view: object) -> None:
    array = view(np.arange(30, dtype=">i4").reshape(5, 6))  # type: ignore[operator]

    np.testing.assert_array_equal(through(array), array)


def test_contiguous_array_is_neither_copied_on_the_way_out_nor_in() -> None:
    array = np.arange(1000.0)
    kind, parts = payload.encode(array)
    data = b"".join(parts)

    assert np.shares_memory(np.frombuffer(parts[-1]), array)
    assert np.shares_memory(payload.decode(kind, data), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.zeros(2, dtype=[("a", "i4")]),
        np.zeros(2, dtype="V4"),
        np.ma.masked_array([1, 2], [True, False]),
        "text",
        None,
        [1, 2],
    ],
    ids=["object", "record", "void", "masked", "text", "none", "list"],
)
def test_value_that_has_no_safe_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        payload.encode(value)  # type: ignore[arg-type]


def test_protobuf_message_comes_back_as_its_bytes() -> None:
    message = run_pb2.Metric(task="train", name="loss", step=3, value=0.5)

    assert run_pb2.Metric.FromString(through(message)) == message


def test_bytes_come_back_as_the_same_object() -> None:
    data = b"x" * 10

    assert through(b"") == b""
    assert payload.decode(payload.BYTES, data) is data


@given(st.sampled_from([payload.ARRAY, payload.RECORD_BATCH, 0, 5, 77]), st.binary(max_size=300))
def test_random_bytes_are_a_protocol_violation_or_a_payload(kind: int, data: bytes) -> None:
    try:
        value = payload.decode(kind, data)
    except ProtocolViolated:
        return
    assert isinstance(value, np.ndarray | pa.RecordBatch)


@settings(max_examples=300)
@given(st.data())
def test_damaged_payload_is_a_protocol_violation_or_a_payload(data: st.DataObject) -> None:
    batch = pa.record_batch({"a": [1, 2, 3], "b": ["x", "yy", None]})
    arrays = [np.arange(6.0).reshape(2, 3), np.array(["ab", "c"]), np.array([True])]
    original = data.draw(st.sampled_from([*arrays, batch]))
    kind, whole = wire(original)
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 255)), max_size=4)):
        if place < len(damaged):
            damaged[place] = byte
    try:
        value = payload.decode(kind, bytes(damaged))
    except ProtocolViolated:
        return
    if isinstance(value, np.ndarray):
        value.tolist()  # values that numpy cannot read would raise here
    else:
        value.to_pydict()


def head(dtype: bytes, *shape: int) -> bytes:
    start = bytes([len(dtype)]) + dtype + bytes([len(shape)]) + b"".join(side.to_bytes(8, "little") for side in shape)
    return start + bytes(-len(start) % 64)


@pytest.mark.parametrize(
    "data",
    [
        head(b"<f8", 1 << 62),
        head(b"<f8", 1 << 40, 1 << 40),
        head(b"<f8", 1 << 63, 0),
        head(b"<f8", *[1] * 33) + bytes(8),
        head(b"|O8", 1) + bytes(8),
        head(b"|V8", 1) + bytes(8),
        head(b"f8,f8", 1) + bytes(16),
        head(b"<U0", 1 << 40),
        head(b"<U1", 1) + b"\xff\xff\xff\xff",
        head(b"|b1", 1) + b"\x02",
        head(b"<f8", 1) + bytes(9),
        b"",
    ],
)
def test_hostile_array_is_refused_before_it_is_allocated(data: bytes) -> None:
    with pytest.raises(ProtocolViolated):
        payload.decode(payload.ARRAY, data)
