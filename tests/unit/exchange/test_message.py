"""Messages arrive as they were declared, and whatever else a peer sends is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.errors import ProtocolViolated, RowOrderDiffers, TrainingDiverged
from fedtasks.exchange.files import FileMessage
from fedtasks.exchange.message import (
    ArrayMessage,
    BytesMessage,
    DigestMessage,
    JsonListMessage,
    JsonMessage,
    ProtobufMessage,
    TableMessage,
    refuse,
)
from fedtasks.link.inbox import MAX_BYTES
from fedtasks.link.payload import encode
from fedtasks.registry import declared
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey

WORDS = ("what it is", "what is learnt")
SCHEMA = pa.schema([("tag", pa.binary(16)), ("n", pa.int64())])
DECLARED = [message for message in declared("MESSAGES").values() if not isinstance(message, FileMessage)]
FILES = [message for message in declared("MESSAGES").values() if isinstance(message, FileMessage)]


class OneWay:
    """A link that gives back what was sent, or what a test puts on it."""

    def __init__(self, *payloads: Any) -> None:
        self.payloads = list(payloads)
        self.names: list[str] = []
        self.expected: dict[str, Any] = {}
        self.is_closed = False

    def send(self, name: str, payload: Any) -> None:
        self.names.append(name)
        self.payloads.append(payload.SerializeToString() if isinstance(payload, EncryptionKey) else payload)

    def receive(self, name: str, **expected: Any) -> Any:
        self.expected = expected
        return self.payloads.pop(0)

    def exchange(self, name: str, payload: Any, **expected: Any) -> Any:
        self.expected = expected
        return self.payloads.pop(0)

    def close(self) -> None:
        self.is_closed = True


NUMBERS = ArrayMessage("numbers", *WORDS, dtype="float32", shape=(None,), most=10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 10.1, -10.1])
def test_number_that_is_not_finite_or_too_large_is_refused_and_does_not_leave(value: float) -> None:
    values, link = np.array([0, value], np.float32), OneWay()
    with pytest.raises(ProtocolViolated, match="message `numbers` of batch 7 has a number that is not finite"):
        NUMBERS.receive(OneWay(values), of="batch 7")
    with pytest.raises(TrainingDiverged, match="message `numbers` of batch 7 has a number that is not finite"):
        NUMBERS.send(link, values, of="batch 7")
    assert link.names == []


@pytest.mark.parametrize("values", [[], [10, -10], [0]])
def test_numbers_within_what_was_declared_pass(values: list[float]) -> None:
    link = OneWay()
    NUMBERS.send(link, np.array(values, np.float32))
    assert NUMBERS.receive(link).tolist() == values


def test_every_array_of_floating_numbers_declares_how_large_they_may_be() -> None:
    arrays = [each for each in DECLARED if isinstance(each, ArrayMessage) and np.dtype(each.dtype).kind == "f"]
    assert {"activation", "gradient", "embedding", "scores of rows"} <= {each.name for each in arrays}
    assert [each.name for each in arrays if each.most is None] == []


def received(message: Any, payload: Any, *expected: Any) -> Any:
    return message.receive(OneWay(payload), *expected)


def known_of(message: Any) -> tuple[Any, ...]:
    """Return what a receiver must know of any message of this sort: of tables, their columns."""
    return (SCHEMA,) if isinstance(message, TableMessage) else ()


ROUND = [
    (BytesMessage("x", *WORDS), b"anything"),
    (BytesMessage("x", *WORDS, width=4), b"12345678"),
    (BytesMessage("x", *WORDS, width=4), b""),
    (DigestMessage("x", *WORDS), "0123456789abcdef" * 4),
    (JsonMessage("x", *WORDS, fields={"n": int, "who": str | None}), {"n": 3, "who": None, "more": [1.5]}),
    (JsonListMessage("x", *WORDS, items=(int, str)), [3, "ü"]),
    (ProtobufMessage("x", *WORDS, of=EncryptionKey), EncryptionKey(modulus=b"1", proof=b"2")),
]


@pytest.mark.parametrize(("message", "content"), ROUND, ids=lambda each: type(each).__name__)
def test_message_arrives_as_it_was_sent(message: Any, content: Any) -> None:
    link = OneWay()
    message.send(link, content)
    assert message.receive(link) == content
    assert link.names == ["x"]


def test_message_of_several_goes_under_its_number() -> None:
    link = OneWay()
    BytesMessage("new", *WORDS, per="block").numbered(3).send(link, b"")
    assert link.names == ["new-00003"]


# --------------------------------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("message", DECLARED, ids=lambda message: message.name)
def test_declared_message_is_received_with_its_kind_and_a_limit(message: Any) -> None:
    link = OneWay(b"")
    with contextlib.suppress(ProtocolViolated):
        message.receive(link, *known_of(message))
    assert link.expected["kind"] == message.payload_kind
    assert 0 < link.expected["max_bytes"] == message.max_bytes <= MAX_BYTES


@pytest.mark.parametrize(
    "message",
    [
        BytesMessage("x", *WORDS),
        ProtobufMessage("x", *WORDS, of=EncryptionKey),
        *(each for each in DECLARED if each.name in ("next tree", "new")),
    ],
    ids=lambda message: message.name,
)
def test_limit_that_the_receiver_knows_goes_before_the_declared_one(message: Any) -> None:
    link = OneWay(b"")
    message.receive(link, 17)
    assert link.expected["max_bytes"] == 17


def test_exchanged_bytes_are_checked_as_received_ones_are() -> None:
    message, link = BytesMessage("x", *WORDS, width=4), OneWay(b"12345678", b"123")
    assert message.exchange(link, b"1234", 8) == b"12345678"  # type: ignore[arg-type]
    assert link.expected["max_bytes"] == 8
    with pytest.raises(ProtocolViolated, match="`x` is not rows of 4 bytes"):
        message.exchange(link, b"1234")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "n_bytes"), [((2, 4), 2 * 4 * 4), ((2,), 2 * 4 * 4), ((1000, 4), 1000 * 4 * 4), ((0,), 0)]
)
def test_array_of_known_shape_may_have_the_bytes_of_that_shape(expected: tuple[int, ...], n_bytes: int) -> None:
    link = OneWay(np.ones(expected if len(expected) == 2 else (*expected, 4), np.float32))
    ROWS.receive(link, *expected)  # type: ignore[arg-type]
    assert n_bytes < link.expected["max_bytes"] <= n_bytes + 512
    assert link.expected["form"] == f"float32 array ({expected[0]}, 4)"


@pytest.mark.parametrize("dtype", ["uint8", "float64", "<U100", "datetime64[ns]"])
def test_array_of_known_shape_fits_into_its_limit_with_its_head(dtype: str) -> None:
    message, sent = ArrayMessage("x", *WORDS, dtype=dtype, shape=(None,) * 8), np.zeros((1,) * 8, dtype)
    link = OneWay(sent)
    message.receive(link, *sent.shape)  # type: ignore[arg-type]
    assert sum(len(part) for part in encode(sent)[1]) <= link.expected["max_bytes"]


def test_array_of_unknown_shape_may_have_the_bytes_that_are_declared() -> None:
    link = OneWay(np.ones((2, 4), np.float32))
    ROWS.receive(link)  # type: ignore[arg-type]
    assert link.expected["max_bytes"] == MAX_BYTES


# --------------------------------------------------------------------------------------------------------------- arrays
ROWS = ArrayMessage("rows", *WORDS, dtype="float32", shape=(None, 4))
SCORES = ArrayMessage("scores", *WORDS, dtype="float64", shape=(None, ...))


def test_array_arrives_without_being_copied() -> None:
    link, sent = OneWay(), np.ones((2, 4), np.float32)
    ROWS.send(link, sent)  # type: ignore[arg-type]
    assert ROWS.receive(link) is sent  # type: ignore[arg-type]


@pytest.mark.parametrize("expected", [(), (2,), (None, 4), (2, None), (2, 4)])
def test_array_of_the_shape_that_is_known_is_taken(expected: tuple[int | None, ...]) -> None:
    assert received(ROWS, np.ones((2, 4), np.float32), *expected).shape == (2, 4)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", ()),
        (pa.record_batch({"n": [1]}), ()),
        (np.ones((2, 4)), ()),
        (np.ones((2, 4), ">f4"), ()),
        (np.ones((2, 4), np.int32), ()),
        (np.ones(4, np.float32), ()),
        (np.ones((1, 2, 4), np.float32), ()),
        (np.ones((2, 5), np.float32), ()),
        (np.ones((2, 5), np.float32), (2, None)),
        (np.ones((3, 4), np.float32), (2,)),
        (np.ones((4, 2), np.float32), (2, 4)),
    ],
)
def test_array_of_another_type_or_shape_is_refused_naming_both(payload: Any, expected: tuple[int | None, ...]) -> None:
    with pytest.raises(ProtocolViolated, match=r"`rows` is not float32 array \((any|2), 4\): found "):
        received(ROWS, payload, *expected)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 0)])
def test_array_with_one_dimension_more_or_none_is_taken(shape: tuple[int, ...]) -> None:
    assert received(SCORES, np.ones(shape), 3).shape == shape


@pytest.mark.parametrize("shape", [(), (2,), (3, 2, 1), (2, 3)])
def test_array_with_more_dimensions_than_declared_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolViolated, match=r"float64 array \(3, …\)"):
        received(SCORES, np.ones(shape), 3)


# --------------------------------------------------------------------------------------------------------------- tables
def test_table_of_the_declared_columns_is_taken() -> None:
    rows = pa.record_batch([pa.array([b"0" * 16], pa.binary(16)), pa.array([3])], schema=SCHEMA)
    assert received(TableMessage("t", *WORDS), rows, SCHEMA) is rows


@pytest.mark.parametrize(
    "payload",
    [b"", np.ones(3), pa.record_batch({"tag": [b"0"], "n": [3]}), pa.record_batch({"n": [3]})],
    ids=["bytes", "an array", "another type", "a column too few"],
)
def test_table_of_other_columns_is_refused(payload: Any) -> None:
    with pytest.raises(ProtocolViolated, match=r"`t` is not an Arrow record batch of tag: fixed_size_binary\[16\], n"):
        received(TableMessage("t", *WORDS), payload, SCHEMA)


# ----------------------------------------------------------------------------------------------------------------- JSON
FORM = JsonMessage("form", *WORDS, fields={"n": int, "is_better": bool, "base": str | None})
RIGHT = {"n": 3, "is_better": True, "base": None}


@pytest.mark.parametrize(
    "changed",
    [
        {"n": True},
        {"n": 3.0},
        {"n": "3"},
        {"n": None},
        {"is_better": 1},
        {"base": 3},
        {"n": 2**63},
        {"x": float("nan")},
    ],
)
def test_object_with_a_field_of_another_type_is_refused(changed: dict[str, Any]) -> None:
    assert received(FORM, json.dumps(RIGHT).encode()) == RIGHT
    with pytest.raises(ProtocolViolated, match="`form` is not a JSON object"):
        received(FORM, json.dumps(RIGHT | changed).encode())


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"9" * 5000, np.ones(3)])
def test_what_is_no_json_of_the_declared_form_is_refused(payload: Any) -> None:
    for message in (FORM, JsonListMessage("form", *WORDS, items=(int, str))):
        with pytest.raises(ProtocolViolated, match="`form` is not a JSON"):
            received(message, payload)


@pytest.mark.parametrize("payload", [[3], [3, "x", 1], ["x", 3], [True, "x"], {"0": 3}])
def test_list_of_other_items_is_refused(payload: Any) -> None:
    with pytest.raises(ProtocolViolated, match="`pair` is not a JSON array"):
        received(JsonListMessage("pair", *WORDS, items=(int, str)), json.dumps(payload).encode())


@pytest.mark.parametrize("payload", [b"", b"0" * 63, b"0" * 65, b"G" * 64, b"\xff" * 64, b"A" * 64, np.ones(64)])
def test_digest_that_is_none_is_refused(payload: Any) -> None:
    with pytest.raises(ProtocolViolated, match="`digest` is not a SHA-256"):
        received(DigestMessage("digest", *WORDS), payload)


@pytest.mark.parametrize("payload", [b"123", np.zeros(8, np.uint8)])
def test_bytes_that_are_no_rows_are_refused(payload: Any) -> None:
    with pytest.raises(ProtocolViolated, match="`rows` is not rows of 4 bytes"):
        received(BytesMessage("rows", *WORDS, width=4), payload)


# -------------------------------------------------------------------------------------------------------------- garbage
DTYPES = st.sampled_from(["u1", "<i8", "<f4", ">f4", "<f8", "?", "<U3", "S2", "<M8[s]"])
ARRAYS = st.builds(
    lambda dtype, shape: np.zeros(shape, dtype), DTYPES, st.lists(st.integers(0, 3), max_size=4).map(tuple)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = st.fixed_dictionaries({}, optional=dict.fromkeys(("blinded", "n", "version", "is_better", "files"), JSON))
TABLES = st.just(pa.record_batch({"n": [1]}))
GARBAGE = st.one_of(
    st.binary(max_size=200), ARRAYS, TABLES, (JSON | FIELDS).map(lambda value: json.dumps(value).encode())
)


def truncated(payload: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(payload)).map(lambda size: payload[:size])


# Of each message, of which there are many of a kind.
few = settings(max_examples=30)

RECEIVED = {
    BytesMessage: bytes,
    DigestMessage: str,
    JsonMessage: dict,
    JsonListMessage: list,
    ArrayMessage: np.ndarray,
    TableMessage: pa.RecordBatch,
}


@pytest.mark.parametrize("message", DECLARED, ids=lambda message: message.name)
@few
@given(payload=GARBAGE | truncated(EncryptionKey(modulus=b"123", proof=b"456").SerializeToString()))
def test_declared_message_is_received_as_declared_or_refused(message: Any, payload: Any) -> None:
    try:
        found = received(message, payload, *known_of(message))
    except ProtocolViolated:
        return
    kind = next((kind for base, kind in RECEIVED.items() if isinstance(message, base)), None)
    assert isinstance(found, kind or message.of)
    if isinstance(message, ArrayMessage):
        assert found.dtype == message.dtype
    assert isinstance(payload, np.ndarray) == isinstance(message, ArrayMessage)


@pytest.mark.parametrize("message", FILES, ids=lambda message: message.name)
@few
@given(payload=GARBAGE)
def test_announcement_of_declared_files_is_read_or_refused(message: FileMessage, payload: Any) -> None:
    try:
        files = message.announced(OneWay(payload), 3)  # type: ignore[arg-type]
    except ProtocolViolated:
        return
    assert files == []


def test_half_that_refuses_lets_the_other_hear_all_first() -> None:
    link = OneWay()
    with pytest.raises(RowOrderDiffers):
        refuse(link, RowOrderDiffers(ours="1", theirs="2"))  # type: ignore[arg-type]
    assert link.is_closed
