"""What a peer's message may be: looked at before it is parsed, and its names before anything is done with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from fedtasks import __version__
from fedtasks.config import MAX_PARTITION
from fedtasks.errors import ConfigError, FedtasksError, MessageTooLarge, ProtocolViolated
from fedtasks.text import MAX_TEXT, plain_text
from fedtasks.wire.v1 import peer_pb2

MAX_CONTROL_BYTES = 64 << 10
"""The longest message between two gateways, but for those in `_LARGER`."""

MAX_BYTES = 2 << 20
"""The longest that any may be. A session's frame is half as long."""

_LARGER = {"run_update": MAX_BYTES, "answers": MAX_BYTES}
"""A run tells of every half, up to 2 × 1024 shards with their outcomes and a receipt of all; answers are up to 1000
JSON objects, and come only to whoever has asked."""

MAX_FIELDS = {"run_update": 2_500, "start_run": 250, "answers": 1_100, "remembered": 250, "recalled": 250}
"""The most fields of these messages, repeated ones counted each: halves of a run, its steps, answers, runs."""

_MAX_FIELDS = 64
"""Those of any other."""

_MAX_NAME = 200
_MAX_INTEGER = (1 << 31) - 1

_SIGNED = re.compile(r"[A-Za-z0-9_.=-]*")

_BODIES = {field.number: field.name for field in peer_pb2.Envelope.DESCRIPTOR.oneofs_by_name["body"].fields}
_ID = peer_pb2.Envelope.ID_FIELD_NUMBER
_REPLY_TO = peer_pb2.Envelope.REPLY_TO_FIELD_NUMBER

Field: TypeAlias = tuple[int, int | memoryview]


@dataclass(frozen=True)
class Head:
    """What a message is, as far as it can be said without parsing it.

    Parameters
    ----------
    id, reply_to
        Its own number, and that of the request which it answers (0 if it is one).
    kind
        The name of its body, empty if it has none that this release knows.
    body
        The body's bytes.
    """

    id: int
    reply_to: int
    kind: str
    body: memoryview


def head_of(raw: bytes) -> Head:
    """Return the head of a `ControlRequest` or `ControlResponse`.

    Raises
    ------
    ProtocolViolated
        It is none, or has two bodies.
    """
    outer = list(_fields(memoryview(raw), 1))
    if len(outer) != 1 or outer[0][0] != 1 or isinstance(outer[0][1], int):
        raise ProtocolViolated("a message between gateways holds one envelope")
    numbers, kind, body = {_ID: 0, _REPLY_TO: 0}, "", memoryview(b"")
    for number, value in _fields(outer[0][1], 8):
        if isinstance(value, int):
            if number in numbers:
                numbers[number] = value
        elif body or kind:
            raise ProtocolViolated("an envelope holds one body")
        else:
            kind, body = _BODIES.get(number, ""), value
    return Head(numbers[_ID], numbers[_REPLY_TO], kind, body)


def check_shape(head: Head) -> int:
    """Check a message's length and number of fields, at a few steps for each of those; returns how many there are.

    Raises
    ------
    MessageTooLarge
        It has more of either.
    ProtocolViolated
        It is not a message.
    """
    check_size(head.kind, len(head.body))
    return sum(1 for _ in _fields(head.body, MAX_FIELDS.get(head.kind, _MAX_FIELDS)))


def check_size(kind: str, n_bytes: int) -> None:
    """Raise `MessageTooLarge` when a message of this kind may not have so many bytes."""
    most = _LARGER.get(kind, MAX_CONTROL_BYTES)
    if n_bytes > most:
        raise MessageTooLarge(message=kind or "unknown", bytes=n_bytes, most=most)


def parse(head: Head) -> peer_pb2.Envelope:
    """Return a message whose shape has been checked.

    Raises
    ------
    ProtocolViolated
        It cannot be read, or says nothing that is known here.
    """
    envelope = peer_pb2.Envelope(id=head.id, reply_to=head.reply_to)
    if not head.kind:
        raise ProtocolViolated("a message of a kind that this release does not know", release=__version__)
    body = getattr(envelope, head.kind)
    body.SetInParent()
    try:
        body.MergeFromString(bytes(head.body))
    except DecodeError as error:
        raise ProtocolViolated("what a peer sent is not a message") from error
    return envelope


