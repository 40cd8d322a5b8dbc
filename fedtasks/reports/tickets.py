"""What tickets allow, how much of them is used, and who may see what comes out of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from fedtasks.clock import DAY_MS, DAY_S
from fedtasks.config import Party
from fedtasks.errors import TicketError
from fedtasks.reports.labels import label_reports
from fedtasks.store import LabelsTold, RunRow, Store, TicketRow
from fedtasks.text import plain_text
from fedtasks.tickets import Asked, Clause, Grant, Group, Per, peek, peek_reason, settings_of
from fedtasks.tickets.clauses import clauses

EXPIRES_SOON_MS = 7 * DAY_MS
"""With less time left, a ticket's end is told of."""


def ticket_state(row: TicketRow, grant: Grant, now_ms: int) -> str:
    """Say how a ticket stands; only `accepted` can be used."""
    if row.revocation is not None:
        return "revoked"
    if row.declination is not None:
        return "declined"
    if now_ms >= grant.expires_s * 1000:
        return "expired"
    if row.acceptance is None:
        return "issued"
    return "accepted" if now_ms >= grant.not_before_s * 1000 else "not yet valid"


def readable(rows: Iterable[TicketRow]) -> Iterator[tuple[TicketRow, Grant]]:
    """Yield tickets with what they say; one that cannot be read is left out, and the list of tickets names it."""
    for row in rows:
        with suppress(TicketError):
            yield row, peek(row.grant)


def ticket_reports(store: Store, party: str, now_ms: int) -> dict[str, list[dict[str, Any]]]:
    """Return all tickets and all requests for tickets, as plain values."""
    rows, told = store.tickets.list(), store.label_spends.list()
    return {
        "granted": [ticket_report(store, row, now_ms, told) for row in rows if row.granted],
        "held": [ticket_report(store, row, now_ms, told) for row in rows if not row.granted],
        "requests": [
            {
                "request_id": row.request_id,
                "peer": row.peer,
                "asked_by": party if row.own else row.peer,
                **row.asked,
                "state": row.state,
                "at_ms": row.at_ms,
            }
            for row in store.ticket_requests.list()
        ],
    }


def ticket_report(store: Store, row: TicketRow, now_ms: int, told: Iterable[LabelsTold]) -> dict[str, Any]:
    """Return what a ticket says, how it stands and how much of it is used; what cannot be read says so.

    Parameters
    ----------
    store, row, now_ms
        The ticket, where it is kept, and the time.
    told
        What all peers were told of this party's labels.
    """
    try:
        grant = peek(row.grant)
    except TicketError as error:
        return {"ticket_id": row.ticket_id, "peer": row.peer, "state": "unreadable", "why": plain_text(str(error))}
    state = ticket_state(row, grant, now_ms)
    return {
        "ticket_id": row.ticket_id,
        "peer": row.peer,
        "state": state,
        "pipelines": list(grant.pipelines),
        "datasets": [{"name": scope.name, "columns": list(scope.columns)} for scope in grant.datasets],
        "role": ", ".join(grant.roles),
        "valid_from_ms": grant.not_before_s * 1000,
        "expires_ms": grant.expires_s * 1000,
        "limits": list(budgets(store, row, grant, now_ms)),
        # What was told of labels of this party's; of the peer's, the peer knows.
        "labels": labels_told(told, row, grant),
        # A floor that demands nothing would read as if it did.
        "floor": [_said(clause, grant) for clause in _of(Group.FLOOR) if clause.demands(grant.bound(clause.name))],
        "outputs": [_said(clause, grant) for clause in _of(Group.OUTPUT) if grant.bound(clause.name)],
        "warnings": list(grant.warnings),
        "approval": grant.approval,
        "because": peek_reason(row.revocation or row.declination or ""),
        "synced": row.synced,
        "revocable": row.granted and state in ("accepted", "issued", "not yet valid"),
        "declinable": not row.granted and state == "issued",
        # What somebody is asked to sign is read in full.
        "terms": terms(grant) if state == "issued" else [],
    }


def labels_told(told: Iterable[LabelsTold], row: TicketRow, grant: Grant) -> list[dict[str, Any]]:
    """Return what the peer of a ticket was told of this party's labels, of all that was told, and what is left."""
    datasets = [scope.name for scope in grant.datasets] if row.granted else []
    return label_reports(told, row.peer, datasets, grant)


def terms(grant: Grant) -> list[dict[str, str]]:
    """Return everything that a ticket says, in words: what it names first, then every clause, defaults too."""
    head = [
        ("granted by", grant.grantor),
        ("for", grant.holder),
        *((f"dataset {scope.name}", f"columns {', '.join(scope.columns)}") for scope in grant.datasets),
        ("pipelines", ", ".join(grant.pipelines)),
        (f"{grant.holder} may be", ", ".join(grant.roles)),
        ("valid for", _duration(grant.expires_s - grant.not_before_s)),
        ("approval", _APPROVALS[grant.approval]),
    ]
    named = [{"label": label, "value": value, "text": ""} for label, value in head]
    return named + [
        {"label": clause.label, "value": _in_words(clause, grant.bound(clause.name)), "text": clause.sentence}
        for group in Group
        for clause in _of(group)
    ]


