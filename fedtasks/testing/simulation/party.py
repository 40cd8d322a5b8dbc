"""A simulated party: a gateway made of the real parts, which may be killed at any moment and started again."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar, cast
from unittest import mock

from fedtasks.config import Party, Peer
from fedtasks.errors import FedtasksError, GatewayFailed, GatewayUnreachable, StoreUnavailable, from_code
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.conversation import Conversation, Door
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.peer_service import PeerService
from fedtasks.gateway.reconciler import Reconciler
from fedtasks.gateway.server import Gateway
from fedtasks.gateway.worker_service import WorkerService
from fedtasks.link.client import PATIENCE_S
from fedtasks.link.status import Metadata
from fedtasks.testing.simulation.airflow import Airflow, AirflowClient
from fedtasks.testing.simulation.history import History
from fedtasks.testing.simulation.loop import SimulatedLock, SimulatedLoop
from fedtasks.testing.simulation.network import Call, Network, call_within
from fedtasks.testing.simulation.person import Person
from fedtasks.testing.simulation.stores import Disk
from fedtasks.wire.v1 import peer_pb2, worker_pb2

T = TypeVar("T")

PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""The gateway's process that a task belongs to."""

CALL_S = (0.0005, 0.005)
"""How long a worker's call is on its way to its gateway."""