def check_names(envelope: peer_pb2.Envelope) -> None:
    """Check that names and numbers of a request are short and plain, whatever becomes of them.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    kind = envelope.WhichOneof("body")
    body = getattr(envelope, kind) if kind else None
    for field in _NAMES.get(str(kind), ()):
        _check_name(getattr(body, field), field)
    for field in _TEXTS.get(str(kind), ()):
        if not _SIGNED.fullmatch(getattr(body, field)):
            raise ConfigError("a signed text holds other characters", field=field)
    match kind:
        case "start_run":
            _check_integer(envelope.start_run.number, "number")
            for step in envelope.start_run.steps:
                for field in ("name", "kind", "digest"):
                    _check_name(getattr(step, field), f"steps.{field}")
        case "champion_change":
            version = envelope.champion_change.version
            for field in ("model", "run_id", "partition", "own_digest", "peer_digest", "algorithm"):
                _check_name(getattr(version, field), field)
            _check_integer(version.version, "version")


def facts_of(head: Head, envelope: peer_pb2.Envelope | None) -> tuple[str, dict[str, Any]]:
    """Return under which action a request is audited, and what is told of it, cut to what may be shown."""
    action, paths = _AUDITED.get(head.kind, ("peer.request", {}))
    if envelope is None or not paths:
        return action, {"request": head.kind or "unknown"}
    body = getattr(envelope, head.kind)
    return action, {fact: _plain(body, path) for fact, path in paths.items()}


_NAMES = {
    "start_run": ("ticket_id", "pipeline", "dag_id", "partition"),
    "run_update": ("run_id",),
    "ticket_update": ("ticket_id",),
    "lookup": ("ticket_id", "dataset", "key_id", "stream"),
    "preflight": ("pipeline",),
    "ticket_request": ("request_id", "dataset", "role"),
    "ticket_request_declined": ("request_id",),
    "landed": ("dataset", "partition"),
}
"""The fields of each request that name something."""

_TEXTS = {"run_update": ("receipt",), "ticket_update": ("grant", "acceptance", "revocation")}
"""Those that hold a signed text."""

_AUDITED = {
    "start_run": (
        "run.start",
        {"pipeline": "pipeline", "partition": "partition", "ticket": "ticket_id"},
    ),
    "lookup": ("lookup.answer", {"ticket": "ticket_id", "dataset": "dataset", "stream": "stream"}),
    "champion_change": (
        "model.champion",
        {"model": "version.model", "version": "version.version", "reason": "reason"},
    ),
    "run_update": ("run.update", {"run_id": "run_id"}),
    "ticket_update": ("ticket.update", {"ticket": "ticket_id"}),
    "ticket_request": ("ticket.requested", {"request": "request_id"}),
    "ticket_request_declined": ("request.declined", {"request": "request_id", "reason": "reason"}),
    "landed": ("data.landed", {"dataset": "dataset", "partition": "partition"}),
    "remembered": ("store.compare", {"store": "store.store_id"}),
    "preflight": ("peer.preflight", {"pipeline": "pipeline"}),
    "probe": ("probe.open", {}),
}
"""Under which action each request is audited, and its facts: name → field."""


def _check_name(value: str, field: str) -> None:
    """Names are checked for what they must be where they are used; here, that they are short and plain."""
    if len(value) > _MAX_NAME or not all(sign.isalnum() or sign in "_-.[]" for sign in value):
        shown = plain_text(value, MAX_PARTITION)
        raise ConfigError(f"`{shown}` is no plain name of at most {_MAX_NAME} characters", field=field)


def _check_integer(value: int, field: str) -> None:
    if not 0 <= value <= _MAX_INTEGER:
        raise ConfigError("a number is too large", field=field)


def _plain(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = getattr(body, name)
    return plain_text(body, MAX_TEXT if path == "reason" else MAX_PARTITION) if isinstance(body, str) else body


# --------------------------------------------------------------------------------------------------------- the wire
# Source: "Encoding", protobuf.dev: a message is a sequence of tags, each followed by a value of the tag's wire type.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _fields(data: memoryview, most: int) -> Iterator[Field]:
    """Yield number and value of each field on the topmost level of a message."""
    at, n = 0, 0
    while at < len(data):
        n += 1
        if n > most:
            raise MessageTooLarge(fields=f"more than {most}")
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(data, at)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise _not_a_message()
        if size > len(data) - at:
            raise _not_a_message()
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise _not_a_message()


def _not_a_message() -> FedtasksError:
    return ProtocolViolated("what a peer sent is not a message")
