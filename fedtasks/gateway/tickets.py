"""The tickets of this party, as its gateway may rely on them: found, verified, in force."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedtasks import tickets
from fedtasks.clock import Clock
from fedtasks.config import Party
from fedtasks.errors import TicketError, TicketInvalid, TicketMissing, TicketNotAccepted, TicketRevoked
from fedtasks.store import Store, TicketRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import peer_pb2

log = logging.getLogger(__name__)

_MAX_GRANTS = 1024


class Tickets:
    """Looks tickets up in the store and believes nothing but their signatures."""

    def __init__(self, party: Party, store: Store, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._party = party
        self._store = store
        self._key = key
        self._clock = clock
        # What a signed text says does not change: its signature is verified once.
        self._grants: dict[tuple[str, bytes], tickets.Grant] = {}

    def granted(self, peer: str, ticket_id: str, pipeline: str) -> tickets.Grant:
        """Return what a ticket that `peer` presents grants it now; its scope is left to `tickets.check`.

        Raises
        ------
        TicketMissing
            This party has granted `peer` no such ticket.
        TicketRevoked, TicketNotAccepted, TicketExpired, …
            With the clause.
        """
        if not ticket_id:
            raise TicketMissing(clause="ticket", holder=peer, pipeline=plain_text(pipeline, 64))
        row = self._store.ticket(ticket_id)
        if row is None or not row.granted or row.peer != peer:
            raise TicketMissing(clause="ticket", ticket=plain_text(ticket_id, 64))
        if row.revocation is not None:
            raise TicketRevoked(clause="revocation", ticket=row.ticket_id)
        if row.acceptance is None:
            raise TicketNotAccepted(clause="acceptance", ticket=row.ticket_id)
        return self._in_window(row.grant, self._key.public_key())

    def held(self, peer: str, pipeline: str, ticket_id: str = "") -> dict[str, tickets.Grant]:
        """Return what this party may ask of `peer` now for a pipeline, by ticket id: all tickets, or the one named."""
        return {
            grant.ticket_id: grant
            for grant in self.held_now(peer)
            if pipeline in grant.pipelines and ticket_id in ("", grant.ticket_id)
        }

    def held_now(self, peer: str) -> Iterator[tickets.Grant]:
        """Yield all that this party may ask of `peer` now."""
        return self._standing(peer, granted=False)

    def granted_now(self, peer: str) -> Iterator[tickets.Grant]:
        """Yield all that `peer` may ask of this party now."""
        return self._standing(peer, granted=True)

    def require_any(self, peer: str, pipeline: str) -> None:
        """Raise `TicketMissing` unless a ticket in force joins both parties in a pipeline, whoever has granted it."""
        if not any(pipeline in grant.pipelines for grant in (*self.held_now(peer), *self.granted_now(peer))):
            raise TicketMissing(clause="pipelines", pipeline=pipeline)

    def _standing(self, peer: str, *, granted: bool) -> Iterator[tickets.Grant]:
        key = self._key.public_key() if granted else self._key_of(peer)
        for row in self._store.tickets(peer=peer, granted=granted):
            if not row.acceptance or row.revocation:
                continue
            try:
                yield self._in_window(row.grant, key)
            except TicketError as error:
                log.warning("ticket %s is passed over: %s", row.ticket_id, error)

    def in_force(self, ticket_id: str) -> tickets.Grant:
        """Check a run's ticket again, as when a session begins; returns what it grants.

        Raises
        ------
        TicketRevoked, TicketExpired, …
            With the clause.
        """
        row = self._store.ticket(ticket_id)
        if row is None:
            raise TicketMissing(clause="ticket", ticket=ticket_id)
        if row.revocation is not None:
            raise TicketRevoked(clause="revocation", ticket=row.ticket_id)
        return self._in_window(row.grant, self._key.public_key() if row.granted else self._key_of(row.peer))

    def revoke(self, ticket_id: str, reason: str, actor: str) -> None:
        """Withdraw a ticket that this party granted; doing it again changes nothing.

        Raises
        ------
        TicketMissing
            There is no such ticket.
        TicketInvalid
            The peer granted it, and alone can withdraw it.

        Notes
        -----
        Reveals: the reason, to the peer.
        """
        row = self._store.ticket(ticket_id)
        if row is None:
            raise TicketMissing(clause="ticket", ticket=plain_text(ticket_id, 64))
        if not row.granted:
            raise TicketInvalid(f"only {row.peer}, who granted it, can revoke it", where=ticket_id)
        if row.revocation is None:
            said = plain_text(reason)
            signed = tickets.revoke(ticket_id, self._key, self._clock() / 1000, said)
            self._store.put_ticket(replace(row, revocation=signed, synced=False))
            self._store.audit(actor, "ticket.revoked", "noted", ticket=ticket_id, peer=row.peer, reason=said)

    def learn(self, peer: str, update: peer_pb2.TicketUpdate) -> None:
        """Take over what `peer` says of a ticket, as far as its signatures prove it."""
        theirs = self._key_of(peer)
        row = self._store.ticket(update.ticket_id)
        if row is not None and row.peer != peer:
            raise TicketInvalid("a ticket of other parties", ticket=plain_text(update.ticket_id, 64))
        if row is not None and row.granted:
            if update.acceptance and row.acceptance is None:
                tickets.verify_acceptance(update.acceptance, row.grant, theirs)
                self._keep(row, "ticket.accepted", acceptance=update.acceptance)
            return
        if row is None:
            grant = tickets.read(update.grant, theirs)
            if (grant.ticket_id, grant.grantor, grant.holder) != (update.ticket_id, peer, self._party.name):
                raise TicketInvalid("the grant names other parties", ticket=plain_text(update.ticket_id, 64))
            row = TicketRow(update.ticket_id, peer, False, update.grant, None, None, self._clock(), True)
            self._keep(row, "ticket.offered")
        if update.revocation and row.revocation is None:
            tickets.verify_revocation(update.revocation, row.ticket_id, theirs)
            self._keep(row, "ticket.revoked", revocation=update.revocation)

    def _in_window(self, text: str, grantor: Ed25519PublicKey) -> tickets.Grant:
        """Return what a ticket grants, if it is within its time window."""
        place = (text, grantor.public_bytes_raw())
        grant = self._grants.get(place)
        if grant is None:
            grant = tickets.read(text, grantor)
            if len(self._grants) >= _MAX_GRANTS:
                self._grants.clear()
            self._grants[place] = grant
        tickets.check_window(grant, self._clock() / 1000)
        return grant

    def _keep(self, row: TicketRow, action: str, **changes: Any) -> None:
        self._store.put_ticket(replace(row, **changes))
        self._store.audit(row.peer, action, "noted", ticket=row.ticket_id)

    def _key_of(self, peer: str) -> Ed25519PublicKey:
        return tickets.public_from_text(self._party.peer(peer).ticket_key)
