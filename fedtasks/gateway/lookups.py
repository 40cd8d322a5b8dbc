"""Live lookups: asks peers about tags of live ids, and hands what peers ask to the worker that serves it.

The gateway decides under which ticket a batch is answered and counts it; the worker alone holds tags and knows whose
they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc

from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    LookupsNotServed,
    ProtocolViolated,
    TicketMissing,
    TicketScope,
    from_code,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.conversation import Read, Write
from fedtasks.online.declaration import ANSWERS, COLUMNS, LOOKUPS, PIPELINE, POLICY, check_offer
from fedtasks.text import plain_text
from fedtasks.tickets import Asked, check_lookup
from fedtasks.wire.v1 import lookup_pb2, peer_pb2, worker_pb2

log = logging.getLogger(__name__)

TAG_BYTES = 16
MAX_TAGS = 1000
"""The most tags that one batch may hold."""

ANSWER_S = 10.0
"""How long a worker may take to answer a batch."""

_MAX_STREAMS = 128
"""So many asking processes of one peer are remembered, each with its newest batch."""


@dataclass(eq=False)
class _Server:
    """A worker that is attached, and what it is being asked."""

    offer: worker_pb2.Offer
    write: Write
    pending: dict[int, asyncio.Future[lookup_pb2.Answers]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, tags: bytes) -> lookup_pb2.Answers:
        number = next(self.numbers)
        future: asyncio.Future[lookup_pb2.Answers] = asyncio.get_running_loop().create_future()
        self.pending[number] = future
        try:
            async with self.writing:
                await self.write(worker_pb2.ServeLookupsResponse(id=number, tags=tags))
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError:
            raise LookupsNotServed(f"its worker did not answer within {ANSWER_S:g} s") from None
        finally:
            self.pending.pop(number, None)

    def take(self, answered: worker_pb2.Answered) -> None:
        future = self.pending.get(answered.id)
        if future is None or future.done():
            return
        if answered.HasField("failure"):
            future.set_exception(from_code(answered.failure.code, answered.failure.text))
        else:
            future.set_result(answered.answers)

    def hang_up(self) -> None:
        for future in self.pending.values():
            if not future.done():
                future.set_exception(LookupsNotServed("its worker has gone"))


@dataclass(eq=False)
class _Batch:
    """One batch of one stream, so that asking again costs nothing."""

    sequence: int
    digest: bytes
    is_charged: bool = False
    answers: lookup_pb2.Answers | None = None


@dataclass(eq=False)
class _Stream:
    """One asking process and its newest batch."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    batch: _Batch | None = None


