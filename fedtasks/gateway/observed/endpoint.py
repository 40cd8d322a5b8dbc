"""The port at which a gateway is seen: ``/healthz``, ``/readyz``, ``/metrics`` over plain HTTP, in its own thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from fedtasks.config import split_address
from fedtasks.errors import FedtasksError, PortInUse
from fedtasks.gateway.base import Base
from fedtasks.gateway.observed.lookup import Lookup
from fedtasks.gateway.observed.metrics import of_active, of_process, of_runs, of_slow
from fedtasks.gateway.observed.pulse import Pulse
from fedtasks.reports.figures import RunFigures, SlowFigures, run_figures, slow_figures

log = logging.getLogger(__name__)

FIELD = "gateway.observed"

MAX_CONNECTIONS = 32
"""So many may be open at once; the next is hung up on."""

REQUEST_S, MAX_REQUEST = 5.0, 8 << 10
"""How long a request may take to arrive and its answer to be taken, and how many bytes it may have."""

READY_S, RUNS_S, SLOW_S = 2.0, 5.0, 60.0
"""How often at most the store is asked whether it answers, how runs stand, and what changes slowly."""

RENDERED_S = 1.0
"""How long the text of the metrics counts."""

T = TypeVar("T")

Condition = Callable[[], str]
"""Says why a gateway does not serve yet, or no more; nothing while it does. Called in a thread."""

_STUCK = "the event loop does not turn"
_PLAIN = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True)
class _Readiness:
    """Why a gateway does not serve (nothing while it does), and how fast its store answers, None if it does not."""

    obstacles: tuple[str, ...]
    answer_s: float | None


_STORE_AWAY = _Readiness(("the store does not answer",), None)


def _answer_s(base: Base) -> float | None:
    """Return how long the store takes for a small query; None if it does not answer."""
    begun_s = time.monotonic()
    try:
        base.store.identity.get()
    except FedtasksError:
        return None
    return time.monotonic() - begun_s


class _Collected(Collector):
    """What was found out last, as Prometheus's client takes it."""

    def __init__(self) -> None:
        self.found: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        yield from self.found


class Endpoint:
    """Answers who looks at a gateway.

    Parameters
    ----------
    party
        Whose gateway.
    pulse
        How it is.
    conditions
        What must hold before it serves, beside a store that answers.
    """

    def __init__(self, party: str, pulse: Pulse, conditions: Sequence[Condition]) -> None:
        self._pulse, self._conditions = pulse, conditions
        self._readiness: Lookup[_Readiness] = Lookup(self._look, READY_S)
        self._runs: Lookup[RunFigures | None] = Lookup(
            lambda: self._read(lambda base: run_figures(base.store, party, base.clock())), RUNS_S
        )
        self._slow: Lookup[SlowFigures | None] = Lookup(
            lambda: self._read(lambda base: slow_figures(base.store, base.party, base.clock())), SLOW_S
        )
        self._registry, self._collected = CollectorRegistry(), _Collected()
        self._registry.register(self._collected)
        ProcessCollector(registry=self._registry)
        self._text, self._rendered_s = b"", -RENDERED_S
        self._rendering = asyncio.Lock()
        self._open = 0

    def _read(self, find: Callable[[Base], T]) -> T | None:
        watched = self._pulse.watched
        return None if watched is None else watched.read(find)

    def _look(self) -> _Readiness:
        obstacles = tuple(filter(None, (condition() for condition in self._conditions)))
        if self._pulse.watched is None:
            return _Readiness(obstacles, None)
        answer_s = self._read(_answer_s)
        return _Readiness(obstacles if answer_s is not None else (*obstacles, *_STORE_AWAY.obstacles), answer_s)

    async def serve(self, listener: socket.socket, started: Callable[[], None]) -> None:
        """Answer until cancelled."""
        server = await asyncio.start_server(self._connected, sock=listener, limit=MAX_REQUEST)
        started()
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                status, kind, text = await self._answer(head.partition(b"\r\n")[0].split(b" "))
                lines = [
                    f"HTTP/1.1 {status} {_REASONS[status]}",
                    f"Content-Type: {kind}",
                    f"Content-Length: {len(text)}",
                    "X-Content-Type-Options: nosniff",
                    "Connection: close",
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + text)
                async with asyncio.timeout(REQUEST_S):
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who asks so is not answered
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, request: list[bytes]) -> tuple[int, str, bytes]:
        """Return status, type and text of the answer to a request line."""
        if len(request) != 3:
            return 400, _PLAIN, b"not a request\n"
        method, path, _ = request
        if method != b"GET":
            return 405, _PLAIN, b"only GET\n"
        match path.partition(b"?")[0]:
            case b"/healthz":
                return _said([_STUCK] if self._pulse.is_stuck else [])
            case b"/readyz":
                return _said((await self._ready()).obstacles)
            case b"/metrics":
                return 200, CONTENT_TYPE_PLAIN_0_0_4, await self._metrics()
        return 404, _PLAIN, b"/healthz, /readyz, /metrics\n"

    async def _ready(self) -> _Readiness:
        found = await self._readiness.get() or _STORE_AWAY
        return replace(found, obstacles=(*found.obstacles, _STUCK)) if self._pulse.is_stuck else found

    async def _metrics(self) -> bytes:
        async with self._rendering:
            if time.monotonic() - self._rendered_s >= RENDERED_S:
                ready, runs, slow = await asyncio.gather(self._ready(), self._runs.get(), self._slow.get())
                now = self._pulse.now
                self._collected.found = [
                    *of_process(self._pulse.lag_s, is_ready=not ready.obstacles, is_active=now is not None),
                    *(of_active(now, ready.answer_s) if now is not None else ()),
                    *(of_runs(runs) if runs is not None and now is not None else ()),
                    *(of_slow(slow) if slow is not None and now is not None else ()),
                ]
                self._text, self._rendered_s = generate_latest(self._registry), time.monotonic()
            return self._text


def _said(obstacles: Sequence[str]) -> tuple[int, str, bytes]:
    text = "".join(f"{obstacle}\n" for obstacle in obstacles) or "ok\n"
    return 503 if obstacles else 200, _PLAIN, text.encode()


@contextlib.asynccontextmanager
async def observed(address: str, party: str, pulse: Pulse, conditions: Sequence[Condition]) -> AsyncIterator[None]:
    """Answer at an address while the context lasts; see `Endpoint`.

    Raises
    ------
    PortInUse
        It cannot be bound.
    """
    host, port = split_address(address, "observed")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortInUse(f"`{address}` cannot be bound: {error.strerror}", where=f"party.yaml: {FIELD}") from error
    thread = _Thread(lambda: Endpoint(party, pulse, conditions), listener)
    beating = asyncio.create_task(pulse.run())
    try:
        await asyncio.to_thread(thread.start)
        log.info("gateway of %s can be looked at on http://%s", party, address)
        yield
    finally:
        beating.cancel()
        thread.stop()


class _Thread:
    """A thread with an event loop of its own, for one endpoint."""

    def __init__(self, make: Callable[[], Endpoint], listener: socket.socket) -> None:
        self._make, self._listener = make, listener
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observed", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._serving.cancel)
            self._thread.join(2 * REQUEST_S)

    def _run(self) -> None:
        # What the store keeps waiting must not keep the end of the gateway waiting.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="observed")
        self._loop.set_default_executor(self._threads)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._loop.run_until_complete(_end_all())
            self._loop.close()

    async def _serve(self) -> None:
        self._serving = asyncio.ensure_future(self._make().serve(self._listener, self._started.set))
        await self._serving


async def _end_all() -> None:
    """End the answers that are still being given."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