def ticket_form(party: Party) -> dict[str, list[dict[str, Any]]]:
    """Return what this party can grant: its datasets with their columns, and every clause that there is to choose."""
    datasets = [
        {"name": each.name, "columns": list(each.features), "label": each.label is not None} for each in party.datasets
    ]
    chosen = [
        {
            "clause": each.name,
            "group": each.group.value,
            "label": each.label,
            "text": each.sentence,
            "default": None if each.only_with else each.default,
            "least": each.least,
            "choices": list(each.choices),
            "columns": each.only_with is not None,
        }
        for group in Group
        for each in _of(group)
        if each.option
    ]
    return {"datasets": datasets, "clauses": chosen}


_APPROVALS = {
    "automatic": "nobody is asked before a run begins",
    "person": "a person of the granting side is asked before a run begins",
}


def _duration(seconds: int) -> str:
    days, hours = seconds // DAY_S, seconds % DAY_S // 3600
    parts = [f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in ((days, "day"), (hours, "hour")) if n]
    return " and ".join(parts) or "less than an hour"


def _in_words(clause: Clause, bound: Any) -> str:
    if bound is None:
        return "no limit"
    if isinstance(bound, tuple):
        return ", ".join(bound) or "none"
    if clause.choices or clause.demands(bound):
        return f"{bound:,}" if isinstance(bound, int) else str(bound)
    return "nothing is demanded"


def _of(group: Group) -> Iterator[Clause]:
    return (clause for clause in clauses().values() if clause.group is group)


def _named(clause: Clause) -> dict[str, Any]:
    """Return a clause as a page names it: by its words, with what it says in full."""
    return {"clause": clause.name, "label": clause.label, "text": clause.sentence}


def _said(clause: Clause, grant: Grant) -> dict[str, Any]:
    bound = grant.bound(clause.name)
    return {**_named(clause), "value": list(bound) if isinstance(bound, tuple) else bound}


def budgets(store: Store, row: TicketRow, grant: Grant, now_ms: int) -> Iterator[dict[str, Any]]:
    """Yield each limit and what is used of it; None where it bounds a single run, so that nothing adds up."""
    used = store.uses.total(row.ticket_id)
    # The granting side counts runs; the other knows those that it has seen.
    used["runs"] = max(used.get("runs", 0), 0 if row.granted else store.runs.total(row.ticket_id))
    today = store.uses.total(row.ticket_id, since_ms=now_ms - DAY_MS)
    now = {"runs": len(store.runs.active(row.ticket_id))}
    spent = {Per.LIFE: used, Per.DAY: today, Per.NOW: now}
    for clause in _of(Group.LIMIT):
        limit = grant.bound(clause.name)
        if limit is not None:
            n_used = spent[clause.per].get(clause.counts, 0) if clause.counts else None
            yield {**_named(clause), "limit": limit, "used": n_used, "per": clause.per.name.lower()}


def rights(grant: Grant, run: RunRow, party: str) -> list[dict[str, Any]]:
    """Say what of a run's results this party may see, who may, and which clause of the ticket says so."""
    config = json.loads(run.config_json)
    leader = str(config.get("leader", ""))
    clause = f"ticket {grant.ticket_id}, outputs"
    asked = list(settings_of(config, {step["name"]: step.get("kind", "") for step in json.loads(run.steps_json)}))
    client = _client(config, asked, run, party)
    sees_people = {"both": "both", "client": client, "size": "nobody: only how many"}
    people = sees_people[effective(_PEOPLE, asked, grant)]
    scores = {"both": "both", "leader": leader}[effective(_SCORES, asked, grant)]
    return [
        {"what": "metrics", "may": party == leader, "who": leader, "clause": f"{clause}.metrics"},
        {"what": "scores", "may": scores in ("both", party), "who": scores, "clause": f"{clause}.scores"},
        {"what": "own half", "may": True, "who": party, "clause": ""},
        {"what": "people", "may": people in ("both", party), "who": people, "clause": f"{clause}.intersection"},
    ]


_PEOPLE, _SCORES = "outputs.intersection", "outputs.scores"


def effective(name: str, asked: Iterable[Asked], grant: Grant) -> str:
    """Return the most that a run asks for under a clause, and never more than its ticket says.

    Parameters
    ----------
    name
        A clause with choices.
    asked
        What the run's settings ask for; where none of them does under this clause, its default counts.
    """
    clause = clauses()[name]
    values = [each.value for each in asked if each.clause == name and each.value in clause.choices]
    most = max(values, key=clause.choices.index, default=clause.default)
    return str(most if clause.permits(grant.bound(name), most) else grant.bound(name))


def _client(config: Mapping[str, Any], asked: Iterable[Asked], run: RunRow, party: str) -> str:
    """The party that does not sign; by default the leader, since the follower signs."""
    follower = run.peer if config.get("leader") == party else party
    finds_people = [config["steps"].get(each.step, {}) for each in asked if each.clause == _PEOPLE]
    signer = next((str(settings["signer"]) for settings in finds_people if settings.get("signer")), follower)
    return party if signer == run.peer else run.peer
