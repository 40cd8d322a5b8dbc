"""Frames as bytes. A chunk is copied once on its way out, which the generated serialiser cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError

from fedtasks.errors import ProtocolViolated
from fedtasks.wire.v1 import session_pb2

CHUNK = 1 << 20
"""Payload bytes in a frame; only the last of a message may have fewer."""

MAX_FRAME = CHUNK + (64 << 10)
"""Most bytes of a frame."""

HEARTBEAT: bytes = session_pb2.Frame(heartbeat=session_pb2.Heartbeat()).SerializeToString()
BLOCKED: bytes = session_pb2.Frame(heartbeat=session_pb2.Heartbeat(is_blocked=True)).SerializeToString()
CLOSE: bytes = session_pb2.Frame(close=session_pb2.Close()).SerializeToString()

_LENGTH_DELIMITED = 2
_DATA_TAG = bytes([session_pb2.Frame.DATA_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
_CHUNK_TAG = bytes([session_pb2.Data.CHUNK_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])


def hello(
    version_min: int,
    version_max: int,
    incarnation: str,
    received: int,
    facts: Mapping[str, str],
    *,
    takes_tunnels: bool = False,
) -> bytes:
    """Encode a Hello."""
    message = session_pb2.Hello(
        version_min=version_min,
        version_max=version_max,
        incarnation=incarnation,
        received=received,
        facts=facts,
        takes_tunnels=takes_tunnels,
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


def parse(frame: bytes) -> session_pb2.Frame:
    """Decode a frame from the peer; raise `ProtocolViolated` when it is none."""
    if len(frame) > MAX_FRAME:
        raise ProtocolViolated(f"a frame of {len(frame)} bytes")
    try:
        message: session_pb2.Frame = session_pb2.Frame.FromString(frame)
        return message
    except DecodeError as error:
        raise ProtocolViolated("a frame that cannot be read") from error


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
