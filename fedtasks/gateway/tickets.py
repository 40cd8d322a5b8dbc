"""The tickets of this party: the one place that issues, accepts, declines, revokes and stores them, and relies on them.

The command line uses it too, so that every ticket is checked and every change is audited alike.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedtasks import tickets
from fedtasks.clock import Clock, now_ms
from fedtasks.config import Party
from fedtasks.errors import (
    TicketDeclined,
    TicketError,
    TicketInvalid,
    TicketMissing,
    TicketNotAccepted,
    TicketOffersFull,
    TicketRevoked,
)
from fedtasks.store import Store, TicketRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import peer_pb2

log = logging.getLogger(__name__)

MAX_OFFERS = 20
"""So many tickets one peer may offer before a person has accepted or declined one."""

MAX_CLOSED_OFFERS = 100
"""So many offers of one peer that came to nothing are kept, the newest, to be looked at."""

_MAX_GRANTS = 1024


class Tickets:
    """Keeps tickets in the store and believes nothing but their signatures.

    Parameters
    ----------
    party, store
        Whose, and where they are kept.
    key
        Signs as this party.
    clock
        Milliseconds since the epoch.
    """

    def __init__(self, party: Party, store: Store, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._party = party
        self._store = store
        self._key = key
        self._clock = clock
        # What a signed text says does not change: its signature is verified once.
        self._grants: dict[tuple[str, bytes], tickets.Grant] = {}
        # Offers are counted before one is kept; each peer waits for itself alone.
        self._offering = {peer.name: threading.Lock() for peer in party.peers}

    @classmethod
    def of(cls, party: Party, store: Store) -> Tickets:
        """Return the tickets of a party by the wall clock; raise `ConfigError` if its ticket key cannot be read."""
        return cls(party, store, tickets.load_ticket_key(party.gateway.ticket_key), now_ms)

    # ---------------------------------------------------------------------------------------------------- looking
    def granted(self, peer: str, ticket_id: str, pipeline: str) -> tickets.Grant:
        """Return what a ticket that `peer` presents grants it now; its scope is left to `tickets.check_request`.

        Raises
        ------
        TicketMissing
            This party has granted `peer` no such ticket.
        TicketRevoked, TicketNotAccepted, TicketExpired, …
            With the clause.
        """
        if not ticket_id:
            raise TicketMissing(clause="ticket", holder=peer, pipeline=plain_text(pipeline, 64))
        row = self._store.tickets.get(ticket_id)
        if row is None or not row.granted or row.peer != peer:
            raise TicketMissing(clause="ticket", ticket=plain_text(ticket_id, 64))
        self._require_standing(row)
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
        for row in self._store.tickets.list(peer=peer, granted=granted):
            if not row.acceptance or row.declination or row.revocation:
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
        row = self._store.tickets.get(ticket_id)
        if row is None:
            raise TicketMissing(clause="ticket", ticket=ticket_id)
        self._require_standing(row)
        return self._in_window(row.grant, self._grantor_key(row))

    def of_run(self, ticket_id: str) -> tickets.Grant:
        """Return what a run's ticket grants, whether or not its time has passed; raise `TicketMissing` without it."""
        return self.read(self.find(ticket_id))

    def find(self, ticket_id: str) -> TicketRow:
        """Return a stored ticket; raise `TicketMissing` if there is none of this id."""
        row = self._store.tickets.get(ticket_id)
        if row is None:
            shown = plain_text(ticket_id, 64)
            text = f"ticket `{shown}` is not in the store of {self._party.name}; see `fedtasks ticket list`"
            raise TicketMissing(text, clause="ticket", ticket=shown)
        return row

    def read(self, row: TicketRow) -> tickets.Grant:
        """Return what a stored ticket says; raise `TicketInvalid` unless its grantor has signed it."""
        return self._read(row.grant, self._grantor_key(row))

    def why_revoked(self, row: TicketRow) -> str:
        """Return the reason that the grantor gave; raise `TicketInvalid` unless the grantor has signed it."""
        return tickets.verify_revocation(row.revocation or "", row.ticket_id, self._grantor_key(row))

    def why_declined(self, row: TicketRow) -> str:
        """Return the reason that the holder gave; raise `TicketInvalid` unless the holder has signed it."""
        return tickets.verify_declination(row.declination or "", row.grant, self._holder_key(row))

    @staticmethod
    def _require_standing(row: TicketRow) -> None:
        """Raise `TicketRevoked` or `TicketDeclined`, with the reason, if a party has said no to a ticket."""
        for kind, no in ((TicketRevoked, row.revocation), (TicketDeclined, row.declination)):
            if no is not None:
                said = tickets.peek_reason(no)
                clause = "revocation" if kind is TicketRevoked else "declination"
                raise kind(clause=clause, ticket=row.ticket_id, **({"reason": said} if said else {}))

    # ---------------------------------------------------------------------------------------------------- changes
    def issue(self, grant: tickets.Grant, actor: str = "") -> str:
        """Sign a ticket as its grantor and keep it; returns its text. The gateway hands it over.

        Parameters
        ----------
        grant
            What it says.
        actor
            On whose behalf, for the audit; by default the party's.

        Raises
        ------
        PeerUnknown
            The holder is no peer of this party's.
        TicketInvalid
            Another party would grant it.
        """
        peer = self._party.peer(grant.holder)
        if grant.grantor != self._party.name:
            raise TicketInvalid(f"only {grant.grantor} can grant it", where=grant.ticket_id)
        text = tickets.issue(grant, self._key)
        row = TicketRow(grant.ticket_id, peer.name, True, text, None, None, self._clock(), False)
        self._keep(row, "ticket.issued", actor or self._party.name)
        return text

    def accept(self, ticket_id: str, actor: str = "") -> tickets.Grant:
        """Counter-sign a stored ticket as its holder; doing it again changes nothing. Returns what it grants.

        Parameters
        ----------
        ticket_id
            Which ticket.
        actor
            On whose behalf, for the audit; by default the party's.

        Raises
        ------
        TicketMissing
            There is no such ticket.
        TicketInvalid
            It was granted to another party, or its signature is wrong.
        TicketRevoked, TicketDeclined, TicketExpired
            It is too late.
        """
        return self._accept(self.find(ticket_id), actor)

    def accept_text(self, text: str) -> tickets.Grant:
        """Counter-sign a ticket that came another way than through the gateways; see `accept`.

        Raises
        ------
        TicketInvalid
            Besides, none of this party's peers has signed it, or another ticket of its id is here already.
        """
        for peer in self._party.peers:
            try:
                grant = tickets.read(text, self._key_of(peer.name))
            except TicketInvalid:
                continue
            if grant.grantor == peer.name:
                break
        else:
            raise TicketInvalid("none of our peers has signed this ticket")
        stored = self._store.tickets.get(grant.ticket_id)
        if stored is not None and stored.grant != text:
            raise TicketInvalid("another ticket of this id is here already", where=grant.ticket_id)
        return self._accept(
            stored or TicketRow(grant.ticket_id, peer.name, False, text, None, None, self._clock(), False)
        )

    def _accept(self, row: TicketRow, actor: str = "") -> tickets.Grant:
        grant = self.read(row)
        if row.granted or grant.holder != self._party.name:
            raise TicketInvalid(f"it was granted to {grant.holder}, who accepts it", where=row.ticket_id)
        self._require_standing(row)
        now_s = self._clock() / 1000
        if now_s >= grant.expires_s:
            tickets.check_window(grant, now_s)
        if row.acceptance is None:
            signed = tickets.accept(row.grant, self._key, self._party.name, now_s)
            self._keep(row, "ticket.accepted", actor or self._party.name, acceptance=signed, synced=False)
        return grant

    def decline(self, ticket_id: str, reason: str, actor: str) -> None:
        """Say no to a ticket that a peer offers, for good; doing it again changes nothing.

        Raises
        ------
        TicketMissing
            There is no such ticket.
        TicketInvalid
            It was granted to another party, its signature is wrong, or this party has accepted it.
        TicketRevoked
            The grantor has withdrawn it.

        Notes
        -----
        Reveals: the reason, to the peer.
        """
        row = self.find(ticket_id)
        grant = self.read(row)
        if row.granted or grant.holder != self._party.name:
            raise TicketInvalid(f"only {grant.holder}, to whom it was granted, declines it", where=row.ticket_id)
        if row.declination is not None:
            return
        self._require_standing(row)
        if row.acceptance is not None:
            raise TicketInvalid(f"it was accepted: only {row.peer}, who granted it, can end it", where=row.ticket_id)
        said = plain_text(reason)
        signed = tickets.decline(row.grant, self._key, self._party.name, self._clock() / 1000, said)
        self._keep(row, "ticket.declined", actor, said, declination=signed, synced=False)

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
        row = self.find(ticket_id)
        if not row.granted:
            raise TicketInvalid(f"only {row.peer}, who granted it, can revoke it", where=ticket_id)
        if row.revocation is None:
            said = plain_text(reason)
            signed = tickets.revoke(ticket_id, self._key, self._clock() / 1000, said)
            self._keep(row, "ticket.revoked", actor, said, revocation=signed, synced=False)

    def learn(self, peer: str, update: peer_pb2.TicketUpdate) -> None:
        """Take over what `peer` says of a ticket, as far as its signatures prove it.

        Raises
        ------
        TicketInvalid
            They do not, or the ticket is one of other parties.
        TicketOffersFull
            As many offers of this peer wait for an answer as may.
        """
        row = self._store.tickets.get(update.ticket_id)
        if row is not None and row.peer != peer:
            raise TicketInvalid("a ticket of other parties", ticket=plain_text(update.ticket_id, 64))
        if row is not None and row.granted:
            self._learn_answer(row, update)
            return
        if row is None:
            with self._offering[peer]:
                row = self._store.tickets.get(update.ticket_id) or self._learn_offer(peer, update)
        if row is not None and update.revocation and row.revocation is None:
            reason = tickets.verify_revocation(update.revocation, row.ticket_id, self._key_of(peer))
            self._keep(row, "ticket.revoked", peer, reason, revocation=update.revocation)

    def _learn_answer(self, row: TicketRow, update: peer_pb2.TicketUpdate) -> None:
        """Take over the holder's yes or no to a ticket that this party has granted, and its own no that it has lost."""
        theirs = self._key_of(row.peer)
        if update.revocation and row.revocation is None:
            reason = tickets.verify_revocation(update.revocation, row.ticket_id, self._key.public_key())
            self._keep(row, "ticket.revoked", row.peer, reason, revocation=update.revocation)
        if update.acceptance and row.acceptance is None:
            tickets.verify_acceptance(update.acceptance, row.grant, theirs)
            self._keep(row, "ticket.accepted", row.peer, acceptance=update.acceptance)
        if update.declination and row.declination is None:
            reason = tickets.verify_declination(update.declination, row.grant, theirs)
            self._keep(row, "ticket.declined", row.peer, reason, declination=update.declination)

    def _learn_offer(self, peer: str, update: peer_pb2.TicketUpdate) -> TicketRow | None:
        """Keep a ticket that a peer offers; None if nobody can accept it any more."""
        grant = tickets.read(update.grant, self._key_of(peer))
        if (grant.ticket_id, grant.grantor, grant.holder) != (update.ticket_id, peer, self._party.name):
            raise TicketInvalid("the grant names other parties", ticket=plain_text(update.ticket_id, 64))
        if update.revocation or self._clock() >= grant.expires_s * 1000:
            return None
        self._make_room(peer)
        row = TicketRow(update.ticket_id, peer, False, update.grant, None, None, self._clock(), True)
        self._keep(row, "ticket.offered", peer)
        return row

    def _make_room(self, peer: str) -> None:
        """Forget offers that came to nothing; raise `TicketOffersFull` if no further one has room."""
        offers = [row for row in self._store.tickets.list(peer=peer, granted=False) if row.acceptance is None]
        left = [row for row in offers if not self._has_passed(row)]
        waiting = [row for row in left if row.is_open and self._is_readable(row)]
        closed = [row for row in left if row not in waiting]
        for row in (*(row for row in offers if row not in left), *closed[:-MAX_CLOSED_OFFERS]):
            self._store.tickets.remove([row.ticket_id])
            self._store.audit.add(self._party.name, "ticket.forgotten", "noted", ticket=row.ticket_id, peer=peer)
        if len(waiting) >= MAX_OFFERS:
            raise TicketOffersFull(clause="offers", waiting=len(waiting), allowed=MAX_OFFERS)

    def _has_passed(self, row: TicketRow) -> bool:
        return self._is_readable(row) and self._clock() >= self.read(row).expires_s * 1000

    def _is_readable(self, row: TicketRow) -> bool:
        try:
            self.read(row)
        except TicketError:
            return False
        return True

    def _in_window(self, text: str, grantor: Ed25519PublicKey) -> tickets.Grant:
        """Return what a ticket grants, if it is within its time window."""
        grant = self._read(text, grantor)
        tickets.check_window(grant, self._clock() / 1000)
        return grant

    def _read(self, text: str, grantor: Ed25519PublicKey) -> tickets.Grant:
        """Return what a ticket grants; its signature is verified once."""
        place = (text, grantor.public_bytes_raw())
        grant = self._grants.get(place)
        if grant is None:
            grant = tickets.read(text, grantor)
            if len(self._grants) >= _MAX_GRANTS:
                self._grants.clear()
            self._grants[place] = grant
        return grant

    def _keep(self, row: TicketRow, action: str, actor: str, reason: str | None = None, **changes: Any) -> None:
        """Store a ticket with `changes`, and say in the audit who has done what to it."""
        self._store.tickets.put(replace(row, **changes))
        facts = {"ticket": row.ticket_id, "peer": row.peer, **({} if reason is None else {"reason": reason})}
        self._store.audit.add(actor, action, "noted", **facts)

    def _grantor_key(self, row: TicketRow) -> Ed25519PublicKey:
        return self._key.public_key() if row.granted else self._key_of(row.peer)

    def _holder_key(self, row: TicketRow) -> Ed25519PublicKey:
        return self._key_of(row.peer) if row.granted else self._key.public_key()

    def _key_of(self, peer: str) -> Ed25519PublicKey:
        return tickets.public_from_text(self._party.peer(peer).ticket_key)
