"""The way between two gateways, measured over a stream of its own: who drives asks, the other one answers.

The gateway that has dialled opens the stream, whichever of the two drives. The one that answers bounds what it takes
part in: known peers alone, one stream of each at a time and one now and then, so many bytes and so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from fedtasks.errors import CallsExceeded, MessageTooLarge, PeerUnreachable, ProtocolViolated, VersionDiffers
from fedtasks.gateway.base import Base
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.probe_driver import LARGEST, LONGEST_IDLE_S, drive
from fedtasks.wire.v1 import peer_pb2, worker_pb2

PROBES_SINCE = 5
"""The version of the gateways' protocol since which they measure the way between them."""

EVERY_MS = 15_000
"""How often one peer may have this gateway answer."""

MAX_BYTES, MAX_FRAMES = 32 << 20, 2_000
"""So many bytes cross in either direction, and so many messages come, in one stream."""

LONGEST_S = LONGEST_IDLE_S + 180.0
"""How long one may last."""

OPENED_S = 10.0
"""How long a peer that has dialled may take to open one."""

ROLE = "fedtasks-probe"
"""Metadata of the stream: what whoever opens it does."""

_DRIVES, _ANSWERS = "drives", "answers"


class Stream(Protocol):
    """One side of a probe: a servicer's context or a client's call."""

    async def read(self) -> Any:
        """Return the next message, or `grpc.aio.EOF`."""

    async def write(self, message: Any) -> None:
        """Send a message."""


class Probes:
    """Drives probes, and answers those of peers.

    Parameters
    ----------
    base
        The connections, and the clock.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._driving: set[str] = set()
        self._wanted: dict[str, asyncio.Future[tuple[Stream, asyncio.Event]]] = {}
        self._answering: set[str] = set()
        self._answered_ms: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ---------------------------------------------------------------------------------------------------------- driving
    async def measure(self, request: worker_pb2.ProbeNetworkRequest) -> worker_pb2.ProbeNetworkResponse:
        """Measure the way to a peer's gateway and back.

        Raises
        ------
        PeerUnknown, PeerUnreachable
            There is no such peer, or no conversation with it.
        VersionDiffers
            Its release does not take part.
        CallsExceeded
            That is being done already, or the peer was asked too often.

        Notes
        -----
        Reveals: to the peer, that somebody measures.
        Cost: up to 16 MiB in either direction.
        """
        peer, connection = request.peer, self._base.connection(request.peer)
        await connection.wait_connected(OPENED_S)
        if connection.protocol < PROBES_SINCE:
            text = f"the release of {peer}, {connection.version}, does not measure the way between gateways"
            raise VersionDiffers(text, party=peer)
        if peer in self._driving:
            raise CallsExceeded(most=1)
        self._driving.add(peer)
        try:
            async with self._opened(peer, connection) as stream:
                found = await drive(stream, min(float(request.idle_s), LONGEST_IDLE_S))
        finally:
            self._driving.discard(peer)
        found.dialled = connection.dialled
        return found

    @contextlib.asynccontextmanager
    async def _opened(self, peer: str, connection: PeerConnection) -> AsyncIterator[Stream]:
        """Yield a stream of which the peer answers the other end."""
        if connection.dialled:
            call = connection.open_probe(((ROLE, _DRIVES),))
            try:
                yield call
            finally:
                call.cancel()
            return
        opened: asyncio.Future[tuple[Stream, asyncio.Event]] = asyncio.get_running_loop().create_future()
        self._wanted[peer] = opened
        try:
            await connection.request(probe=peer_pb2.Probe())
            async with asyncio.timeout(OPENED_S):
                stream, is_over = await opened
        except TimeoutError:
            raise PeerUnreachable(f"{peer} has opened no stream within {OPENED_S:g} s") from None
        finally:
            self._wanted.pop(peer, None)
        try:
            yield stream
        finally:
            is_over.set()

    # -------------------------------------------------------------------------------------------------------- answering
    async def serve(self, peer: str, stream: Stream, metadata: Iterable[tuple[str, Any]] | None) -> None:
        """Take up a stream that a peer's gateway has opened; returns when it has ended."""
        role = dict(metadata or ()).get(ROLE)
        if role == _DRIVES:
            self._admit(peer)
            await self._answer(peer, stream)
            return
        opened = self._wanted.pop(peer, None) if role == _ANSWERS else None
        if opened is None or opened.done():
            raise ProtocolViolated("nobody has asked for this stream")
        is_over = asyncio.Event()
        opened.set_result((stream, is_over))
        await is_over.wait()

    def answer(self, peer: str) -> None:
        """Open a stream that a peer drives, which cannot dial.

        Raises
        ------
        ProtocolViolated
            The peer has dialled, and opens streams itself.
        CallsExceeded
            It asks too often.
        """
        connection = self._base.connections[peer]
        if not connection.dialled:
            raise ProtocolViolated(f"{peer} has dialled, and opens streams itself")
        self._admit(peer)
        task = asyncio.create_task(self._answer_dialled(peer, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _admit(self, peer: str) -> None:
        now, last = self._base.clock(), self._answered_ms.get(peer)
        if peer in self._answering or (last is not None and 0 <= now - last < EVERY_MS):
            raise CallsExceeded(most=1, retry_after_s=EVERY_MS // 1000)
        self._answered_ms[peer] = now
        self._answering.add(peer)

    async def _answer_dialled(self, peer: str, connection: PeerConnection) -> None:
        call = connection.open_probe(((ROLE, _ANSWERS),))
        try:
            await self._answer(peer, call)
        except (grpc.RpcError, asyncio.InvalidStateError, MessageTooLarge, ProtocolViolated):
            pass  # who drives finds that the stream has ended
        finally:
            call.cancel()

    async def _answer(self, peer: str, stream: Stream) -> None:
        """Answer what comes until the stream ends, within the bounds."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_S):
                    await _answer_all(stream)
        finally:
            self._answering.discard(peer)


async def _answer_all(stream: Stream) -> None:
    noise = os.urandom(LARGEST)  # nothing on the way can make it smaller
    taken = given = 0
    for _ in range(MAX_FRAMES):
        raw = await stream.read()
        if raw is grpc.aio.EOF:
            return
        at_us = time.monotonic_ns() // 1000
        frame = parsed(raw)
        taken, given = taken + len(raw), given + frame.answer_bytes
        if max(len(frame.padding), frame.answer_bytes) > LARGEST or max(taken, given) > MAX_BYTES:
            raise MessageTooLarge(message="probe", most=MAX_BYTES)
        answer = peer_pb2.ProbeFrame(at_us=at_us, padding=noise[: frame.answer_bytes])
        await stream.write(answer.SerializeToString())
    raise MessageTooLarge(message="probe", most=MAX_FRAMES)


def parsed(raw: bytes) -> peer_pb2.ProbeFrame:
    """Read a message of a probe; raise `ProtocolViolated` for anything else."""
    try:
        frame: peer_pb2.ProbeFrame = peer_pb2.ProbeFrame.FromString(raw)
    except DecodeError as error:
        raise ProtocolViolated("a message of a probe is none") from error
    return frame
