"""Commands about tickets: `ticket issue | accept | decline | show | list | request | requests | refuse | revoke`.

Gateways carry tickets over by themselves.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    completion,
    examples,
    features,
    group,
    moment,
    open_store,
    print_json,
    print_listing,
    say,
    tell,
)
from fedtasks.clock import DAY_S
from fedtasks.config import Dataset, load_party
from fedtasks.dataclass_io import check_text, to_plain
from fedtasks.errors import ConfigError, FedtasksError

if TYPE_CHECKING:
    from fedtasks.store import TicketRow
    from fedtasks.tickets import Clause, Grant

ticket_app = group("Signed grants: which peer may do what with which dataset.")

app = group()
app.add_typer(ticket_app, name="ticket")

TicketId = Annotated[
    str,
    typer.Argument(
        metavar="TICKET",
        help="The ticket's id.",
        autocompletion=completion(lambda store: [row.ticket_id for row in store.tickets.list()]),
    ),
]

_LITERAL: Any = Literal

MAX_FILE = 100_000
"""How much of a file is read that should hold a ticket's text."""


def by_clause(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each clause of a ticket; what they say is its argument `bounds`, by clause."""
    known = _clauses()
    signature = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "bounds"]
    options = {clause.name.replace(".", "_"): clause for clause in known if clause.option}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        bounds = {clause.name: values.pop(name) for name, clause in options.items()}
        command(**values, bounds=bounds)

    made = (_option(name, clause) for name, clause in options.items())
    vars(run)["__signature__"] = signature.replace(parameters=[*kept, *made])
    return run


def _clauses() -> list[Clause]:
    from fedtasks.tickets.clauses import clauses

    try:
        return list(clauses().values())
    except ConfigError:
        return []  # a package that cannot be imported must not end every command; what needs its clauses says so


def _option(name: str, clause: Clause) -> inspect.Parameter:
    kind: Any = int | None
    if clause.choices:
        kind = _LITERAL[clause.choices]
    elif clause.only_with:
        kind = str | None
    option = typer.Option(
        None if clause.only_with else clause.default,
        clause.option,
        min=None if clause.choices or clause.only_with else clause.least,
        help=f"{clause.sentence[:-1]}, comma-separated." if clause.only_with else clause.sentence,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _bounds(said: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Return each clause's bound as a grant has it: names of features as a tuple."""
    from fedtasks.tickets.clauses import clauses

    return {
        name: features(dataset, value or "", clauses()[name].field) if clauses()[name].only_with else value
        for name, value in said.items()
    }


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
        "ticket issue --to bank --dataset customers --pipeline credit_retrain --min-intersection 1000",
        "ticket issue --to bank --dataset customers --pipeline credit_retrain --approval person",
        "ticket issue --to bank --dataset customers --pipeline online_psi --answers matched --lookups-per-day 100000",
    ),
)
@by_clause
def issue(
    bounds: dict[str, Any],
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
    approval: Annotated[
        str, typer.Option(help="Who lets a run begin: automatic (nobody is asked), or person (one of ours is asked).")
    ] = "automatic",
    out: Annotated[Path | None, typer.Option(help="Also write the ticket's text to this file.")] = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Grant a peer the use of one dataset; the gateway hands the ticket over, the peer accepts it."""
    from fedtasks import tickets
    from fedtasks.gateway.tickets import Tickets

    party = load_party(party_file)
    declared = party.dataset(dataset)
    grant = tickets.offer(
        party,
        to=to,
        dataset=dataset,
        columns=features(declared, columns, "columns") if columns is not None else None,
        pipelines=pipelines,
        roles=roles or (),
        now_s=int(time.time()),
        days=days,
        approval=approval,
        bounds=_bounds(bounds, declared),
    )
    with open_store(party) as store:
        text = Tickets.of(party, store).issue(grant)
    if out is not None:
        out.write_text(f"{text}\n", encoding="ascii")
    expires = moment(grant.expires_s * 1000)
    tell(
        {"ticket_id": grant.ticket_id, "held_by": to, "expires": expires, "warnings": list(grant.warnings)},
        f"Ticket {grant.ticket_id} is granted to {to} until {expires} UTC.",
        *_warned(grant),
        f"{to} accepts it: `fedtasks ticket accept {grant.ticket_id}`",
        as_json=as_json,
    )


def _warned(grant: Grant) -> list[str]:
    """Return what a ticket lets be done that whoever signs it should know, in a line each."""
    return [f"⚠ {warning}." for warning in grant.warnings]


@ticket_app.command("accept", epilog=examples("ticket accept 3f1a90c2be774d10", "ticket accept ticket.jws"))
def accept(
    ticket: Annotated[str, typer.Argument(help="The ticket's id, or a file that holds its text.")],
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Counter-sign a ticket that a peer granted to this party; the gateway hands the acceptance over."""
    from fedtasks.gateway.tickets import Tickets

    party, file = load_party(party_file), Path(ticket)
    with open_store(party) as store:
        known = Tickets.of(party, store)
        if file.is_file():
            with file.open(encoding="ascii", errors="replace") as stream:
                grant = known.accept_text(stream.read(MAX_FILE).strip())
        else:
            grant = known.accept(ticket)
    facts = {"ticket_id": grant.ticket_id, "granted_by": grant.grantor, "warnings": list(grant.warnings)}
    tell(facts, f"Ticket {grant.ticket_id} of {grant.grantor} is accepted.", *_warned(grant), as_json=as_json)


@ticket_app.command("decline", epilog=examples('ticket decline 3f1a90c2be774d10 --reason "too many columns"'))
def decline(
    ticket_id: TicketId,
    reason: Annotated[str, typer.Option(help="The other party reads it.")] = "",
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Say no to a ticket that a peer offers, for good; the gateway hands the answer over."""
    from fedtasks.gateway.tickets import Tickets

    party = load_party(party_file)
    check_text(reason, "reason")
    with open_store(party) as store:
        Tickets.of(party, store).decline(ticket_id, reason, party.name)
    tell({"ticket_id": ticket_id, "reason": reason}, f"Ticket {ticket_id} is declined.", as_json=as_json)


@ticket_app.command("show", epilog=examples("ticket show 3f1a90c2be774d10"))
def show(ticket_id: TicketId, as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Show everything that a ticket says, who signed it, and how much of it is used."""
    from fedtasks.gateway.tickets import Tickets
    from fedtasks.reports.tickets import labels_told

    party = load_party(party_file)
    with open_store(party) as store:
        known = Tickets.of(party, store)
        row = known.find(ticket_id)
        found = _Ticket(row, known.read(row))
        used = store.uses.total(ticket_id)
        recent = store.uses.total(ticket_id, since_ms=int((time.time() - DAY_S) * 1000))
        labels = labels_told(store.label_spends.list(), row, found.grant)
    plain = {"state": found.state(time.time()), **to_plain(found.grant), "used": used, "used_last_24h": recent}
    plain["synced"], plain["warnings"] = row.synced, list(found.grant.warnings)
    plain["labels"] = labels
    if row.revocation is not None:
        plain["revoked_because"] = known.why_revoked(row)
    if row.declination is not None:
        plain["declined_because"] = known.why_declined(row)
    if as_json:
        print_json(plain)
        return
    plain["labels"] = [each["text"] for each in labels] or None
    for name, value in _flat(plain):
        say(f"{name:<28}{value}")


@ticket_app.command("list", epilog=examples("ticket list", "ticket list --json"))
def list_(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """List the tickets that this party granted or holds."""
    from fedtasks.gateway.tickets import Tickets

    party = load_party(party_file)
    now_s = time.time()
    rows: list[dict[str, Any]] = []
    with open_store(party) as store:
        known = Tickets.of(party, store)
        for row in store.tickets.list():
            try:
                rows.append(_Ticket(row, known.read(row)).summary(now_s))
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
    print_listing(rows, columns, as_json=as_json, empty="No tickets yet; grant one: `fedtasks ticket issue`")


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
            for row in store.ticket_requests.list()
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
    empty = "Nobody has asked for a ticket; ask a peer: `fedtasks ticket request`"
    print_listing(rows if as_json else shown, columns, as_json=as_json, empty=empty)


@ticket_app.command("refuse", epilog=examples('ticket refuse 3f1a90c2be774d10 --reason "not this year"'))
def refuse(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="The request's name; see `ticket requests`.")],
    reason: Annotated[str, typer.Option(help="The other party reads it.")] = "",
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Say no to a peer that asks for a ticket; the peer is told at once."""
    from fedtasks.link.client import GatewayClient

    check_text(reason, "reason")
    with GatewayClient.of(load_party(party_file), patience_s=PATIENCE_S) as client:
        client.decline_request(request_id, reason)
    tell({"request_id": request_id, "reason": reason}, f"Request {request_id} is declined.", as_json=as_json)


@ticket_app.command("revoke", epilog=examples('ticket revoke 3f1a90c2be774d10 --reason "contract ended"'))
def revoke(
    ticket_id: TicketId,
    reason: Annotated[str, typer.Option(help="The other party reads it.")],
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Withdraw a ticket that this party granted; runs under it end on both sides."""
    from fedtasks.gateway.tickets import Tickets

    party = load_party(party_file)
    check_text(reason, "reason")
    with open_store(party) as store:
        Tickets.of(party, store).revoke(ticket_id, reason, party.name)
    tell({"ticket_id": ticket_id, "reason": reason}, f"Ticket {ticket_id} is revoked.", as_json=as_json)


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
