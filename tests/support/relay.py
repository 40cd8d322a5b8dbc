"""A gateway reduced to what a link needs of it: joins two streams of one key, also in tunnels, and misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc

from fedtasks.config import tunnel_socket
from fedtasks.errors import FedtasksError, SecretRejected
from fedtasks.gateway.tunnels import Side, Tunnel, read_proof
from fedtasks.link import status
from fedtasks.link.doorway import WorkerSide
from fedtasks.link.keepalive import ALWAYS

T = TypeVar("T")

SECRET = "a secret for tests"


class Relay:
    """Serves `Session` on a socket of its own, in a thread of its own.

    Parameters
    ----------
    cuts
        How many frames cross before each cut, both directions together; those in tunnels do not count.
    has_tunnels
        Whether sessions may go on in tunnels.
    """

    def __init__(self, cuts: Iterable[int] = (), *, has_tunnels: bool = False) -> None:
        self.has_tunnels = has_tunnels
        self.tunnels = 0
        self.tunnel_bytes = 0
        self._tunnels: set[Tunnel] = set()
        self._admitting: dict[asyncio.Task[None], socket.socket] = {}
        self.refusal: FedtasksError | None = None
        self.rewrite: Callable[[bytes], bytes | None] = lambda frame: frame
        self.frames = 0
        self.sessions = 0
        self._cuts: Iterator[int] = iter(cuts)
        self._left = next(self._cuts, None)
        self._waiting: dict[tuple[Any, ...], tuple[Any, asyncio.Event, asyncio.Future[Any]]] = {}
        self._ends: set[asyncio.Event] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="relay-")
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    @property
    def side(self) -> WorkerSide:
        return WorkerSide(f"unix://{self._folder.name}/workers.sock", SECRET)

    def start(self) -> None:
        """Listen; after a stop, on the same socket."""
        self._run(self._start())

    def stop(self) -> None:
        """Hang up and listen no more."""
        self._run(self._stop())

    def cut(self) -> None:
        """End every stream."""
        self._run(self._cut())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(20)

    async def _start(self) -> None:
        handler = grpc.stream_stream_rpc_method_handler(self._session)
        options = (*ALWAYS, ("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("fedtasks.v1.WorkerGateway", {"Session": handler}),)
        )
        self._server.add_insecure_port(self.side.address.replace("unix://", "unix:"))
        await self._server.start()
        path = tunnel_socket(Path(self.side.address.removeprefix("unix://")))
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _stop(self) -> None:
        if self._listener.fileno() >= 0:  # it may have been stopped before
            asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        waiting = dict(self._admitting)
        for admission in waiting:
            admission.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for connection in waiting.values():
            connection.close()
        for tunnel in list(self._tunnels):
            tunnel.end()
            await tunnel.wait_cleared()
        await self._server.stop(None)

    def _accept(self) -> None:
        # Not `sock_accept`: what it has accepted when it is cancelled, nobody closes.
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            admission = asyncio.create_task(self._admit(connection))
            self._admitting[admission] = connection
            admission.add_done_callback(self._admitting.pop)

    async def _admit(self, connection: socket.socket) -> None:
        proof = await read_proof(connection)
        wanting = [(each, side) for each in self._tunnels for side in Side if each.wants(side, proof)]
        if not wanting:
            connection.close()  # its session has ended
        for tunnel, side in wanting:
            tunnel.spend(side)
            await tunnel.attach(side, connection)

    async def _make_tunnel(self, contexts: dict[Side, Any]) -> Tunnel:
        tunnel = Tunnel(self._count, None, self._tunnels.discard)
        self._tunnels.add(tunnel)
        for side, context in contexts.items():
            await context.send_initial_metadata(((status.TUNNEL_TOKEN, tunnel.tokens[side]),))
        return tunnel

    def _count(self, sent: int, received: int) -> None:
        self.tunnel_bytes += sent + received

    async def _cut(self) -> None:
        for end in self._ends:
            end.set()

    async def _session(self, _: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if metadata.get(status.SECRET) != SECRET:
            await context.abort(*status.to_abort(SecretRejected("wrong secret")))
        if self.refusal is not None:
            await context.abort(*status.to_abort(self.refusal))
        key = tuple(metadata[name] for name in (status.RUN, status.TASK, status.SHARD, status.ATTEMPT))
        partner = self._waiting.pop(key, None)
        if partner is not None:
            other, end, joined = partner
            self.sessions += 1
            tunnel = await self._make_tunnel({Side.WORKER: context, Side.PEER: other}) if self.has_tunnels else None
            joined.set_result(context)
            broken = asyncio.create_task(self._end_with(tunnel, end)) if tunnel else None
            try:
                await self._pump(context, other, end)
            finally:
                if tunnel and broken:
                    self.tunnels += bool(tunnel.broken.is_set() or len(tunnel.tokens) == 0)
                    broken.cancel()
                    tunnel.end()
        else:
            end, joined = asyncio.Event(), asyncio.get_running_loop().create_future()
            self._ends.add(end)
            self._waiting[key] = context, end, joined
            try:
                ended = asyncio.ensure_future(end.wait())
                await asyncio.wait({joined, ended}, return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                if joined.done():
                    await self._pump(context, joined.result(), end)
            finally:
                if self._waiting.get(key, (None,))[0] is context:
                    del self._waiting[key]
                self._ends.discard(end)
                end.set()
        if self.refusal is not None:
            await context.abort(*status.to_abort(self.refusal))

    async def _pump(self, source: Any, target: Any, end: asyncio.Event) -> None:
        async def copy() -> None:
            while (frame := await source.read()) is not grpc.aio.EOF:
                if self._is_lost():
                    return
                changed = self.rewrite(frame)
                if changed is not None:
                    await target.write(changed)

        tasks = {asyncio.create_task(copy()), asyncio.create_task(end.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.set()
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_with(self, tunnel: Tunnel, end: asyncio.Event) -> None:
        await tunnel.broken.wait()
        end.set()

    def _is_lost(self) -> bool:
        self.frames += 1
        if self._left is None:
            return False
        self._left -= 1
        if self._left >= 0:
            return False
        self._left = next(self._cuts, None)
        return True
