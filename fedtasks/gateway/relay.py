"""Splices the two streams of a session, frame by frame, without reading them, and makes the tunnel beside them.

Nothing is kept here: when either stream or the tunnel ends, all do, and the workers' links resume over new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import grpc

from fedtasks.config import split_address
from fedtasks.errors import AttemptStale, FedtasksError, ProtocolViolated, RunUnknown
from fedtasks.gateway import tunnels
from fedtasks.gateway.base import Base
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.tunnels import Side, Tunnel, Tunnels
from fedtasks.link.status import ATTEMPT, RUN, SHARD, TASK, TUNNEL, TUNNEL_PORT, TUNNEL_TOKEN, Metadata

log = logging.getLogger(__name__)

_MAX_TEXT = 200
"""The longest name in a session's metadata; a run's is the longest, as it is made of other names."""


_ASKS: Metadata = ((TUNNEL, "1"),)


class SessionKey(NamedTuple):
    """What two workers must have in common to meet."""

    run_id: str
    task: str
    shard: int
    attempt: int

    @classmethod
    def of(cls, metadata: Iterable[tuple[str, Any]] | None) -> SessionKey:
        """Read the key from a stream's metadata; raise `ProtocolViolated` where it has none."""
        said = dict(metadata or ())
        try:
            texts = [said[name] for name in (RUN, TASK, SHARD, ATTEMPT)]
            if max(map(len, texts)) > _MAX_TEXT:
                raise ProtocolViolated(f"the session's metadata is longer than {_MAX_TEXT} characters")
            run_id, task, shard, attempt = texts
            return cls(run_id, task, int(shard), int(attempt))
        except (KeyError, ValueError) as error:
            raise ProtocolViolated(f"the session's metadata lacks or garbles {error}") from error

    def metadata(self) -> Metadata:
        """Return the metadata that `of` reads."""
        return (
            (RUN, self.run_id),
            (TASK, self.task),
            (SHARD, str(self.shard)),
            (ATTEMPT, str(self.attempt)),
        )


def asks_for_tunnel(metadata: Iterable[tuple[str, Any]] | None) -> bool:
    """Whether whoever opens a session would go on in a tunnel."""
    return bool(dict(metadata or ()).get(TUNNEL))


class Stream(Protocol):
    """One side of a splice: a servicer's context or a client's call."""

    async def read(self) -> Any:
        """Return the next frame, or `grpc.aio.EOF`."""

    async def write(self, frame: Any) -> None:
        """Pass one frame on."""


