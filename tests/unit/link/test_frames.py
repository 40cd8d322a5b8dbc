from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import ProtocolViolated
from fedtasks.link import frames
from fedtasks.wire.v1 import session_pb2

KIND = session_pb2.PAYLOAD_KIND_BYTES
CHUNK = bytes(range(256)) * 100


def read(frame: bytes) -> tuple[session_pb2.Frame, bytes]:
    message, chunk = frames.parse(frame)
    return message, bytes(chunk)


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 20_000, frames.CHUNK])
@pytest.mark.parametrize("last", [False, True])
def test_chunk_of_any_size_is_read_as_it_was_written(size: int, last: bool) -> None:
    body = (CHUNK * (size // len(CHUNK) + 1))[:size]

    message, chunk = read(frames.data(300, "näme", KIND, last, [memoryview(body)]))

    data = message.data
    assert (data.sequence, data.name, data.payload_kind, data.last, chunk) == (300, "näme", KIND, last, body)


def test_large_chunk_is_a_view_of_its_frame() -> None:
    frame = frames.data(1, "x", KIND, True, [memoryview(CHUNK)])

    _, chunk = frames.parse(frame)

    assert isinstance(chunk, memoryview)
    assert chunk.obj is frame


def generic(frame: bytes) -> tuple[str | None, bytes]:
    """What the generated parser makes of a frame: the message but for its chunk, and the chunk."""
    message = session_pb2.Frame.FromString(frame)
    chunk = message.data.chunk
    if message.WhichOneof("kind") == "data":
        message.data.ClearField("chunk")
    return str(message), chunk


def ours(frame: bytes) -> tuple[str | None, bytes]:
    message, chunk = read(frame)
    if message.WhichOneof("kind") == "data":
        message.data.ClearField("chunk")
    return str(message), chunk


def laid_out(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return b"\x12" + frames._varint(len(body)) + body


_CHUNK = b"\x2a" + frames._varint(len(CHUNK)) + CHUNK
_NUMBER = b"\x08\x07"
_NAME = b"\x12\x01x"


@pytest.mark.parametrize(
    "frame",
    [
        laid_out(_NUMBER, _NAME, _CHUNK),
        laid_out(_CHUNK, _NUMBER, _NAME),
        laid_out(_CHUNK, _CHUNK),
        laid_out(_NUMBER, _NUMBER, _CHUNK),
        laid_out(b"\xfa\x07\x01x", _CHUNK),
        laid_out(b"\x3d1234", _CHUNK),
        laid_out(b"\xaa\x80\x00" + _CHUNK[1:]),
        laid_out(_NUMBER, _CHUNK) + laid_out(_NAME, _CHUNK),
        laid_out(_NUMBER, _CHUNK) + frames.CLOSE,
        frames.CLOSE + laid_out(_NUMBER, _CHUNK),
    ],
)
def test_frame_of_any_layout_means_what_the_generated_parser_says(frame: bytes) -> None:
    assert ours(frame) == generic(frame)


@given(place=st.integers(0, 60), change=st.integers(1, 255), cut=st.integers(0, 30))
def test_damaged_frame_means_what_the_generated_parser_says_or_is_refused(place: int, change: int, cut: int) -> None:
    frame = bytearray(frames.data(7, "name", KIND, True, [memoryview(CHUNK)]))
    frame[place] ^= change
    damaged = bytes(frame[: len(frame) - cut])
    expected = None
    with contextlib.suppress(Exception):
        expected = generic(damaged)
    if expected is None:
        with pytest.raises(ProtocolViolated):
            ours(damaged)
    else:
        assert ours(damaged) == expected