def register(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """Make a task that ends with the process that it belongs to: the loop's task factory."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    process = PROCESS.get() if context is None else context.get(PROCESS)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda task: process.tasks.pop(task, None))
    return task


class _Connection(PeerConnection):
    """A conversation over the simulated network."""

    def __init__(self, network: Network, *given: Any) -> None:
        super().__init__(*given)
        self._network = network
        self._dialled_connection: Any = None

    async def _dial(self, address: str, credentials: Any, door: Door) -> None:
        connection = await self._network.dial(self._party.name, self.peer.name)
        try:
            call = self._network.open(connection)
            self._dialled_connection = connection
            await self._converse(
                Conversation(call.read, call.write, peer_pb2.ControlRequest, door, True, lambda: self._hang_up())
            )
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._dialled_connection is not None:
            self._network.hang_up(self._dialled_connection)
            self._dialled_connection = None

    def open_session(self, metadata: Metadata) -> Call:
        if self._dialled_connection is None:
            raise self._absence()
        return self._network.open(self._dialled_connection, metadata)


class _Gateway(Gateway):
    """Real parts, put together as in production, on a simulated network."""

    def __init__(self, party: Party, clock: Callable[[], int], network: Network) -> None:
        super().__init__(party, clock)
        self._network = network

    def _connection(self, peer: Peer, changes: Changes) -> PeerConnection:
        return _Connection(self._network, self._party, peer, self._clock, changes.notify)

    def assemble(self, store: Any, airflow: AirflowClient) -> Parts:
        """Put the parts together with locks that simulated threads can wait for."""
        with mock.patch.object(threading, "Lock", SimulatedLock), mock.patch.object(threading, "RLock", SimulatedLock):
            return self._assemble(store, cast("AirflowApi", airflow), term=0)


class Process:
    """One process of a party's gateway."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in their order, which a set has not
        self.is_alive = True
        self.loop = side.loop
        store = side.disk.open(side.clock, lambda: self.is_alive)
        gateway = _Gateway(side.party, side.clock, side.network)
        self.parts = gateway.assemble(store, AirflowClient(side.airflow, lambda: self.is_alive))
        self.workers = WorkerService(self.parts)
        self.peers = PeerService(self.parts)

    def start(self) -> None:
        """Begin to serve."""
        side = self.side
        for connection in self.parts.base.connections.values():
            self.spawn(connection.keep_dialling(cast("Any", None), self.peers.intake))
        self.spawn(self._reconcile())
        self.spawn(self.parts.base.ledger.run())
        side.network.listen(side.name, self._accept_control, self._accept_session)

    async def _reconcile(self) -> None:
        reconciler = Reconciler(self.parts)
        await reconciler.resume()
        await reconciler.run()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something as part of this process."""
        before = PROCESS.set(self)
        try:
            return self.loop.create_task(coroutine)
        finally:
            PROCESS.reset(before)

    def kill(self) -> None:
        """End at once: from now on nothing that this process still does has any effect."""
        self.is_alive = False
        self.side.network.leave(self.side.name)
        for task in list(self.tasks):
            task.cancel()

    def serve_session(self, worker: Call, servicer: Call) -> None:
        """Take up the session of a worker of this party."""
        task = self._accept(servicer, lambda: self.workers.session(None, cast("Any", servicer)))
        task.add_done_callback(lambda task: worker.cut() if task.cancelled() else None)
        worker.on_cut(task.cancel)

    def _accept_control(self, call: Call) -> None:
        self._accept(call, lambda: self.peers.control(None, call))

    def _accept_session(self, call: Call) -> None:
        self._accept(call, lambda: self.peers.session(None, call))

    def _accept(self, call: Call, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        async def answer() -> None:
            try:
                await work()
            except FedtasksError as error:
                call.end(error)
            except Exception as error:  # as gRPC answers what a servicer has not foreseen
                call.end(GatewayFailed(type(error).__name__))
            else:
                call.end()

        task = self.spawn(answer())
        call.on_cut(task.cancel)
        return task


class Side:
    """A party of a simulation.

    Parameters
    ----------
    party
        Its configuration.
    loop, network, history
        The world that it lives in.
    airflow
        Its Airflow.
    disk
        Where its store is.
    clock
        Its clock: what it says may be wrong.
    chances
        Decides what is left to chance.
    """

    def __init__(
        self,
        party: Party,
        loop: SimulatedLoop,
        network: Network,
        history: History,
        airflow: Airflow,
        disk: Disk,
        clock: Callable[[], int],
        chances: random.Random,
    ) -> None:
        self.party, self.name = party, party.name
        self.loop, self.network, self.history = loop, network, history
        self.airflow, self.disk, self.clock = airflow, disk, clock
        self.person = Person()
        self.process: Process | None = None
        self._chances = chances

    def say(self, what: str) -> None:
        """Write down what happened to this party."""
        self.history.add(self.loop.time(), self.name, what)

    def start(self) -> None:
        """Start the gateway, unless it runs."""
        if self.process is None:
            self.process = Process(self)
            self.process.start()
            self.say("gateway started")

    def kill(self) -> None:
        """Kill the gateway, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            self.say("gateway killed")
            process.kill()

    # ------------------------------------------------------------------------------------------- as its workers call
    async def ask(self, method: str, request: Any) -> Any:
        """Call the gateway as a worker does, with its patience for a gateway and for a store that are away.

        Raises
        ------
        FedtasksError
            As a worker reads it.
        """
        began_s, delay_s = self.loop.time(), 0.1
        while True:
            try:
                return await self._ask(lambda process: getattr(process.workers, method)(request, None))
            except (GatewayUnreachable, StoreUnavailable) as error:
                patience_s = PATIENCE_S if isinstance(error, GatewayUnreachable) else self.party.store.patience_s
                if self.loop.time() + delay_s > began_s + patience_s:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(2.0, 2 * delay_s)

    async def _ask(self, work: Callable[[Process], Coroutine[Any, Any, T]]) -> T:
        await asyncio.sleep(self._chances.uniform(*CALL_S))
        process = self._running()
        task = process.spawn(work(process))
        try:
            return await task
        except asyncio.CancelledError:
            if process.is_alive or not task.done():
                raise
            raise GatewayUnreachable("the gateway has gone away") from None
        except FedtasksError as error:
            raise from_code(error.code, error.detail or error.public, where=error.where) from error
        except Exception as error:  # as the gateway's interceptor answers what nobody has foreseen
            raise GatewayFailed(type(error).__name__) from error

    async def watch(self, run_id: str, task: str) -> AsyncIterator[Any]:
        """Yield the meeting of a task now and at every change; outlives the gateway's restarts."""
        while True:
            queue: asyncio.Queue[Any] = asyncio.Queue()

            async def pump(process: Process, queue: asyncio.Queue[Any] = queue) -> None:
                request = worker_pb2.WatchTaskRequest(run_id=run_id, task=task)
                try:
                    async for response in process.workers.WatchTask(request, cast("Any", None)):
                        queue.put_nowait(response.meeting)
                except FedtasksError as error:
                    queue.put_nowait(error)
                finally:
                    queue.put_nowait(None)

            try:
                process = self._running()
            except GatewayUnreachable:
                await asyncio.sleep(1.0)
                continue
            pumping = process.spawn(pump(process))
            try:
                while (found := await queue.get()) is not None:
                    if isinstance(found, FedtasksError) and not found.retryable:
                        raise found
                    if not isinstance(found, FedtasksError):
                        yield found
            finally:
                pumping.cancel()
            await asyncio.sleep(0.5)

    def open_session(self, metadata: Metadata) -> Call:
        """Attach a worker to the gateway for a session.

        Raises
        ------
        GatewayUnreachable
            It is not there.
        """
        process = self._running()
        worker, servicer = call_within(self.loop, self.name, lambda: self._chances.uniform(*CALL_S), metadata)
        process.serve_session(worker, servicer)
        return worker

    def _running(self) -> Process:
        if self.process is None:
            raise GatewayUnreachable("nobody answers")
        return self.process
