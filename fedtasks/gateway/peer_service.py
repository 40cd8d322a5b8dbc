"""What peers' gateways may ask, over mutual TLS."""

from __future__ import annotations

import asyncio
from typing import Any

from cryptography import x509

from fedtasks.errors import PeerIdentity, PeerUnknown, ProtocolViolated
from fedtasks.gateway.intake import STRANGER, Intake
from fedtasks.gateway.interceptors import Context
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.relay import SessionKey, asks_for_tunnel
from fedtasks.identity import common_name, leaf_belongs_to
from fedtasks.text import plain_text
from fedtasks.wire.v1 import peer_pb2


class PeerService:
    """What peers may ask; who they are is what their certificate says. Both calls are streams of raw bytes.

    Parameters
    ----------
    parts
        What answers them.
    """

    def __init__(self, parts: Parts) -> None:
        base = parts.base
        self._party, self._tickets, self._connections = base.party, base.tickets, base.connections
        self._runs, self._halves = parts.runs, parts.peer_halves
        self._relay = parts.relay
        self._admission = parts.admission
        self._lookups = parts.lookups
        self._models = parts.models
        self._landings = parts.landings
        self._preflights = parts.preflights
        self._requests = parts.requests
        self._probes = parts.probes
        self._clock = base.clock
        self._recollections = parts.recollections
        self.intake = Intake(base.ledger, self._dispatch, base.clock)

    async def control(self, _: Any, context: Context) -> None:
        """Converse with a peer that dialled."""
        peer = await self._identified(context, "peer.connect")
        async with self.intake.call(peer, "peer.connect"):
            async with self.intake.opening(peer, "peer.connect"):
                connection = self._connections[peer]
            await connection.accept(context, self.intake)

    async def session(self, _: Any, context: Context) -> None:
        """Join a peer's worker with ours."""
        peer = await self._identified(context, "session.open")
        async with self.intake.call(peer, "session.open"):
            async with self.intake.opening(peer, "session.open") as facts:
                key = SessionKey.of(context.invocation_metadata())
                facts |= {"run_id": plain_text(key.run_id, 128), "task": plain_text(key.task, 128)}
                run = await asyncio.to_thread(self._runs.run_with, peer, key.run_id)
                await asyncio.to_thread(self._tickets.in_force, run.ticket_id)
            takes_tunnel = asks_for_tunnel(context.invocation_metadata())
            await self._relay.serve_peer(key, peer, context, takes_tunnel=takes_tunnel)

    async def probe(self, _: Any, context: Context) -> None:
        """Take up a stream over which the way between both gateways is measured."""
        peer = await self._identified(context, "probe.open")
        async with self.intake.call(peer, "probe.open"), self.intake.opening(peer, "probe.open"):
            await self._probes.serve(peer, context, context.invocation_metadata())

    async def _dispatch(self, peer: str, envelope: peer_pb2.Envelope) -> peer_pb2.Envelope:
        """Answer one request of `peer` that is within its bounds, on whichever stream it came."""
        match envelope.WhichOneof("body"):
            case "start_run":
                await self._connections[peer].wait_compared()
                return peer_pb2.Envelope(run_started=await self._admission.start(peer, envelope.start_run))
            case "clock":
                return peer_pb2.Envelope(clock=peer_pb2.Clock(clock_ms=self._clock()))
            case "probe":
                self._probes.answer(peer)
            case "preflight":
                return peer_pb2.Envelope(preflight_report=await self._preflights.answer(peer, envelope.preflight))
            case "lookup":
                return await self._lookups.answer(peer, envelope.lookup)
            case "champion_change":
                return await self._models.answer(peer, envelope.champion_change)
            case "remembered":
                return peer_pb2.Envelope(recalled=await self._recollections.answer(peer, envelope.remembered))
            case "run_update":
                await asyncio.to_thread(self._halves.learn, peer, envelope.run_update)
            case "ticket_update":
                await asyncio.to_thread(self._tickets.learn, peer, envelope.ticket_update)
            case "ticket_request":
                await self._preflights.learn_request(peer, envelope.ticket_request)
            case "ticket_request_declined":
                await asyncio.to_thread(self._requests.learn, peer, envelope.ticket_request_declined)
            case "landed":
                await asyncio.to_thread(self._landings.learn, peer, envelope.landed)
            case kind:
                raise ProtocolViolated(f"{peer} sent `{kind}` as a request")
        return peer_pb2.Envelope(done=peer_pb2.Done())

    async def _identified(self, context: Context, action: str) -> str:
        """Return the peer whose certificate the TLS layer has seen; a stranger is refused and accounted for."""
        try:
            return self._identify(context)
        except PeerIdentity as error:
            reason = error
        except Exception as error:  # whatever its own authority has put into a certificate
            reason = PeerIdentity(f"the certificate cannot be judged: {type(error).__name__}")
        address = plain_text(str(context.peer()), 64)
        async with self.intake.call(STRANGER, action):
            told = await self.intake.refuse(STRANGER, action, reason, address=address)
        raise told

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
