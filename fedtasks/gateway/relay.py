"""Splices the two streams of a session, frame by frame, without reading them.

Nothing is kept here: when either stream ends, both do, and the workers' links resume over new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import grpc

from fedtasks.errors import AttemptStale, FedtasksError, ProtocolViolated
from fedtasks.gateway.base import Base
from fedtasks.link.status import ATTEMPT, RUN, SHARD, TASK

log = logging.getLogger(__name__)

_MAX_TEXT = 200
"""The longest name in a session's metadata; a run's is the longest, as it is made of other names."""


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

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that `of` reads."""
        return (
            (RUN, self.run_id),
            (TASK, self.task),
            (SHARD, str(self.shard)),
            (ATTEMPT, str(self.attempt)),
        )


class Stream(Protocol):
    """One side of a splice: a servicer's context or a client's call."""

    async def read(self) -> Any:
        """Return the next frame, or `grpc.aio.EOF`."""

    async def write(self, frame: Any) -> None:
        """Pass one frame on."""


@dataclass
class Traffic:
    """Bytes of one session that crossed since they were last counted."""

    sent: int = 0
    received: int = 0


@dataclass
class _Session:
    """A worker that is attached, with or without its peer."""

    peer: str
    worker: Stream
    traffic: Traffic
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
        self._flushing = asyncio.Lock()
        self._attached = asyncio.Condition()

    async def serve_worker(self, key: SessionKey, peer: str, worker: Stream) -> None:
        """Join a worker of this party with its other half; returns when either stream ends.

        Raises
        ------
        FedtasksError
            The run or this attempt ended, or the peer cannot be reached.
        """
        older = self._sessions.get(key)
        if older is not None and not older.refusal.done():
            older.refusal.set_result(AttemptStale("the same half attached again", where=key.run_id))
        session = _Session(peer, worker, self._traffic.setdefault(key, Traffic()))
        self._sessions[key] = session
        async with self._attached:
            self._attached.notify_all()
        try:
            connection = self._connections[peer]
            await connection.wait_connected(20.0)
            if connection.dialled:
                call = connection.open_session(key.metadata())
                try:
                    await self._until_refused(session, self._splice(key, session, call))
                finally:
                    call.cancel()
            else:
                # The peer dials, so its gateway opens the stream; `serve_peer` splices. Here we only wait for an end.
                await self._until_refused(session, asyncio.Event().wait())
        finally:
            if self._sessions.get(key) is session:
                del self._sessions[key]

    async def serve_peer(self, key: SessionKey, peer: str, stream: Stream) -> None:
        """Join the stream of a peer's worker with the local worker, waiting until that is there."""
        session = await self._wait_attached(key, peer)
        try:
            await self._until_refused(session, self._splice(key, session, stream))
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

    def attempts(self, run_id: str) -> list[SessionKey]:
        """Return the keys of a run's attached workers."""
        return [key for key in self._sessions if key.run_id == run_id]

    async def flush(self) -> None:
        """Count what has crossed since the last time, also in sessions that are still open."""
        async with self._flushing:
            for key, traffic in list(self._traffic.items()):
                sent, received = traffic.sent, traffic.received
                if sent or received:
                    await asyncio.to_thread(self._store.traffic.add, *key, sent, received)
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

    async def _splice(self, key: SessionKey, session: _Session, peer: Stream) -> None:
        log.info("session %s/%s/%d attempt %d meets %s", *key, session.peer)
        traffic = session.traffic

        async def outward() -> None:
            async for frame in _frames(session.worker):
                traffic.sent += len(frame)
                await peer.write(frame)

        async def inward() -> None:
            async for frame in _frames(peer):
                traffic.received += len(frame)
                await session.worker.write(frame)

        pumps = [asyncio.create_task(outward()), asyncio.create_task(inward())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        log.info("session %s/%s/%d attempt %d ended", *key)


class _StreamEnded(FedtasksError):
    """The peer's stream ended: no reason to refuse anything, the link resumes."""


async def _frames(stream: Stream) -> AsyncIterator[bytes]:
    while True:
        frame = await stream.read()
        if frame is grpc.aio.EOF:
            return
        yield frame
