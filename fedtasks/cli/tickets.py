"""Commands about tickets: `ticket issue | accept | show | list | request | requests | revoke`.

Gateways carry tickets over by themselves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    completion,
    examples,
    features,
    moment,
    open_store,
    print_json,
    print_listing,
    tell,
)
from fedtasks.config import Party, load_party
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import FedtasksError, TicketInvalid, TicketMissing, TicketRevoked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from fedtasks.store import Store, TicketRow
    from fedtasks.tickets import Grant

ticket_app = typer.Typer(no_args_is_help=True, help="Signed grants: which peer may do what with which dataset.")

TicketId = Annotated[
    str,
    typer.Argument(
        metavar="TICKET",
        help="The ticket's id.",
        autocompletion=completion(lambda store: [row.ticket_id for row in store.tickets()]),
    ),
]

DAY_S = 86_400


@dataclass(frozen=True)
class _Ticket:
    """A stored ticket with what it says, its signature verified."""

    row: TicketRow
    grant: Grant

    def state(self, now_s: float) -> str:
        """Say how it stands; only `accepted` can be used."""
        from fedtasks.reports.tickets import ticket_state

        return ticket_state(self.row, self.grant, int(now_s * 1000))

    def summary(self, now_s: float) -> dict[str, Any]:
        """Return what a list shows."""
        return {
            "ticket_id": self.row.ticket_id,
            "state": self.state(now_s),
            "granted_by": self.grant.grantor,
            "held_by": self.grant.holder,
            "datasets": ", ".join(scope.name for scope in self.grant.datasets),
            "pipelines": ", ".join(self.grant.pipelines),
            "expires": moment(self.grant.expires_s * 1000),
        }


@ticket_app.command(
    "issue",
    epilog=examples(
        "ticket issue --to bank --dataset customers --pipeline credit_retrain --runs 30",
        "ticket issue --to bank --dataset customers --columns age,region --pipeline credit_retrain --days 7",
        "ticket issue --to bank --dataset customers --pipeline credit_trees --trees 100 --min-leaf-rows 50",
        "ticket issue --to bank --dataset customers --pipeline credit_retrain --approval person",
        "ticket issue --to bank --dataset customers --pipeline online_psi --answers matched --lookups-per-day 100000",
    ),
)
def issue(
    to: Annotated[str, typer.Option(help="The peer that may use it.")],
    dataset: Annotated[str, typer.Option(help="One of our datasets.")],
    pipelines: Annotated[list[str], typer.Option("--pipeline", help="A pipeline that may run; repeat for more.")],
    columns: Annotated[
        str | None, typer.Option(help="Features that may enter a run, comma-separated; all by default.")
    ] = None,
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", help="What the peer may be; by default leader, or follower when we hold the label."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long it is valid, from now.")] = 30,
    n_runs: Annotated[int | None, typer.Option("--runs", min=1, help="How many runs; no limit by default.")] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="How many runs at any one time.")] = 1,
    key_bits: Annotated[int, typer.Option(help="Floor: shortest key, RSA or Paillier, that a run may ask for.")] = 2048,
    min_intersection: Annotated[int, typer.Option(min=1, help="Floor: fewest people that a run may ask for.")] = 1,
    min_leaf_rows: Annotated[
        int, typer.Option(min=1, help="Floor: fewest rows in a leaf of a tree that a run may ask for.")
    ] = 1,
    first_tree: Annotated[
        str, typer.Option(help="Floor: whose features the first tree may split by: leader, or both (no demand).")
    ] = "both",
    epochs: Annotated[int | None, typer.Option(min=1, help="How many epochs in one run; no limit by default.")] = None,
    trees: Annotated[int | None, typer.Option(min=1, help="How many trees in one run; no limit by default.")] = None,
    ids_blinded: Annotated[
        int | None, typer.Option(min=1, help="How many blinded ids may be signed in all; no limit by default.")
    ] = None,
    ids_blinded_per_day: Annotated[
        int | None, typer.Option(min=1, help="How many within any 24 hours; no limit by default.")
    ] = None,
    intersection: Annotated[
        str, typer.Option(help="Who may learn which people are shared: both, client, or size (only how many).")
    ] = "both",
    scores: Annotated[
        str, typer.Option(help="Who may learn the scores of rows: leader (who holds the label), or both.")
    ] = "leader",
    answers: Annotated[
        str, typer.Option(help="The most that a live lookup is answered with: nothing, matched, or columns.")
    ] = "nothing",
    answer_columns: Annotated[
        str | None, typer.Option(help="With --answers columns: whose values leave the house, comma-separated.")
    ] = None,
    lookups: Annotated[
        int | None, typer.Option(min=1, help="How many live lookups in all; no limit by default.")
    ] = None,
    lookups_per_day: Annotated[
        int | None, typer.Option(min=1, help="How many within any 24 hours; no limit by default.")
    ] = None,
    approval: Annotated[
        str, typer.Option(help="Who lets a run begin: automatic (nobody is asked), or person (one of ours is asked).")
    ] = "automatic",
    out: Annotated[Path | None, typer.Option(help="Also write the ticket's text to this file.")] = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Grant a peer the use of one dataset; the gateway hands the ticket over, the peer accepts it."""
    from fedtasks import tickets
    from fedtasks.store import TicketRow

    party = load_party(party_file)
    peer, declared = party.peer(to), party.dataset(dataset)
    chosen = features(declared, columns, "columns") if columns is not None else tuple(declared.features)
    now_s = int(time.time())
    grant = tickets.Grant(
        ticket_id=tickets.new_ticket_id(),
        grantor=party.name,
        holder=peer.name,
        datasets=(tickets.DatasetScope(declared.name, declared.schema_digest, chosen),),
        pipelines=tuple(pipelines),
        roles=tuple(roles) if roles else ("follower" if declared.label else "leader",),
        not_before_s=now_s,
        expires_s=now_s + days * DAY_S,
        limits=tickets.Limits(
            runs=n_runs,
            concurrent_runs=concurrent,
            epochs=epochs,
            trees=trees,
            ids_blinded=ids_blinded,
            ids_blinded_per_day=ids_blinded_per_day,
            lookups=lookups,
            lookups_per_day=lookups_per_day,
        ),
        outputs=tickets.Outputs(
            intersection=intersection,
            scores=scores,
            answers=answers,
            answer_columns=features(declared, answer_columns or "", "answer_columns"),
        ),
        floor=tickets.Floor(
            key_bits=key_bits, min_intersection=min_intersection, min_leaf_rows=min_leaf_rows, first_tree=first_tree
        ),
        approval=approval,
    )
    text = tickets.issue(grant, tickets.load_ticket_key(party.gateway.ticket_key))
    with open_store(party) as store:
        store.put_ticket(TicketRow(grant.ticket_id, peer.name, True, text, None, None, now_s * 1000, False))
        store.audit(party.name, "ticket.issued", "noted", ticket=grant.ticket_id, peer=peer.name)
    if out is not None:
        out.write_text(f"{text}\n", encoding="ascii")
    expires = moment(grant.expires_s * 1000)
    tell(
        {"ticket_id": grant.ticket_id, "held_by": peer.name, "expires": expires},
        f"Ticket {grant.ticket_id} is granted to {peer.name} until {expires} UTC.",
        f"{peer.name} accepts it: fedtasks ticket accept {grant.ticket_id}",
        as_json=as_json,
    )


