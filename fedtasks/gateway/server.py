"""The gateway process: puts its parts together, listens, and stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable

import grpc

from fedtasks.clock import now_ms
from fedtasks.config import Party, read_secret
from fedtasks.errors import FedtasksError, PortInUse
from fedtasks.gateway.admission import Admission
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.control_stream import KEEPALIVE, PeerConnection
from fedtasks.gateway.landings import Landings
from fedtasks.gateway.lookups import Lookups
from fedtasks.gateway.models import Models
from fedtasks.gateway.notifier import Notifier
from fedtasks.gateway.preflight import Preflights
from fedtasks.gateway.reconciler import Reconciler
from fedtasks.gateway.relay import Relay, SessionKey
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.services import PeerService, SecretInterceptor, WorkerService, session_handler
from fedtasks.gateway.tickets import Tickets
from fedtasks.store import Store
from fedtasks.tickets import load_ticket_key
from fedtasks.wire.v1 import peer_pb2_grpc, worker_pb2_grpc

log = logging.getLogger(__name__)


class Gateway:
    """One party's gateway.

    Parameters
    ----------
    party
        Its configuration.
    clock
        Milliseconds since the epoch; a test may set it wrong.
    """

    def __init__(self, party: Party, clock: Callable[[], int] = now_ms) -> None:
        self._party = party
        self._clock = clock

    async def serve(self, started: asyncio.Event | None = None) -> None:
        """Serve until cancelled.

        Raises
        ------
        PortInUse
            Naming the field of party.yaml.
        ConfigError, StoreUnavailable
            When keys, secrets or the store cannot be used.
        """
        party = self._party
        store = await asyncio.to_thread(lambda: Store.open(party.store.url, party.store.password_file))
        try:
            async with AirflowApi(party.airflow) as airflow, contextlib.AsyncExitStack() as stack:
                await self._serve(store, airflow, stack, started)
        finally:
            await asyncio.to_thread(store.close)

    async def _serve(
        self, store: Store, airflow: AirflowApi, stack: contextlib.AsyncExitStack, started: asyncio.Event | None
    ) -> None:
        party = self._party
        key = load_ticket_key(party.gateway.ticket_key)
        ticket_book = Tickets(party, store, key, self._clock)
        changes = Changes(asyncio.get_running_loop())
        peer_keys = {peer.name: peer.ticket_key for peer in party.peers}
        runs = Runs(store, party.name, key, peer_keys, self._clock, changes.notify, ticket_book.in_force)
        connections: dict[str, PeerConnection] = {}

        async def count(session: SessionKey, sent: int, received: int) -> None:
            await asyncio.to_thread(store.add_bytes, *session, sent, received)

        relay = Relay(connections, count)
        desk = Admission(party, store, runs, airflow, connections, ticket_book, self._clock)
        lookups = Lookups(party, store, ticket_book, connections, self._clock)
        models = Models(party, store, runs, ticket_book, connections, self._clock)
        landings = Landings(party, store, ticket_book, airflow, connections, self._clock)
        peer_book = Preflights(party, store, ticket_book, airflow, connections, self._clock)
        peers = PeerService(party, runs, desk, ticket_book, lookups, models, landings, peer_book, relay, connections)
        for peer in party.peers:
            connections[peer.name] = PeerConnection(party, peer, peers.answer, self._clock, lambda _: changes.notify())

        async def note(dag_id: str, dag_run_id: str, text: str) -> None:
            try:
                await airflow.set_note(dag_id, dag_run_id, text)
            except FedtasksError as error:
                log.warning("the note could not be shown: %s", error)

        workers = WorkerService(
            party,
            store,
            runs,
            desk,
            ticket_book,
            lookups,
            models,
            landings,
            peer_book,
            relay,
            connections,
            changes,
            note,
            airflow.page,
            self._clock,
        )
        # Ends last: bytes cross until the listeners have closed.
        stack.push_async_callback(relay.flush)
        await stack.enter_async_context(self._listen_for_workers(workers))
        if party.gateway.listen is not None:
            await stack.enter_async_context(self._listen_for_peers(peers, party.gateway.listen))
        notifier = Notifier(party, store, airflow, self._clock)
        caretaker = Reconciler(
            party.name, store, runs, landings, peer_book, notifier, relay, airflow, connections, changes, self._clock
        )
        async with asyncio.TaskGroup() as tasks:
            for connection in connections.values():
                tasks.create_task(connection.keep_dialling(self._dial_credentials(connection)))
            tasks.create_task(caretaker.run())
            log.info("gateway of %s serves its workers at %s", party.name, party.gateway.workers)
            if started is not None:
                started.set()

    @contextlib.asynccontextmanager
    async def _listen_for_workers(self, service: WorkerService):  # type: ignore[no-untyped-def]
        gateway = self._party.gateway
        interceptor = SecretInterceptor(read_secret(gateway.worker_secret_file))
        server = grpc.aio.server(interceptors=[interceptor], options=(*KEEPALIVE, ("grpc.so_reuseport", 0)))
        worker_pb2_grpc.add_WorkerGatewayServicer_to_server(service, server)
        server.add_generic_rpc_handlers((session_handler(service.session, "fedtasks.v1.WorkerGateway"),))
        _bind(lambda: server.add_insecure_port(gateway.workers), gateway.workers, "gateway.workers")
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=0.5)

    @contextlib.asynccontextmanager
    async def _listen_for_peers(self, service: PeerService, address: str):  # type: ignore[no-untyped-def]
        gateway = self._party.gateway
        authorities = b"\n".join(peer.authority.read_bytes() for peer in self._party.peers)
        credentials = grpc.ssl_server_credentials(
            [(gateway.private_key.read_bytes(), gateway.certificate.read_bytes())],
            root_certificates=authorities or gateway.authority.read_bytes(),
            require_client_auth=True,
        )
        server = grpc.aio.server(options=(*KEEPALIVE, ("grpc.so_reuseport", 0)))
        peer_pb2_grpc.add_PeerGatewayServicer_to_server(service, server)
        server.add_generic_rpc_handlers((session_handler(service.session, "fedtasks.v1.PeerGateway"),))
        _bind(lambda: server.add_secure_port(address, credentials), address, "gateway.listen")
        await server.start()
        log.info("gateway of %s listens for peers at %s", self._party.name, address)
        try:
            yield
        finally:
            await server.stop(grace=0.5)

    def _dial_credentials(self, connection: PeerConnection) -> grpc.ChannelCredentials:
        gateway = self._party.gateway
        return grpc.ssl_channel_credentials(
            root_certificates=connection.peer.authority.read_bytes(),
            private_key=gateway.private_key.read_bytes(),
            certificate_chain=gateway.certificate.read_bytes(),
        )


def _bind(bind: Callable[[], int], address: str, field: str) -> None:
    try:
        port = bind()
    except RuntimeError as error:
        raise PortInUse(f"`{address}` cannot be bound", where=f"party.yaml: {field}") from error
    if port == 0:
        raise PortInUse(f"`{address}` cannot be bound", where=f"party.yaml: {field}")


def serve(party: Party) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    asyncio.run(_serve_until_signal(Gateway(party)))


async def _serve_until_signal(gateway: Gateway) -> None:
    task = asyncio.ensure_future(gateway.serve())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
