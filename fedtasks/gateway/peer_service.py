"""What peers' gateways may ask, over mutual TLS."""

# The protocol names the methods of a service.
# ruff: noqa: N802

from __future__ import annotations

import asyncio
from typing import Any

from cryptography import x509

from fedtasks.errors import PeerIdentity, PeerUnknown, ProtocolViolated
from fedtasks.gateway.interceptors import Context
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.relay import SessionKey
from fedtasks.identity import common_name, leaf_belongs_to
from fedtasks.wire.v1 import peer_pb2, peer_pb2_grpc


class PeerService(peer_pb2_grpc.PeerGatewayServicer):
    """What peers may ask; who they are is what their certificate says.

    Parameters
    ----------
    parts
        What answers them.
    """

    def __init__(self, parts: Parts) -> None:
        base = parts.base
        self._party, self._tickets, self._connections = base.party, base.tickets, base.connections
        self._runs = parts.runs
        self._relay = parts.relay
        self._admission = parts.admission
        self._lookups = parts.lookups
        self._models = parts.models
        self._landings = parts.landings
        self._preflights = parts.preflights

    async def Control(self, _: Any, context: Context) -> None:
        """Converse with a peer that dialled."""
        await self._connections[self._identify(context)].accept(context, self.answer)

    async def session(self, _: Any, context: Context) -> None:
        """Join a peer's worker with ours."""
        peer = self._identify(context)
        key = SessionKey.of(context.invocation_metadata())
        run = await asyncio.to_thread(self._runs.run, key.run_id)
        if run.peer != peer:
            raise PeerIdentity(f"run {key.run_id} is not one with {peer}")
        await asyncio.to_thread(self._tickets.in_force, run.ticket_id)
        await self._relay.serve_peer(key, peer, context)

    async def answer(self, peer: str, envelope: peer_pb2.Envelope) -> peer_pb2.Envelope:
        """Answer one request of `peer`, on whichever stream it came."""
        match envelope.WhichOneof("body"):
            case "start_run":
                return peer_pb2.Envelope(run_started=await self._admission.start(peer, envelope.start_run))
            case "preflight":
                return peer_pb2.Envelope(preflight_report=await self._preflights.answer(peer, envelope.preflight))
            case "lookup":
                return await self._lookups.answer(peer, envelope.lookup)
            case "champion_change":
                return await self._models.answer(peer, envelope.champion_change)
            case "run_update":
                await asyncio.to_thread(self._runs.learn, peer, envelope.run_update)
            case "ticket_update":
                await asyncio.to_thread(self._tickets.learn, peer, envelope.ticket_update)
            case "ticket_request":
                await self._preflights.learn_request(peer, envelope.ticket_request)
            case "landed":
                await asyncio.to_thread(self._landings.learn, peer, envelope.landed)
            case kind:
                raise ProtocolViolated(f"{peer} sent `{kind}` as a request")
        return peer_pb2.Envelope(done=peer_pb2.Done())

    def _identify(self, context: Context) -> str:
        """Return the peer whose certificate the TLS layer has seen."""
        certificates = context.auth_context().get("x509_pem_cert", [])
        if not certificates:
            raise PeerIdentity("the caller showed no certificate")
        try:
            peer = self._party.peer(common_name(x509.load_pem_x509_certificate(certificates[0])))
        except PeerUnknown as error:
            raise PeerIdentity("the certificate names no known peer") from error
        leaf_belongs_to(certificates[0], peer)
        return peer.name
