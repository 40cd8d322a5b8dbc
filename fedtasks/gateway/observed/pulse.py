"""How the gateway's event loop is: written down there once a second, read by others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fedtasks.gateway.base import Base
from fedtasks.gateway.fair_threads import FairThreads
from fedtasks.gateway.intake import STRANGER, Intake
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.reconciler import Reconciler

T = TypeVar("T")

BEAT_S = 1.0
"""How often it is written down."""

END_S = 3.0
"""How long the end of a term waits for who reads its store."""

STUCK_S = 15.0
"""A loop that has written nothing for so long does not turn."""


@dataclass(frozen=True)
class PeerNow:
    """How the gateway is with one peer.

    Parameters
    ----------
    is_connected, since_ms
        Whether a conversation stands, and since when that is so.
    skew_s
        How far its clock is ahead.
    workers
        How many of this party's workers are attached for it.
    calls, answering, waiting
        Its open calls; its requests that are being answered; and those that wait for a thread.
    sent, received
        Bytes of sessions since the gateway began.
    """

    is_connected: bool
    since_ms: int
    skew_s: float
    workers: int
    calls: int
    answering: int
    waiting: int
    sent: int
    received: int


@dataclass(frozen=True)
class Now:
    """How the gateway is.

    Parameters
    ----------
    peers
        Name → how it is with that peer.
    strangers
        Open calls of strangers.
    tunnels
        Sessions that go through tunnels.
    waiting
        Calls that wait for a thread and whose turn has come.
    refusals
        Who was refused and why → how often.
    passed_ms, watched
        When the reconciler has last looked after all runs, and how many those are.
    silent
        The parts of this party's Airflow that do not run.
    """

    peers: Mapping[str, PeerNow]
    strangers: int
    tunnels: int
    waiting: int
    refusals: Mapping[tuple[str, str], int]
    passed_ms: int
    watched: int
    silent: tuple[str, ...]


class Watched:
    """A gateway's parts in one term as the active one, as long as it lasts.

    Parameters
    ----------
    parts, intake, reconciler, threads
        What is looked at.
    """

    def __init__(self, parts: Parts, intake: Intake, reconciler: Reconciler, threads: FairThreads) -> None:
        self._base, self._relay = parts.base, parts.relay
        self._intake, self._reconciler, self._threads = intake, reconciler, threads
        self._reading, self._is_over = threading.Lock(), False

    def read(self, find: Callable[[Base], T]) -> T | None:
        """Find something out from the store, in a thread; None when the term is over."""
        with self._reading:
            return None if self._is_over else find(self._base)

    def end(self) -> None:
        """Let nobody read any more: the store is about to be closed. Waits for who reads, though not for ever."""
        self._is_over = True
        if self._reading.acquire(timeout=END_S):
            self._reading.release()

    def look(self) -> Now:
        """Return how it is; only on the event loop."""
        workers, calls, waiting = self._relay.attached(), self._intake.calls, self._threads.waiting
        peers = {}
        for name, connection in self._base.connections.items():
            carried = self._relay.carried[name]
            peers[name] = PeerNow(
                is_connected=connection.is_connected,
                since_ms=connection.since_ms,
                skew_s=connection.clock_skew_s,
                workers=workers[name],
                calls=calls[name],
                answering=connection.n_answering,
                waiting=waiting.get(name, 0),
                sent=carried.sent,
                received=carried.received,
            )
        return Now(
            peers=peers,
            strangers=calls[STRANGER],
            tunnels=self._relay.tunnels.n_open,
            waiting=waiting[""],
            refusals=self._base.ledger.refusals.copy(),
            passed_ms=self._reconciler.passed_ms,
            watched=self._reconciler.n_watched,
            silent=tuple(each.part for each in self._base.health.silent),
        )


class Pulse:
    """Writes down how the gateway is, whether it is the active one or stands by.

    Attributes
    ----------
    watched, now
        Its parts, and how they were at the last beat; None while it stands by.
    lag_s
        By how much later than it should the loop got to that.
    """

    def __init__(self) -> None:
        self.watched: Watched | None = None
        self.now: Now | None = None
        self.lag_s = 0.0
        self._beat_s = time.monotonic()

    @property
    def is_stuck(self) -> bool:
        """Whether the loop has not come to a beat for too long."""
        return time.monotonic() - self._beat_s > STUCK_S

    @contextlib.asynccontextmanager
    async def watching(self, watched: Watched) -> AsyncIterator[None]:
        """Look at a gateway's parts while they serve."""
        self.watched, self.now = watched, watched.look()
        try:
            yield
        finally:
            self.watched = self.now = None
            await asyncio.to_thread(watched.end)

    async def run(self) -> None:
        """Write down until cancelled."""
        while True:
            due_s = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._beat_s = time.monotonic()
            self.lag_s = max(0.0, self._beat_s - due_s)
            self.now = self.watched.look() if self.watched is not None else None
