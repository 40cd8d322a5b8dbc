"""The audit of a party as a file that anybody can check who has its public key.

Each line is a JSON object: its ``kind``, its ``content``, the digest of the line before (``previous``) and its own
(``digest``, over the other three). First comes a ``head``, then each ``ticket`` and each ``run`` with what both parties
have signed, then each ``decision`` of the gateway's own chain, and an ``end`` that the party signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fedtasks import __version__
from fedtasks.digests import canonical, digest
from fedtasks.store import GENESIS, AuditRow, RunRow, Store, TicketRow
from fedtasks.tickets import sign_audit

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEAD, TICKET, RUN, DECISION, END = "head", "ticket", "run", "decision", "end"

FORMAT = 1

_TICKET = ("ticket_id", "peer", "granted", "grant", "acceptance", "declination", "revocation", "issued_ms")
_RUN = ("run_id", "pipeline", "peer", "initiated", "ticket_id", "opened_ms", "closed_ms", "state")
_RECEIPTS = ("receipt", "peer_receipt")


@dataclass
class _Chain:
    """Makes lines that follow each other."""

    last: str = GENESIS
    n_lines: int = 0

    def line(self, kind: str, content: dict[str, Any]) -> str:
        """Return the next line."""
        plain = {"kind": kind, "content": content, "previous": self.last}
        self.last, self.n_lines = digest(plain), self.n_lines + 1
        return canonical({**plain, "digest": self.last})


def bundle(store: Store, party: str, key: Ed25519PrivateKey, now_ms: int) -> Iterator[str]:
    """Yield the lines of a party's audit.

    Parameters
    ----------
    store, party, key
        Whose, and what signs its end.
    now_ms
        Milliseconds since the epoch.

    Raises
    ------
    DataCorrupt
        The chain in the store is not whole; `AuditBook.verify` says where.

    Notes
    -----
    Reveals: to whoever gets it, all that was decided and with whom, the tickets in full, the accounts of runs (counts
    and digests), and the users who have acted; no row of data, no id of a person, no secret.
    Cost: tickets and runs are held in memory one at a time, decisions some at a time.
    """
    store.audit.verify()  # who signed a cut, maybe with a key of before, is for whoever checks the file with the keys
    chain = _Chain()
    yield chain.line(HEAD, {"format": FORMAT, "party": party, "release": __version__, "at_ms": now_ms})
    for ticket in store.tickets.list():
        yield chain.line(TICKET, ticket_content(ticket))
    # Before the decisions: so there is one for each run.
    for run in store.runs.walk():
        yield chain.line(RUN, run_content(run))
    n_decisions = 0
    for row in store.audit.walk():
        n_decisions += 1
        yield chain.line(DECISION, decision_content(row))
    claims = {"iss": party, "iat": now_ms // 1000, "lines": chain.n_lines, "last": chain.last}
    yield chain.line(END, {"decisions": n_decisions, "signed": sign_audit(claims, key)})


def ticket_content(row: TicketRow) -> dict[str, Any]:
    """Return a ticket as a line holds it."""
    return {name: getattr(row, name) for name in _TICKET}


def run_content(row: RunRow) -> dict[str, Any]:
    """Return a run as a line holds it."""
    code = str((row.failure or {}).get("code", ""))
    return {**{name: getattr(row, name) for name in (*_RUN, *_RECEIPTS)}, "code": code}


def decision_content(row: AuditRow) -> dict[str, Any]:
    """Return a decision as a line holds it."""
    return asdict(row)
