"""The gateway process: puts its parts together, listens, and stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from fedtasks.clock import Clock, now_ms
from fedtasks.config import Party, Peer
from fedtasks.exposure import plain_traffic
from fedtasks.gateway.admission import Admission
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.base import Base
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.control_stream import MESSAGES, PeerConnection
from fedtasks.gateway.dag_runs import DagRuns
from fedtasks.gateway.descriptors import descriptor_limit, max_connections, raise_descriptor_limit
from fedtasks.gateway.fair_threads import FairThreads
from fedtasks.gateway.interceptors import StatusInterceptor, raw_handler
from fedtasks.gateway.known_store import open_known
from fedtasks.gateway.landings import Landings
from fedtasks.gateway.ledger import Ledger
from fedtasks.gateway.lookups import Lookups
from fedtasks.gateway.memory import stay_small
from fedtasks.gateway.models import Models
from fedtasks.gateway.notifier import Notifier
from fedtasks.gateway.own_halves import OwnHalves
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.party_file import PartyFile
from fedtasks.gateway.peer_halves import PeerHalves
from fedtasks.gateway.peer_service import PeerService
from fedtasks.gateway.preflight import Preflights
from fedtasks.gateway.recollections import Recollections
from fedtasks.gateway.reconciler import Reconciler
from fedtasks.gateway.relay import Relay
from fedtasks.gateway.requests import RequestAnswers
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.tickets import Tickets
from fedtasks.gateway.tunnels import Side
from fedtasks.gateway.worker_listener import bind, bind_tunnels, listen_for_workers
from fedtasks.gateway.worker_service import WorkerService
from fedtasks.identity import trusted_authority
from fedtasks.link.keepalive import ALWAYS
from fedtasks.store import Store
from fedtasks.tickets import load_ticket_key

log = logging.getLogger(__name__)

HANDSHAKE_MS = 5_000
"""How long a caller may take from its first packet to the end of TLS and the first frame of HTTP/2."""

IDLE_MS = 30_000
"""How long a connection may stand on which nobody calls; a peer's conversation is a call."""

STREAMS = 300
"""How many calls one connection may carry at once: more than `intake.MAX_CALLS`, which says so in words."""


