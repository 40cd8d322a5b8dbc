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
from fedtasks.gateway.observed.endpoint import Condition, observed
from fedtasks.gateway.observed.pulse import Pulse, Watched
from fedtasks.gateway.own_halves import OwnHalves
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.party_file import PartyFile
from fedtasks.gateway.peer_halves import PeerHalves
from fedtasks.gateway.peer_service import PeerService
from fedtasks.gateway.preflight import Preflights
from fedtasks.gateway.probes import Probes
from fedtasks.gateway.recollections import Recollections
from fedtasks.gateway.reconciler import Reconciler
from fedtasks.gateway.relay import Relay
from fedtasks.gateway.requests import RequestAnswers
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.seating import Seating
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
        self._threads, self._pulse = FairThreads(len(party.peers)), Pulse()
        self._is_listening = False

    async def serve(self, started: asyncio.Event | None = None) -> None:
        """Serve until cancelled; where another gateway of the party serves the store, stand by for it.

        Raises
        ------
        PortInUse
            Naming the field of party.yaml.
        ConfigError, StoreUnavailable
            When keys, secrets or the store cannot be used.
        StoreReplaced
            When the store is not the one that was served before.
        StoreInUse
            When another gateway serves a store that one alone can serve.
        """
        asyncio.get_running_loop().set_default_executor(self._threads)
        seating = Seating(self._party)
        try:
            async with self._seen(seating):
                while True:
                    await seating.wait()
                    await self._serve_while_active(seating, started)
        finally:
            await seating.close()

    @contextlib.asynccontextmanager
    async def _seen(self, seating: Seating) -> AsyncIterator[None]:
        """Let probes and Prometheus look at this gateway, if party.yaml says where, also while it stands by."""
        party = self._party

        def leads_nowhere() -> str:
            return "" if seating.is_reachable else f"the active gateway of {party.name} is not known"

        def is_deaf() -> str:
            return "" if self._is_listening or not seating.is_active else "the listeners are not up"

        conditions: tuple[Condition, ...] = (leads_nowhere, is_deaf)
        async with contextlib.AsyncExitStack() as stack:
            if party.gateway.observed is not None:
                at = party.gateway.observed
                await stack.enter_async_context(observed(at, party.name, self._pulse, conditions))
            yield

    async def _serve_while_active(self, seating: Seating, started: asyncio.Event | None) -> None:
        """Serve until another gateway is the active one."""
        serving = asyncio.create_task(self._serve_a_term(seating, started))
        holding = asyncio.create_task(seating.hold())
        both = {serving, holding}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        if not seating.was_replaced:
            await (serving if holding.cancelled() else holding)  # which raises what has ended it
        log.warning("is no longer the active gateway of %s, and stands by", self._party.name)

    async def _serve_a_term(self, seating: Seating, started: asyncio.Event | None) -> None:
        party = self._party
        store = await asyncio.to_thread(open_known, party, self._clock)
        try:
            term = await seating.begin(store)
            async with AirflowApi(party.airflow) as airflow, contextlib.AsyncExitStack() as stack:
                parts = self._assemble(store, airflow, term)
                await self._serve(parts, stack, started)
        finally:
            self._is_listening = False
            await asyncio.to_thread(store.close)

    async def _serve(self, parts: Parts, stack: contextlib.AsyncExitStack, started: asyncio.Event | None) -> None:
        party = self._party
        peers, reconciler = PeerService(parts), Reconciler(parts)
        watched = Watched(parts, peers.intake, reconciler, self._threads)
        await stack.enter_async_context(self._pulse.watching(watched))
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
            self._is_listening = True
            for finding in plain_traffic(party):
                log.warning("%s: %s. %s", finding.subject, finding.text, finding.remedy)
            if started is not None:
                started.set()

    def _connection(self, peer: Peer, changes: Changes) -> PeerConnection:
        return PeerConnection(self._party, peer, self._clock, changes.notify)

    def _assemble(self, store: Store, airflow: AirflowApi, term: int) -> Parts:
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
            connection.term = term
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
            probes=Probes(base),
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
        methods = {"Control": service.control, "Session": service.session, "Probe": service.probe}
        server.add_generic_rpc_handlers((raw_handler("fedtasks.v1.PeerGateway", **methods),))
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
