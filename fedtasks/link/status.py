"""Registry errors as gRPC statuses, and back: the one place where the two meet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import grpc

from fedtasks import errors
from fedtasks.errors import (
    FedtasksError,
    GatewayUnreachable,
    ProtocolViolated,
    SecretRejected,
    VersionDiffers,
    from_code,
)

SECRET = "fedtasks-secret"
RUN = "fedtasks-run"
TASK = "fedtasks-task"
SHARD = "fedtasks-shard"
ATTEMPT = "fedtasks-attempt"
TUNNEL = "fedtasks-tunnel"
"""That a session may go on in a tunnel, if it has any value."""
TUNNEL_TOKEN = "fedtasks-tunnel-token-bin"
TUNNEL_PORT = "fedtasks-tunnel-port"
"""In the answer: what a connection for the tunnel must prove to know, and at which port."""

CODE = "fedtasks-code"
TEXT = "fedtasks-text-bin"
WHERE = "fedtasks-where"
FIELDS = "fedtasks-fields-bin"

Metadata = tuple[tuple[str, str | bytes], ...]

_MAX_TEXT = 2000
# gRPC's own words for "try again later": nobody answered, or what answered went away.
_UNREACHABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED}
)

STATUS: dict[type[FedtasksError], grpc.StatusCode] = {
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TicketError: grpc.StatusCode.PERMISSION_DENIED,
    errors.TicketExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TicketRateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.PeerError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PeerUnknown: grpc.StatusCode.NOT_FOUND,
    errors.PeerIdentity: grpc.StatusCode.PERMISSION_DENIED,
    errors.PeerUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.PeerAirflowUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.LookupsNotServed: grpc.StatusCode.UNAVAILABLE,
    errors.MessageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CallsExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.GatewayFailed: grpc.StatusCode.INTERNAL,
    errors.PeerFailed: grpc.StatusCode.ABORTED,
    errors.PeerCancelled: grpc.StatusCode.ABORTED,
    errors.PeerRestarted: grpc.StatusCode.ABORTED,
    errors.RunError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RunUnknown: grpc.StatusCode.NOT_FOUND,
    errors.RunCancelled: grpc.StatusCode.ABORTED,
    errors.RunFailed: grpc.StatusCode.ABORTED,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.AttemptStale: grpc.StatusCode.ABORTED,
    errors.LinkError: grpc.StatusCode.UNAVAILABLE,
    errors.ProtocolViolated: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SecretRejected: grpc.StatusCode.UNAUTHENTICATED,
    errors.WorkerForbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.DataError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DataMissing: grpc.StatusCode.NOT_FOUND,
    errors.DataCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.CryptoError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MachineError: grpc.StatusCode.INTERNAL,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.AirflowUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.PageError: grpc.StatusCode.PERMISSION_DENIED,
}
"""What each error is to a tool that knows gRPC only; a leaf that is not listed is what its base is."""


def proof_of(token: bytes) -> bytes:
    """Return what a connection for a tunnel shows first, to whom handed out the token.

    Notes
    -----
    A digest, so that whoever hands out a token does not choose what is sent, wherever it says that it listens.
    """
    return hashlib.sha256(b"fedtasks-tunnel" + token).digest()


def to_abort(error: FedtasksError, *, own: bool = False) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return the arguments of a servicer's `context.abort` for `error`.

    Parameters
    ----------
    error
        Any leaf of the registry.
    own
        The caller is of this party and may see the detail; otherwise it sees what is public.
    """
    text = (error.detail or error.public) if own else error.public
    status = next((STATUS[base] for base in type(error).__mro__ if base in STATUS), grpc.StatusCode.UNKNOWN)
    trailing: list[tuple[str, str | bytes]] = [(CODE, error.code), (TEXT, _cut(text))]
    if error.where:
        trailing.append((WHERE, _ascii(error.where)))
    fields = json.dumps(error.fields, ensure_ascii=False).encode()
    if error.fields and len(fields) <= _MAX_TEXT:
        trailing.append((FIELDS, fields))
    return status, f"{error.code}: {error.summary}", tuple(trailing)


def from_rpc_error(error: grpc.RpcError, *, unreachable: type[FedtasksError] = GatewayUnreachable) -> FedtasksError:
    """Return the registry error that a failed call stands for.

    Parameters
    ----------
    error
        What a call raised; `grpc.aio` errors too.
    unreachable
        What it means when nobody answers: the local gateway's absence unless the caller called somebody else.
    """
    metadata = _dict(error.trailing_metadata() or ())
    status = error.code()
    if code := str(metadata.get(CODE, "")):
        rebuilt = from_code(code, _text(metadata.get(TEXT, b"")), where=str(metadata.get(WHERE, "")))
        rebuilt.fields.update(_fields(metadata.get(FIELDS, b"")))
        return rebuilt
    said = f"{status.name}: {error.details() or 'no details'}"
    if status in _UNREACHABLE:
        return unreachable(said)
    if status is grpc.StatusCode.UNAUTHENTICATED:
        return SecretRejected(said)
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return VersionDiffers(f"the gateway that was asked is of another release than who asks: {said}")
    return ProtocolViolated(f"the other end answered {said}")


def _cut(text: str) -> bytes:
    return text.encode()[:_MAX_TEXT].decode(errors="ignore").encode()


def _ascii(text: str) -> str:
    """Keep metadata within printable ASCII, which is all that HTTP/2 headers may hold."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text)[:_MAX_TEXT]


def _dict(metadata: Iterable[Any]) -> dict[str, Any]:
    return {item[0]: item[1] for item in metadata}


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _fields(value: bytes) -> dict[str, str]:
    if not value:
        return {}
    try:
        fields = json.loads(value)
    except ValueError:
        return {}
    return {str(name): str(item) for name, item in fields.items()} if isinstance(fields, dict) else {}