@ticket_app.command("accept", epilog=examples("ticket accept 3f1a90c2be774d10", "ticket accept ticket.jws"))
def accept(
    ticket: Annotated[str, typer.Argument(help="The ticket's id, or a file that holds its text.")],
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Counter-sign a ticket that a peer granted to this party; the gateway hands the acceptance over."""
    from fedtasks import tickets

    party = load_party(party_file)
    now_s = time.time()
    with open_store(party) as store:
        found = _from_file(party, Path(ticket), now_s) if Path(ticket).is_file() else _find(store, party, ticket)
        row, grant = found.row, found.grant
        if row.granted or grant.holder != party.name:
            raise TicketInvalid(f"it was granted to {grant.holder}, who accepts it", where=row.ticket_id)
        stored = store.ticket(row.ticket_id)
        if stored is not None and stored.grant != row.grant:
            raise TicketInvalid("another ticket of this id is here already", where=row.ticket_id)
        row = stored or row
        if row.revocation is not None:
            raise TicketRevoked(clause="revocation", ticket=row.ticket_id)
        if now_s >= grant.expires_s:
            tickets.check_window(grant, now_s)
        if row.acceptance is None:
            key = tickets.load_ticket_key(party.gateway.ticket_key)
            signed = tickets.accept(row.grant, key, party.name, now_s)
            store.put_ticket(replace(row, acceptance=signed, synced=False))
            store.audit(party.name, "ticket.accepted", "noted", ticket=row.ticket_id, peer=row.peer)
    facts = {"ticket_id": grant.ticket_id, "granted_by": grant.grantor}
    tell(facts, f"Ticket {grant.ticket_id} of {grant.grantor} is accepted.", as_json=as_json)


@ticket_app.command("show", epilog=examples("ticket show 3f1a90c2be774d10"))
def show(ticket_id: TicketId, as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Show everything that a ticket says, who signed it, and how much of it is used."""
    from fedtasks import tickets

    party = load_party(party_file)
    with open_store(party) as store:
        found = _find(store, party, ticket_id)
        used = store.uses(ticket_id)
        recent = store.uses(ticket_id, since_ms=int((time.time() - DAY_S) * 1000))
    plain = {"state": found.state(time.time()), **to_plain(found.grant), "used": used, "used_last_24h": recent}
    plain["synced"] = found.row.synced
    if found.row.revocation is not None:
        plain["revoked_because"] = tickets.verify_revocation(
            found.row.revocation, ticket_id, _grantor_key(party, found.row)
        )
    if as_json:
        print_json(plain)
        return
    for name, value in _flat(plain):
        typer.echo(f"{name:<28}{value}")


@ticket_app.command("list", epilog=examples("ticket list", "ticket list --json"))
def list_(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """List the tickets that this party granted or holds."""
    party = load_party(party_file)
    now_s = time.time()
    rows: list[dict[str, Any]] = []
    with open_store(party) as store:
        for row in store.tickets():
            try:
                rows.append(_Ticket(row, _read(party, row)).summary(now_s))
            except FedtasksError as error:
                # One ticket of a former peer must not hide the others.
                rows.append({**_UNREADABLE, "ticket_id": row.ticket_id, "state": f"unreadable: {error.code}"})
    columns = {
        "Ticket": "ticket_id",
        "State": "state",
        "Granted by": "granted_by",
        "Held by": "held_by",
        "Datasets": "datasets",
        "Pipelines": "pipelines",
        "Expires (UTC)": "expires",
    }
    print_listing(rows, columns, as_json=as_json, empty="No tickets yet; grant one: fedtasks ticket issue")


_UNREADABLE = {"granted_by": "", "held_by": "", "datasets": "", "pipelines": "", "expires": ""}


@ticket_app.command(
    "request",
    epilog=examples(
        'ticket request --from shop --pipeline credit_retrain --dataset customers --reason "monthly scores"'
    ),
)
def request(
    peer: Annotated[str, typer.Option("--from", help="The peer that would grant it.")],
    pipelines: Annotated[list[str], typer.Option("--pipeline", help="A pipeline that shall run; repeat for more.")],
    reason: Annotated[str, typer.Option(help="Why; the peer reads it.")],
    dataset: Annotated[str, typer.Option(help="Which of the peer's datasets, if its name is known.")] = "",
    role: Annotated[str, typer.Option(help="What this party would be: leader or follower.")] = "leader",
    days: Annotated[int, typer.Option(min=1, help="How long it should be valid.")] = 30,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Ask a peer to grant a ticket; a person there decides, and grants one of their own making or none."""
    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import ticket_pb2

    asked = ticket_pb2.TicketRequest(pipelines=pipelines, dataset=dataset, role=role, days=days, reason=reason)
    with GatewayClient.of(load_party(party_file), patience_s=PATIENCE_S) as client:
        request_id = client.request_ticket(peer, asked)
    tell({"request_id": request_id, "peer": peer}, f"{peer} is asked: request {request_id}.", as_json=as_json)


@ticket_app.command("requests", epilog=examples("ticket requests", "ticket requests --json"))
def requests(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """List what was asked for, by this party and by its peers."""
    party = load_party(party_file)
    with open_store(party) as store:
        rows = [
            {
                "request_id": row.request_id,
                "asked_by": party.name if row.own else row.peer,
                "of": row.peer if row.own else party.name,
                **row.asked,
                "state": row.state,
                "at": moment(row.at_ms),
            }
            for row in store.peers.requests()
        ]
    shown = [{**row, "pipelines": ", ".join(row["pipelines"])} for row in rows]
    columns = {
        "Request": "request_id",
        "State": "state",
        "Asked by": "asked_by",
        "Of": "of",
        "Pipelines": "pipelines",
        "Dataset": "dataset",
        "Days": "days",
        "Reason": "reason",
        "At (UTC)": "at",
    }
    empty = "Nobody has asked for a ticket; ask a peer: fedtasks ticket request"
    print_listing(rows if as_json else shown, columns, as_json=as_json, empty=empty)


@ticket_app.command("revoke", epilog=examples('ticket revoke 3f1a90c2be774d10 --reason "contract ended"'))
def revoke(
    ticket_id: TicketId,
    reason: Annotated[str, typer.Option(help="The other party reads it.")],
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Withdraw a ticket that this party granted; runs under it end on both sides."""
    from fedtasks import tickets
    from fedtasks.clock import now_ms
    from fedtasks.gateway.tickets import Tickets

    party = load_party(party_file)
    with open_store(party) as store:
        _find(store, party, ticket_id)
        key = tickets.load_ticket_key(party.gateway.ticket_key)
        Tickets(party, store, key, now_ms).revoke(ticket_id, reason, party.name)
    tell({"ticket_id": ticket_id, "reason": reason}, f"Ticket {ticket_id} is revoked.", as_json=as_json)


def _find(store: Store, party: Party, ticket_id: str) -> _Ticket:
    row = store.ticket(ticket_id)
    if row is None:
        raise TicketMissing(f"ticket `{ticket_id}` is not in the store of {party.name}; see `fedtasks ticket list`")
    return _Ticket(row, _read(party, row))


def _read(party: Party, row: TicketRow) -> Grant:
    from fedtasks import tickets

    return tickets.read(row.grant, _grantor_key(party, row))


def _grantor_key(party: Party, row: TicketRow) -> Ed25519PublicKey:
    from fedtasks import tickets

    if row.granted:
        return tickets.load_ticket_key(party.gateway.ticket_key).public_key()
    return tickets.public_from_text(party.peer(row.peer).ticket_key)


def _from_file(party: Party, path: Path, now_s: float) -> _Ticket:
    """Read a ticket's text; its grantor is the peer whose pinned key has signed it."""
    from fedtasks import tickets
    from fedtasks.store import TicketRow

    text = path.read_text(encoding="ascii", errors="replace").strip()
    for peer in party.peers:
        try:
            grant = tickets.read(text, tickets.public_from_text(peer.ticket_key))
        except TicketInvalid:
            continue
        if grant.grantor == peer.name:
            return _Ticket(
                TicketRow(grant.ticket_id, peer.name, False, text, None, None, int(now_s * 1000), False), grant
            )
    raise TicketInvalid("none of our peers has signed this ticket", where=str(path))


def _flat(value: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, item in value.items():
        place = f"{path}.{name}" if path else name
        if isinstance(item, dict):
            found += _flat(item, place)
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for index, one in enumerate(item):
                found += _flat(one, f"{place}[{index}]")
        elif name.endswith("_s"):
            found.append((place.removesuffix("_s"), f"{moment(item * 1000)} UTC"))
        elif item is not None:
            found.append((place, ", ".join(map(str, item)) if isinstance(item, list) else str(item)))
    return found