class Lookups:
    """The gateway's part of live lookups, on either side.

    Parameters
    ----------
    base
        This party and its connections; its store keeps uses and decisions.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._connections, self._clock = base.connections, base.clock
        self._servers: list[_Server] = []
        self._ledger = base.ledger
        # Apart for each peer, so that none pushes another's newest batch out of memory.
        self._streams: dict[str, OrderedDict[str, _Stream]] = {}

    # ------------------------------------------------------------------------------------------- as the asking side
    async def ask(self, peer: str, lookup: lookup_pb2.Lookup) -> worker_pb2.LookUpResponse:
        """Have `peer` match a batch of tags; names the ticket and the dataset that were taken where none was given.

        Raises
        ------
        TicketError
            No held ticket covers it, or the peer refuses it.
        LookupsNotServed, PeerUnreachable
            The peer does not answer now.

        Notes
        -----
        Reveals: which of the peer's people are live here now, and how many others are, to the peer.
        """
        connection = self._base.connection(peer)
        if not lookup.ticket_id or not lookup.dataset:
            await asyncio.to_thread(self._choose, peer, lookup)
        if lookup.sequence == 1:
            facts = {"peer": peer, "ticket": lookup.ticket_id, "dataset": lookup.dataset, "stream": lookup.stream}
            await self._audit(self._party.name, "lookup.ask", "noted", **facts)
        answer = await connection.request(ANSWER_S + 5, lookup=lookup)
        if answer.WhichOneof("body") != "answers":
            raise ProtocolViolated(f"{peer} did not answer a lookup with answers")
        return worker_pb2.LookUpResponse(answers=answer.answers, ticket_id=lookup.ticket_id, dataset=lookup.dataset)

    def _choose(self, peer: str, lookup: lookup_pb2.Lookup) -> None:
        """Fill in ticket and dataset where the held tickets leave no choice."""
        held = self._tickets.held(peer, PIPELINE, lookup.ticket_id)
        if not held:
            raise TicketMissing(clause="ticket", holder=self._party.name, pipeline=PIPELINE)
        names = sorted({scope.name for grant in held.values() for scope in grant.datasets})
        if not lookup.dataset:
            if len(names) > 1:
                raise ConfigError(f"name {peer}'s dataset, one of: {', '.join(names)}", field="peer_dataset")
            lookup.dataset = names[0]
        for ticket_id, grant in held.items():
            if lookup.dataset in {scope.name for scope in grant.datasets}:
                lookup.ticket_id = ticket_id
                return
        raise TicketScope(clause="datasets", asked=lookup.dataset, allowed=" ".join(names))

    # ----------------------------------------------------------------------------------------- as the answering side
    async def answer(self, peer: str, lookup: lookup_pb2.Lookup) -> peer_pb2.Envelope:
        """Have a worker of this side answer what `peer` looks up, if a ticket allows it.

        Raises
        ------
        TicketError
            With the clause; nothing was matched.
        LookupsNotServed
            No worker serves this dataset to this peer.
        ConfigDiffers
            The tags were made under another key.

        Notes
        -----
        Reveals: what the ticket and the worker's policy allow, to the peer.
        """
        if not 0 < len(lookup.tags) <= MAX_TAGS * TAG_BYTES or len(lookup.tags) % TAG_BYTES:
            raise ProtocolViolated(f"a lookup holds 1 to {MAX_TAGS} tags of {TAG_BYTES} bytes")
        stream = self._stream(peer, lookup.stream)
        async with stream.lock:
            batch = _Batch(lookup.sequence, hashlib.sha256(lookup.SerializeToString(deterministic=True)).digest())
            before = stream.batch
            if before is not None and batch.sequence == before.sequence and batch.digest == before.digest:
                batch = before
            elif before is not None and batch.sequence <= before.sequence:
                raise ProtocolViolated("a batch of lookups is numbered like another one")
            stream.batch = batch
            if batch.answers is None:
                batch.answers = await self._answer(peer, lookup, batch, begins=before is None)
            return peer_pb2.Envelope(answers=batch.answers)

    async def _answer(self, peer: str, lookup: lookup_pb2.Lookup, batch: _Batch, *, begins: bool) -> lookup_pb2.Answers:
        server = await asyncio.to_thread(self._admit, peer, lookup, batch)
        if begins:
            facts = {"ticket": lookup.ticket_id, "dataset": lookup.dataset, "stream": lookup.stream}
            facts["policy"] = server.offer.policy
            await asyncio.to_thread(lambda: self._ledger.add(peer, "lookup.answer", "allowed", **facts))
        return await server.ask(lookup.tags)

    def _admit(self, peer: str, lookup: lookup_pb2.Lookup, batch: _Batch) -> _Server:
        """Check the ticket, find the worker, and charge the batch once."""
        grant = self._tickets.granted(peer, lookup.ticket_id, PIPELINE)
        offers = [one for one in self._servers if (one.offer.peer, one.offer.dataset) == (peer, lookup.dataset)]
        # Without a worker it would answer nothing; whether the ticket covers the dataset is said first all the same.
        offer = offers[-1].offer if offers else worker_pb2.Offer(policy=ANSWERS[0])
        declared = {dataset.name: dataset.schema_digest for dataset in self._base.party.datasets}
        check_lookup(
            grant,
            pipeline=PIPELINE,
            dataset=plain_text(lookup.dataset, 64),
            schema_digest=declared.get(lookup.dataset, ""),
            answers=(
                Asked(PIPELINE, "answer", POLICY.name, offer.policy),
                Asked(PIPELINE, "columns", COLUMNS.name, tuple(offer.columns)),
            ),
            now_s=self._clock() / 1000,
        )
        if not offers:
            raise LookupsNotServed(f"`{lookup.dataset}` is not served to {peer}", dataset=lookup.dataset)
        if offer.key_id != lookup.key_id:
            raise ConfigDiffers(field="key_id", ours=offer.key_id[:16], theirs=plain_text(lookup.key_id, 16))
        if not batch.is_charged:
            # One account an hour, since a limit per day needs to know when.
            account = f"{PIPELINE}.{datetime.fromtimestamp(self._clock() / 1000, UTC):%Y-%m-%dT%H}"
            n_tags = len(lookup.tags) // TAG_BYTES
            self._store.uses.add(grant.ticket_id, account, LOOKUPS, n_tags, *grant.budget(LOOKUPS))
            batch.is_charged = True
        return offers[-1]

    def _stream(self, peer: str, name: str) -> _Stream:
        streams = self._streams.setdefault(peer, OrderedDict())
        found = streams.setdefault(name, _Stream())
        streams.move_to_end(name)
        if len(streams) > _MAX_STREAMS:
            streams.popitem(last=False)
        return found

    async def serve(self, read: Read, write: Write) -> None:
        """Let a worker answer until it hangs up; of several for the same, the newest is asked.

        Raises
        ------
        ConfigError, PeerUnknown
            What it offers is not of this party, or to no peer.
        ProtocolViolated
            It does not begin with an offer.
        """
        first = await read()
        if first is grpc.aio.EOF or first.WhichOneof("body") != "offer":
            raise ProtocolViolated("a worker that serves lookups begins with its offer")
        offer = first.offer
        self._base.connection(offer.peer)
        self._base.party.dataset(offer.dataset)
        check_offer(offer.policy, tuple(offer.columns))
        server = _Server(offer, write)
        self._servers.append(server)
        log.info("lookups of %s in %s are served", offer.peer, offer.dataset)
        try:
            await write(worker_pb2.ServeLookupsResponse())  # the worker knows now that it is known
            while (message := await read()) is not grpc.aio.EOF:
                server.take(message.answered)
        finally:
            self._servers.remove(server)
            server.hang_up()
            log.info("lookups of %s in %s are not served any more", offer.peer, offer.dataset)

    async def _audit(self, actor: str, action: str, decision: str, **detail: Any) -> None:
        await asyncio.to_thread(lambda: self._store.audit.add(actor, action, decision, **detail))
