"""What tickets allow, how much of them is used, and who may see what comes out of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from fedtasks.clock import DAY_MS
from fedtasks.errors import TicketError
from fedtasks.store import RunRow, Store, TicketRow
from fedtasks.tickets import FIRST_TREES, SCORES, Grant, Limits, peek

EXPIRES_SOON_MS = 7 * DAY_MS
"""With less time left, a ticket's end is told of."""

_PER_DAY = "_per_day"
_OF_ONE_RUN = ("epochs", "trees")


def ticket_state(row: TicketRow, grant: Grant, now_ms: int) -> str:
    """Say how a ticket stands; only `accepted` can be used."""
    if row.revocation is not None:
        return "revoked"
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
    rows = store.tickets()
    return {
        "granted": [ticket_report(store, row, now_ms) for row in rows if row.granted],
        "held": [ticket_report(store, row, now_ms) for row in rows if not row.granted],
        "requests": [
            {
                "request_id": row.request_id,
                "peer": row.peer,
                "asked_by": party if row.own else row.peer,
                **row.asked,
                "state": row.state,
                "at_ms": row.at_ms,
            }
            for row in store.peers.requests()
        ],
    }


def ticket_report(store: Store, row: TicketRow, now_ms: int) -> dict[str, Any]:
    """Return what a ticket says, how it stands and how much of it is used; what cannot be read says so."""
    try:
        grant = peek(row.grant)
    except TicketError as error:
        return {"ticket_id": row.ticket_id, "peer": row.peer, "state": "unreadable", "why": str(error)}
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
        "limits": list(_budgets(store, row, grant, now_ms)),
        # A first tree of both demands nothing, and would read as if it did.
        "floor": {name: value for name, value in asdict(grant.floor).items() if value != FIRST_TREES[-1]},
        "outputs": {name: value for name, value in asdict(grant.outputs).items() if value},
        "approval": grant.approval,
        "synced": row.synced,
        "revocable": row.granted and state in ("accepted", "issued", "not yet valid"),
    }


def _budgets(store: Store, row: TicketRow, grant: Grant, now_ms: int) -> Iterator[dict[str, Any]]:
    """Yield each limit and what is used of it; None where it bounds a single run, so that nothing adds up."""
    used = store.uses(row.ticket_id)
    today = store.uses(row.ticket_id, since_ms=now_ms - DAY_MS)
    # The granting side counts runs; the other knows those that it has seen.
    used["runs"] = max(used.get("runs", 0), 0 if row.granted else store.count_runs(row.ticket_id))
    used["concurrent_runs"] = len(store.active_runs(row.ticket_id))
    for name in (field.name for field in fields(Limits)):
        limit = getattr(grant.limits, name)
        if limit is None:
            continue
        spent = today.get(name.removesuffix(_PER_DAY), 0) if name.endswith(_PER_DAY) else used.get(name, 0)
        yield {"clause": f"limits.{name}", "limit": limit, "used": None if name in _OF_ONE_RUN else spent}


def rights(grant: Grant, run: RunRow, party: str) -> list[dict[str, Any]]:
    """Say what of a run's results this party may see, who may, and which clause of the ticket says so."""
    config = json.loads(run.config_json)
    leader = str(config.get("leader", ""))
    clause = f"ticket {grant.ticket_id}, outputs"
    sees_people = {"both": "both", "client": _client(config, run, party), "size": "nobody: only how many"}
    people = sees_people[_learns(config, grant)]
    scores = "both" if _both_learn_scores(config, grant) else leader
    return [
        {"what": "metrics", "may": party == leader, "who": leader, "clause": f"{clause}.metrics"},
        {"what": "scores", "may": scores in ("both", party), "who": scores, "clause": f"{clause}.scores"},
        {"what": "own half", "may": True, "who": party, "clause": ""},
        {"what": "people", "may": people in ("both", party), "who": people, "clause": f"{clause}.intersection"},
    ]


def _learns(config: Mapping[str, Any], grant: Grant) -> str:
    """Who learns which people are shared: the run's own setting, which is never more than the ticket's."""
    asked = [group["learns"] for group in _groups(config) if group.get("learns") in ("both", "client", "size")]
    return str(asked[0]) if asked else grant.outputs.intersection


def _both_learn_scores(config: Mapping[str, Any], grant: Grant) -> bool:
    """Whether a step says that both learn the scores of rows; a ticket that says so leaves the choice to the run."""
    most = SCORES[-1]
    return grant.outputs.scores == most and any(group.get("scores") == most for group in _groups(config))


def _client(config: Mapping[str, Any], run: RunRow, party: str) -> str:
    """The party that does not sign; by default the leader, since the follower signs."""
    leader = str(config.get("leader", ""))
    follower = run.peer if leader == party else party
    signer = next((str(group["signer"]) for group in _groups(config) if group.get("signer")), follower)
    return party if signer == run.peer else run.peer


def _groups(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = config.get("steps")
    return [group for group in steps.values() if isinstance(group, Mapping)] if isinstance(steps, Mapping) else []
