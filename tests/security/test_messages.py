"""A peer's half sends garbage under the name of every message that a half may receive."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.errors import FedtasksError
from fedtasks.exchange.files import FileMessage
from fedtasks.exchange.message import ArrayMessage, Message, TableMessage
from fedtasks.link.memory import memory_pair
from fedtasks.link.payload import ARRAY, BYTES, PROTOBUF, RECORD_BATCH
from fedtasks.registry import declared
from tests.support.hostile import TALLY, Outcome

MESSAGES = [each for each in declared("MESSAGES").values() if not isinstance(each, FileMessage)]
SCHEMA = pa.schema([("tag", pa.binary(16)), ("row", pa.int64())])


def array(dtype: str, *shape: int, body: bytes = b"") -> bytes:
    """Encode the head of an array by hand, whatever it promises."""
    head = struct.pack(f"<B{len(dtype)}sB{len(shape)}Q", len(dtype), dtype.encode(), len(shape), *shape)
    return head + bytes(-len(head) % 64) + body


def batch(compression: str | None = None) -> bytes:
    """Encode four megabytes of zeros as a table, compressed or not."""
    rows = pa.record_batch({"a": np.zeros(1 << 19)})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def payloads() -> Iterator[tuple[str, int, bytes]]:
    plain = batch()
    yield "nothing", BYTES, b""
    yield "deep json", BYTES, b"[" * 100_000
    yield "json not a number", BYTES, b'{"files": NaN, "wanted": NaN}'
    yield "json of another form", BYTES, b'[{"wanted": 1}]'
    yield "no utf-8", BYTES, b"\xff" * 64
    yield "protobuf cut short", PROTOBUF, b"\x0a\xff\xff\xff\xff\x0f"
    yield "protobuf endless number", PROTOBUF, b"\xff" * 32
    yield "array without a head", ARRAY, b"\x03"
    yield "array of objects", ARRAY, array("|O8", 1, body=bytes(8))
    yield "array of 2^62 items", ARRAY, array("<f8", 2**62, body=bytes(8))
    yield "array whose size overflows", ARRAY, array("<f8", 2**63, 2**63)
    yield "array of no width", ARRAY, array("|S0", 2**40)
    yield "array of 200 dimensions", ARRAY, array("<f8", *[1] * 200, body=bytes(8))
    yield "array of another type", ARRAY, array("<c16", 3, 5, 7, body=bytes(16 * 105))
    yield "table for another thing", RECORD_BATCH, plain
    yield "table cut short", RECORD_BATCH, plain[: len(plain) // 2]
    yield "table compressed", RECORD_BATCH, batch("zstd")
    yield "table of noise", RECORD_BATCH, b"\xff\xff\xff\xff" + b"\x7f" * 300
    yield "unknown kind", 99, b"x"


def arguments(message: Message) -> tuple[Any, ...]:
    if isinstance(message, ArrayMessage):
        return tuple(2 if size is None else size for size in message.shape if size is not ...)
    return (SCHEMA,) if isinstance(message, TableMessage) else ()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_garbage_under_the_name_of_a_message_is_refused(message: Any) -> None:
    wrong: list[str] = []
    for what, kind, body in payloads():
        ours, theirs = memory_pair()
        theirs._conversation.send(message.name, kind, [memoryview(body)])
        try:
            message.receive(ours, *arguments(message))
        except FedtasksError:
            TALLY.add(Outcome.REFUSED)
        except Exception as error:
            TALLY.add(Outcome.CRASHED)
            wrong.append(f"{what}: {type(error).__name__} {error}")
        else:
            # Some messages are bytes and nothing more: those that are well formed mean something.
            TALLY.add(Outcome.TAKEN)
        finally:
            ours.abort()
            theirs.abort()
    assert not wrong