class Accepted(Stream, Protocol):
    """A stream that was opened by the other side."""

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Tell something ahead of the first frame."""


@dataclass
class Traffic:
    """Bytes that crossed with a peer: of one session since they were last counted, or of all that were."""

    peer: str
    sent: int = 0
    received: int = 0

    def add(self, sent: int, received: int) -> None:
        """Add what has crossed, such as in a tunnel."""
        self.sent += sent
        self.received += received


@dataclass
class _Session:
    """A worker that is attached, with or without its peer."""

    peer: str
    worker: Accepted
    traffic: Traffic
    takes_tunnel: bool
    refusal: asyncio.Future[FedtasksError] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    met: bool = False


class Relay:
    """The sessions of this gateway.

    Parameters
    ----------
    base
        The connections; the store, which counts the bytes that cross.
    """

    def __init__(self, base: Base) -> None:
        self._connections, self._store = base.connections, base.store
        self._sessions: dict[SessionKey, _Session] = {}
        self._traffic: dict[SessionKey, Traffic] = {}
        self.carried = {name: Traffic(name) for name in base.connections}
        """What has crossed with each peer since this process began."""
        self.tunnels = Tunnels(base.ledger)
        self._flushing = asyncio.Lock()
        self._attached = asyncio.Condition()

    async def serve_worker(self, key: SessionKey, peer: str, worker: Accepted, *, takes_tunnel: bool = False) -> None:
        """Join a worker of this party with its other half; returns when either stream ends.

        Raises
        ------
        FedtasksError
            The run or this attempt ended, or the peer cannot be reached.
        """
        older = self._sessions.get(key)
        if older is not None and not older.refusal.done():
            older.refusal.set_result(AttemptStale("the same half attached again", where=key.run_id))
        session = _Session(peer, worker, self._traffic.setdefault(key, Traffic(peer)), takes_tunnel)
        self._sessions[key] = session
        async with self._attached:
            self._attached.notify_all()
        try:
            connection = self._connections[peer]
            await connection.wait_connected(20.0)
            if connection.dialled:
                call = connection.open_session(key.metadata() + (_ASKS if takes_tunnel else ()))
                try:
                    opening = partial(self._follow, session, connection, call)
                    await self._until_refused(session, self._splice(key, session, call, opening))
                finally:
                    call.cancel()
            else:
                # The peer dials, so its gateway opens the stream; `serve_peer` splices. Here we only wait for an end.
                await self._until_refused(session, asyncio.Event().wait())
        finally:
            if self._sessions.get(key) is session:
                del self._sessions[key]

    async def serve_peer(self, key: SessionKey, peer: str, stream: Accepted, *, takes_tunnel: bool = False) -> None:
        """Join the stream of a peer's worker with the local worker, waiting until that is there."""
        session = await self._wait_attached(key, peer)
        try:
            opening = partial(self._lead, session, stream, takes_tunnel and session.takes_tunnel)
            await self._until_refused(session, self._splice(key, session, stream, opening))
        finally:
            # The local worker's stream ends too: its link opens a new one and resumes.
            if not session.refusal.done():
                session.refusal.set_result(_StreamEnded())

    async def _wait_attached(self, key: SessionKey, peer: str) -> _Session:
        async with self._attached:
            while True:
                session = self._sessions.get(key)
                if session is not None and session.peer == peer and not session.met and not session.refusal.done():
                    session.met = True
                    return session
                await self._attached.wait()

    def refuse(self, run_id: str, error: FedtasksError, task: str | None = None) -> None:
        """End every session of a run, or of one task, telling this party's workers why."""
        for key, session in self._sessions.items():
            if key.run_id == run_id and task in (None, key.task) and not session.refusal.done():
                session.refusal.set_result(error)

    def attached(self) -> Counter[str]:
        """Return how many of this party's workers are attached, by the peer whose half they meet."""
        return Counter(session.peer for session in self._sessions.values())

    def run_ids(self) -> set[str]:
        """Return the runs that workers are attached for."""
        return {key.run_id for key in self._sessions}

    def attempts(self, run_id: str) -> list[SessionKey]:
        """Return the keys of a run's attached workers."""
        return [key for key in self._sessions if key.run_id == run_id]

    async def flush(self) -> None:
        """Count what has crossed since the last time, also in sessions that are still open."""
        async with self._flushing:
            self.tunnels.settle()
            for key, traffic in list(self._traffic.items()):
                sent, received = traffic.sent, traffic.received
                if sent or received:
                    # Bytes of a run that the store has lost have no account any more.
                    with contextlib.suppress(RunUnknown):
                        await asyncio.to_thread(self._store.traffic.add, *key, sent, received)
                    self.carried[traffic.peer].add(sent, received)
                    traffic.sent -= sent
                    traffic.received -= received
                elif key not in self._sessions:
                    del self._traffic[key]

    async def _until_refused(self, session: _Session, work: Any) -> None:
        """Run `work` until it ends or the session is refused; raise the refusal."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, session.refusal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.RpcError, asyncio.InvalidStateError):
                await task
        if session.refusal.done() and not isinstance(session.refusal.result(), _StreamEnded):
            raise session.refusal.result()

    async def _lead(self, session: _Session, stream: Accepted, takes_tunnel: bool) -> Tunnel | None:
        """Make the tunnel of a session that the peer's gateway has opened, and tell both sides of it."""
        tunnel = self.tunnels.make(session.traffic.add) if takes_tunnel else None
        if tunnel is not None:
            await self._tell(tunnel, {Side.PEER: stream, Side.WORKER: session.worker})
        return tunnel

    async def _follow(self, session: _Session, connection: PeerConnection, call: Any) -> Tunnel | None:
        """Make the tunnel of a session that was opened from here, if the peer has one, and tell the worker."""
        said = dict(await call.initial_metadata() or ())
        token, port = said.get(TUNNEL_TOKEN), str(said.get(TUNNEL_PORT, ""))
        if not session.takes_tunnel or not isinstance(token, bytes) or not _is_port(port):
            return None
        peer = connection.peer
        host, number = split_address(peer.tunnels or str(peer.address), "address")
        where = number if peer.tunnels else int(port)

        def dial() -> Any:
            return tunnels.dial(host, where, token)

        tunnel = self.tunnels.make(session.traffic.add, dial)
        if tunnel is not None:
            await self._tell(tunnel, {Side.WORKER: session.worker})
        return tunnel

    async def _tell(self, tunnel: Tunnel, streams: dict[Side, Accepted]) -> None:
        """Hand out the tokens, which is possible ahead of the first frame only."""
        try:
            for side, stream in streams.items():
                said: Metadata = ((TUNNEL_TOKEN, tunnel.tokens[side]), (TUNNEL_PORT, str(self.tunnels.ports[side])))
                await stream.send_initial_metadata(said)
        except BaseException:
            tunnel.end()
            raise

    async def _splice(
        self, key: SessionKey, session: _Session, peer: Stream, opening: Callable[[], Awaitable[Tunnel | None]]
    ) -> None:
        log.info("session %s/%s/%d attempt %d meets %s", *key, session.peer)
        traffic = session.traffic
        tunnel = await opening()

        async def outward() -> None:
            async for frame in _frames(session.worker):
                traffic.sent += len(frame)
                await peer.write(frame)

        async def inward() -> None:
            async for frame in _frames(peer):
                traffic.received += len(frame)
                await session.worker.write(frame)

        pumps: list[asyncio.Task[Any]] = [asyncio.create_task(outward()), asyncio.create_task(inward())]
        if tunnel is not None:
            pumps.append(asyncio.create_task(tunnel.broken.wait()))
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if tunnel is not None:
                tunnel.end()
                await tunnel.wait_cleared()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        log.info("session %s/%s/%d attempt %d ended", *key)


class _StreamEnded(FedtasksError):
    """The peer's stream ended: no reason to refuse anything, the link resumes."""


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len("65535") and 0 < int(text) <= 65535


async def _frames(stream: Stream) -> AsyncIterator[bytes]:
    while True:
        frame = await stream.read()
        if frame is grpc.aio.EOF:
            return
        yield frame
