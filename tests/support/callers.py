"""A peer's gateway as a test plays it: real keys, a real stream, and whatever messages the test likes."""

from __future__ import annotations

import contextlib
import itertools
import queue
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc

from fedtasks.clock import now_ms
from fedtasks.gateway.control_stream import CONTROL, PROTOCOL_MIN
from fedtasks.wire.v1 import peer_pb2

SESSION = "/fedtasks.v1.PeerGateway/Session"


class Caller:
    """One conversation with a listening gateway.

    Parameters
    ----------
    keys
        The folder with the caller's `gateway.key` and `gateway.pem`.
    authority
        The listener's authority, PEM file.
    address, name
        Where it listens, and what it is called.
    reads
        Whether what it answers is read; otherwise answers pile up wherever there is room.
    """

    def __init__(self, keys: Path, authority: Path, address: str, name: str, *, reads: bool = True) -> None:
        credentials = grpc.ssl_channel_credentials(
            authority.read_bytes(), (keys / "gateway.key").read_bytes(), (keys / "gateway.pem").read_bytes()
        )
        options = (
            ("grpc.ssl_target_name_override", f"{name}.fedtasks"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # Unread answers then find no more room here than they must.
            *(() if reads else (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))),
        )
        self.channel = grpc.secure_channel(address, credentials, options)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting: dict[int, queue.SimpleQueue[peer_pb2.Envelope | None]] = {}
        self._ids = itertools.count(1)
        self.call = self.channel.stream_stream(CONTROL)(iter(self._outbox.get, None))
        self.greet()
        self.greeting = self._next(self.call).greeting
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def greet(self) -> None:
        greeting = peer_pb2.Greeting(
            version="0", protocol_min=PROTOCOL_MIN, protocol_max=PROTOCOL_MIN, clock_ms=now_ms()
        )
        self.send(peer_pb2.Envelope(greeting=greeting))

    def send(self, envelope: peer_pb2.Envelope) -> None:
        """Send a message, and look no further."""
        self.send_raw(peer_pb2.ControlRequest(envelope=envelope).SerializeToString())

    def send_raw(self, message: bytes) -> None:
        self._outbox.put(message)

    def begin(self, **body: Any) -> int:
        """Send a request; returns its number."""
        number = next(self._ids)
        self._waiting[number] = queue.SimpleQueue()
        self.send(peer_pb2.Envelope(id=number, **body))
        return number

    def end(self, number: int, timeout_s: float = 30) -> peer_pb2.Envelope:
        """Return the answer to a request; raise `ConnectionError` when the conversation ends before."""
        answer = self._waiting[number].get(timeout=timeout_s)
        del self._waiting[number]
        if answer is None:
            raise ConnectionError("the conversation has ended")
        return answer

    def ask(self, **body: Any) -> peer_pb2.Envelope:
        """Send a request and return its answer."""
        return self.end(self.begin(**body))

    def open_session(self, metadata: dict[str, str]) -> Any:
        """Open the stream of a session; it is refused when its first frame is awaited."""
        never = threading.Event()
        return self.channel.stream_stream(SESSION)(_silence(never), metadata=tuple(metadata.items()))

    def close(self) -> None:
        self._outbox.put(None)
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self, call: Any) -> peer_pb2.Envelope:
        return peer_pb2.ControlResponse.FromString(next(call)).envelope

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError, StopIteration, ValueError):
            while True:
                envelope = self._next(self.call)
                if envelope.reply_to in self._waiting:
                    self._waiting[envelope.reply_to].put(envelope)
        for waiting in list(self._waiting.values()):
            waiting.put(None)


def _silence(never: threading.Event) -> Iterator[bytes]:
    never.wait(60)
    yield from ()


def raw_tls(keys: Path, authority: Path) -> ssl.SSLContext:
    """Return what speaks TLS as a peer's gateway does, for a test that goes no further than that."""
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False
    context.load_cert_chain(keys / "gateway.pem", keys / "gateway.key")
    context.set_alpn_protocols(["h2"])
    return context
