"""Frames as bytes. A chunk is copied once on its way out, which the generated serialiser cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError

from fedtasks import __version__
from fedtasks.errors import ProtocolViolated
from fedtasks.wire.v1 import session_pb2

CHUNK = 1 << 20
"""Payload bytes in a frame; only the last of a message may have fewer."""

OVERHEAD = 1024
"""What a chunk costs whoever keeps it, beside its bytes."""

MAX_FRAME = CHUNK + (64 << 10)
"""Most bytes of a frame."""

MAX_NAME = 200
"""Most characters of a message's name."""

HEARTBEAT: bytes = session_pb2.Frame(heartbeat=session_pb2.Heartbeat()).SerializeToString()
BLOCKED: bytes = session_pb2.Frame(heartbeat=session_pb2.Heartbeat(is_blocked=True)).SerializeToString()
CLOSE: bytes = session_pb2.Frame(close=session_pb2.Close()).SerializeToString()

_VARINT, _LENGTH_DELIMITED = 0, 2
_SMALL = 16 << 10
_DATA_TAG = bytes([session_pb2.Frame.DATA_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
_CHUNK_TAG = bytes([session_pb2.Data.CHUNK_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])


def is_name(name: str) -> bool:
    """Whether this may be a message's name: names stand in logs and errors."""
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def hello(
    version_min: int,
    version_max: int,
    incarnation: str,
    received: int,
    facts: Mapping[str, str],
    *,
    default_facts: Sequence[str] = (),
    takes_tunnels: bool = False,
) -> bytes:
    """Encode a Hello of this release."""
    message = session_pb2.Hello(
        version_min=version_min,
        version_max=version_max,
        incarnation=incarnation,
        received=received,
        facts=facts,
        default_facts=default_facts,
        takes_tunnels=takes_tunnels,
        release=__version__,
    )
    return _bytes(session_pb2.Frame(hello=message))


def ack(received: int, consumed_bytes: int) -> bytes:
    """Encode an Ack."""
    return _bytes(session_pb2.Frame(ack=session_pb2.Ack(received=received, consumed_bytes=consumed_bytes)))


def tunnel_offer(certificate: bytes) -> bytes:
    """Encode a TunnelOffer."""
    return _bytes(session_pb2.Frame(tunnel_offer=session_pb2.TunnelOffer(certificate=certificate)))


def data(sequence: int, name: str, kind: session_pb2.PayloadKind, last: bool, parts: Sequence[memoryview]) -> bytes:
    """Encode a Data frame whose chunk is the concatenation of `parts`."""
    head = session_pb2.Data(sequence=sequence, name=name, last=last, payload_kind=kind).SerializeToString()
    size = sum(len(part) for part in parts)
    head += _CHUNK_TAG + _varint(size)
    return b"".join((_DATA_TAG, _varint(len(head) + size), head, *parts))


def parse(frame: bytes | memoryview) -> tuple[session_pb2.Frame, bytes | memoryview]:
    """Decode a frame from the peer, and what chunk it has, which the message lacks where that is a view of `frame`.

    Raises
    ------
    ProtocolViolated
        It is none.
    """
    if len(frame) > MAX_FRAME:
        raise ProtocolViolated(f"a frame of {len(frame)} bytes")
    try:
        if len(frame) > _SMALL and (found := _find_chunk(memoryview(frame))) is not None:
            head, chunk = found
            return session_pb2.Frame(data=session_pb2.Data.FromString(head)), chunk
        message: session_pb2.Frame = session_pb2.Frame.FromString(bytes(frame))
        return message, message.data.chunk
    except DecodeError as error:
        raise ProtocolViolated("a frame that cannot be read") from error


def _find_chunk(frame: memoryview) -> tuple[bytes, memoryview] | None:
    """Return the head of a Data frame and the chunk behind it; None where it is laid out otherwise than by `data`.

    The generated parser copies a chunk twice.
    """
    if frame[:1] != _DATA_TAG:
        return None
    size, start = _read_varint(frame, 1)
    place = start
    while start + size == len(frame) and place < len(frame):
        tag, at = frame[place], place
        value, place = _read_varint(frame, place + 1)
        if tag == _CHUNK_TAG[0]:
            return (bytes(frame[start:at]), frame[place:]) if place + value == len(frame) else None
        if tag > 0x7F or tag & 7 not in (_VARINT, _LENGTH_DELIMITED):
            return None
        if tag & 7 == _LENGTH_DELIMITED:
            place += value
    return None


def _read_varint(frame: memoryview, place: int) -> tuple[int, int]:
    """Return a number and the place behind it; one that is cut off or too long ends behind the frame."""
    value = 0
    for shift, sign in enumerate(frame[place : place + 10]):
        value |= (sign & 0x7F) << 7 * shift
        if sign < 0x80:
            return value, place + shift + 1
    return 0, len(frame) + 1


def chunks(parts: Sequence[memoryview]) -> Iterator[tuple[list[memoryview], bool]]:
    """Cut the concatenation of `parts` into one or more chunks of at most `CHUNK` bytes; the flag marks the last."""
    chunk: list[memoryview] = []
    room = CHUNK
    for part in parts:
        start = 0
        while start < len(part):
            if not room:
                yield chunk, False
                chunk, room = [], CHUNK
            piece = part[start : start + room]
            chunk.append(piece)
            start += len(piece)
            room -= len(piece)
    yield chunk, True


def _bytes(frame: session_pb2.Frame) -> bytes:
    out: bytes = frame.SerializeToString()
    return out


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