class Gateway:
    """One party's gateway.

    Parameters
    ----------
    party
        Its configuration.
    clock
        Its clock; a test may set it wrong.
    file
        Where the configuration was read; what can change while the gateway runs is read there again.
    """

    def __init__(self, party: Party, clock: Clock = now_ms, file: Path | None = None) -> None:
        self._party = party
        self._clock = clock
        self._file = file

    async def serve(self, started: asyncio.Event | None = None) -> None:
        """Serve until cancelled.

        Raises
        ------
        PortInUse
            Naming the field of party.yaml.
        ConfigError, StoreUnavailable
            When keys, secrets or the store cannot be used.
        StoreReplaced
            When the store is not the one that was served before.
        """
        party = self._party
        asyncio.get_running_loop().set_default_executor(FairThreads(len(party.peers)))
        store = await asyncio.to_thread(open_known, party, self._clock)
        try:
            async with AirflowApi(party.airflow) as airflow, contextlib.AsyncExitStack() as stack:
                await self._serve(store, airflow, stack, started)
        finally:
            await asyncio.to_thread(store.close)

    async def _serve(
        self, store: Store, airflow: AirflowApi, stack: contextlib.AsyncExitStack, started: asyncio.Event | None
    ) -> None:
        party = self._party
        parts = self._assemble(store, airflow)
        peers, reconciler = PeerService(parts), Reconciler(parts)
        await reconciler.resume()
        # End last: bytes cross, and peers ask, until the listeners have closed.
        stack.push_async_callback(parts.relay.flush)
        stack.push_async_callback(asyncio.to_thread, parts.base.ledger.flush)
        await stack.enter_async_context(listen_for_workers(party.gateway, WorkerService(parts), parts.relay.tunnels))
        if party.gateway.listen is not None:
            listener = bind_tunnels(party.gateway.peer_tunnels_at, "gateway.tunnels")
            await stack.enter_async_context(parts.relay.tunnels.taking(Side.PEER, listener))
            await stack.enter_async_context(self._listen_for_peers(peers, party.gateway.listen))
        async with asyncio.TaskGroup() as tasks:
            for connection in parts.base.connections.values():
                tasks.create_task(connection.keep_dialling(self._dial_credentials(connection), peers.intake))
            tasks.create_task(reconciler.run())
            tasks.create_task(parts.base.ledger.run())
            log.info("gateway of %s serves its workers at %s", party.name, party.gateway.workers)
            if party.gateway.listen is not None and party.gateway.peer_tunnels_at is None:
                log.info("sessions with peers stay on gRPC: `gateway.tunnels` of party.yaml names no port for tunnels")
            for finding in plain_traffic(party):
                log.warning("%s: %s. %s", finding.subject, finding.text, finding.remedy)
            if started is not None:
                started.set()

    def _connection(self, peer: Peer, changes: Changes) -> PeerConnection:
        return PeerConnection(self._party, peer, self._clock, changes.notify)

    def _assemble(self, store: Store, airflow: AirflowApi) -> Parts:
        party, clock = self._party, self._clock
        key = load_ticket_key(party.gateway.ticket_key)
        changes = Changes(asyncio.get_running_loop())
        base = Base(
            file=PartyFile(party, self._file),
            store=store,
            tickets=Tickets(party, store, key, clock),
            airflow=airflow,
            clock=clock,
            changes=changes,
            connections={peer.name: self._connection(peer, changes) for peer in party.peers},
            ledger=Ledger(store, clock),
        )
        runs = Runs(base, key)
        dag_runs = DagRuns(base, runs)
        recollections = Recollections(base, runs)
        for connection in base.connections.values():
            connection.store_id = recollections.store_id
        return Parts(
            base=base,
            runs=runs,
            own_halves=OwnHalves(base, runs),
            peer_halves=PeerHalves(base, runs),
            relay=Relay(base),
            admission=Admission(base, runs, dag_runs),
            dag_runs=dag_runs,
            lookups=Lookups(base),
            models=Models(base, runs),
            landings=Landings(base),
            preflights=Preflights(base),
            recollections=recollections,
            requests=RequestAnswers(base),
            notifier=Notifier(base),
        )

    @contextlib.asynccontextmanager
    async def _listen_for_peers(self, service: PeerService, address: str) -> AsyncIterator[None]:
        gateway = self._party.gateway
        authorities = b"".join(trusted_authority(peer.authority) for peer in self._party.peers)
        credentials = grpc.ssl_server_credentials(
            [(gateway.private_key.read_bytes(), gateway.certificate.read_bytes())],
            root_certificates=authorities or trusted_authority(gateway.authority),
            require_client_auth=True,
        )
        options = (
            *ALWAYS,
            *MESSAGES,
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.max_allowed_incoming_connections", max_connections(descriptor_limit())),
        )
        server = grpc.aio.server(interceptors=(StatusInterceptor(shows_detail=False),), options=options)
        handler = raw_handler("fedtasks.v1.PeerGateway", Control=service.control, Session=service.session)
        server.add_generic_rpc_handlers((handler,))
        bind(lambda: server.add_secure_port(address, credentials), address, "gateway.listen")
        await server.start()
        log.info("gateway of %s listens for peers at %s", self._party.name, address)
        try:
            yield
        finally:
            await server.stop(grace=0.5)

    def _dial_credentials(self, connection: PeerConnection) -> grpc.ChannelCredentials:
        gateway = self._party.gateway
        return grpc.ssl_channel_credentials(
            root_certificates=trusted_authority(connection.peer.authority),
            private_key=gateway.private_key.read_bytes(),
            certificate_chain=gateway.certificate.read_bytes(),
        )


def serve(party: Party, file: Path | None = None) -> None:
    """Run the gateway until SIGTERM or SIGINT; `file` is where its configuration was read."""
    raise_descriptor_limit()
    stay_small()
    asyncio.run(_serve_until_signal(Gateway(party, file=file)))


async def _serve_until_signal(gateway: Gateway) -> None:
    task = asyncio.ensure_future(gateway.serve())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
