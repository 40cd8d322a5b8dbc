"""The morning look: what needs a person, what runs, how the peers are, what has landed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedtasks.clock import DAY_MS
from fedtasks.config import Dataset, Party
from fedtasks.digests import digest
from fedtasks.errors import AirflowIncomplete, ClockSkew, ConfigError, GatewayOutdated
from fedtasks.identity import valid_until
from fedtasks.reports.airflow_parts import silent_now
from fedtasks.reports.dag_runs import failure_report
from fedtasks.reports.losses import losses
from fedtasks.reports.party_file import outdated
from fedtasks.reports.runs import summaries
from fedtasks.reports.status import must_act
from fedtasks.reports.tickets import EXPIRES_SOON_MS, readable, ticket_reports
from fedtasks.store import Store

RECENT = 10
RENEW_MS = 30 * DAY_MS
"""With less time left, a certificate's end is told of."""

KEY_DIGITS = 12
"""How long the name is by which somebody's browser remembers what they have dismissed."""

SILENT_MS = 60_000
"""A gateway that has not looked for its peers so long does not run."""


def overview(store: Store, party: Party, dag_ids: Collection[str], now_ms: int, user: str = "") -> dict[str, Any]:
    """Return what a person looks at first; runs only of the DAGs that may be read.

    Parameters
    ----------
    store, party
        Whose.
    dag_ids
        The DAGs that may be read.
    now_ms
        Milliseconds since the epoch.
    user
        Who looks. Each of the ``needs`` has a ``key`` by which this user's browser remembers that it was dismissed; the
        same need in another state has another.
    """
    tickets = ticket_reports(store, party.name, now_ms)
    going_on = store.runs.list(state="running", dag_ids=dag_ids, limit=None)
    newest = store.runs.list(dag_ids=dag_ids, limit=RECENT + len(going_on))
    running = summaries(store, party.name, going_on)
    recent = summaries(store, party.name, [run for run in newest if run.state != "running"][:RECENT])
    peers = peer_reports(store, party)
    needs = [
        *_gateway_needs(store, party, peers, now_ms),
        *_certificate_needs(party, peers, now_ms),
        *_ticket_needs(tickets, now_ms),
        *_run_needs(store, [*running, *recent], now_ms),
    ]
    return {
        "party": party.name,
        "now_ms": now_ms,
        "needs": [_keyed(need, user) for need in sorted(needs, key=lambda need: -need["at_ms"])],
        "running": running,
        "recent": recent,
        "peers": peers,
        "budgets": [
            {"ticket_id": ticket["ticket_id"], "peer": ticket["peer"], "granted": granted, **limit}
            for granted, side in ((True, "granted"), (False, "held"))
            for ticket in tickets[side]
            if ticket["state"] == "accepted"
            for limit in ticket["limits"]
            if limit["used"] is not None
        ],
    }


def _need(kind: str, text: str, at_ms: int, remedy: str, state: tuple[object, ...] = (), **link: str) -> dict[str, Any]:
    """Make one need; it is the same one for as long as its `state` is the same, by default what it says."""
    return {"kind": kind, "text": text, "at_ms": at_ms, "remedy": remedy, "state": state or (text,), "link": link}


def _keyed(need: dict[str, Any], user: str) -> dict[str, Any]:
    told = {name: value for name, value in need.items() if name != "state"}
    return {**told, "key": digest([user, need["kind"], *need["state"]])[:KEY_DIGITS]}


def _advice(told: Mapping[str, Any], peer: str) -> str:
    """Return a remedy, with who must act where that is the peer alone."""
    remedy = str(told["remedy"])
    return f"{must_act(peer)}: {remedy}" if told["act"] == peer else remedy


def _gateway_needs(store: Store, party: Party, peers: list[dict[str, Any]], now_ms: int) -> Iterator[dict[str, Any]]:
    if old := outdated(store):
        yield _need("gateway_outdated", old.text, now_ms, old.remedy, tab="peers")
    for loss in losses(store):
        yield _need("store_restored", loss.text, loss.at_ms, loss.remedy, tab="tickets")
    seen_ms = max((peer["seen_ms"] for peer in peers), default=0)
    if peers and now_ms - seen_ms > SILENT_MS:
        text = "This party's gateway does not run"
        yield _need("gateway_down", text, seen_ms, "Start it: `fedtasks gateway`", (seen_ms,), tab="peers")
        return
    for part in silent_now(store, party.name):
        remedy = AirflowIncomplete.advice(AirflowIncomplete.among(party.name, ""))
        state = part.part, part.since_ms
        yield _need("airflow_incomplete", part.said(party.name), part.since_ms or now_ms, remedy, state, tab="peers")
    for peer in peers:
        if not peer["connected"]:
            failure = peer["failure"] or {"text": "it has not been heard of yet", "act": "", "remedy": ""}
            text = f"{peer['name']} is not connected: {failure['text']}"
            state = peer["name"], peer["since_ms"]
            yield _need("peer_down", text, peer["since_ms"], _advice(failure, peer["name"]), state, tab="peers")
        elif abs(peer["clock_skew_s"]) > party.max_clock_skew_s:
            off = f"{abs(peer['clock_skew_s']):.0f} s, and {party.max_clock_skew_s:.0f} s are allowed"
            text = f"The clock of {peer['name']} differs by {off}: no run can begin"
            yield _need("clock_skew", text, peer["seen_ms"], ClockSkew.advice(), (peer["name"],), tab="peers")


def _certificate_needs(party: Party, peers: list[dict[str, Any]], now_ms: int) -> Iterator[dict[str, Any]]:
    ends = {
        peer["name"]: (peer["certificate_until_ms"], f"{peer['name']} renews it and sends its card again")
        for peer in peers
    }
    ends[party.name] = own_certificate_until(party), "Renew it: `fedtasks identity renew`"
    for name, (until_ms, remedy) in ends.items():
        if until_ms is not None and until_ms - now_ms < RENEW_MS:
            days = (until_ms - now_ms) // DAY_MS
            text = f"The certificate of {name} " + (f"ends {_in_days(days)}" if until_ms > now_ms else "has ended")
            yield _need("certificate_expiring", text, now_ms, remedy, (name, until_ms, days < 1), tab="peers")


def _ticket_needs(tickets: dict[str, list[dict[str, Any]]], now_ms: int) -> Iterator[dict[str, Any]]:
    for ticket in (*tickets["granted"], *tickets["held"]):
        if ticket["state"] == "accepted" and ticket["expires_ms"] - now_ms < EXPIRES_SOON_MS:
            days = (ticket["expires_ms"] - now_ms) // DAY_MS
            text = f"Ticket {ticket['ticket_id']} with {ticket['peer']} expires {_in_days(days)}"
            remedy = "The granting party issues a new one: `fedtasks ticket issue`"
            yield _need("ticket_expiring", text, now_ms, remedy, (ticket["ticket_id"], days < 1), tab="tickets")
    for ticket in tickets["held"]:
        if ticket["state"] == "issued":
            text = f"{ticket['peer']} offers ticket {ticket['ticket_id']}"
            remedy = "Read what it says, then accept or decline it on the tab Tickets"
            state = (ticket["ticket_id"],)
            yield _need("ticket_offered", text, ticket["valid_from_ms"], remedy, state, tab="tickets")
    for request in tickets["requests"]:
        if request["state"] == "open" and request["asked_by"] == request["peer"]:
            text = f"{request['peer']} asks for a ticket: {request['reason']}"
            remedy = "Grant or decline it on the tab Tickets"
            state = (request["request_id"],)
            yield _need("ticket_request", text, request["at_ms"], remedy, state, tab="tickets")


def _in_days(days: int) -> str:
    return "in less than a day" if days < 1 else "in 1 day" if days == 1 else f"in {days} days"


def _run_needs(store: Store, runs: list[dict[str, Any]], now_ms: int) -> Iterator[dict[str, Any]]:
    asked = {row.run_id: row for row in store.approvals.asked()}
    done_later: set[tuple[str, str]] = set()
    for run in sorted(runs, key=lambda run: (run["opened_ms"], run["number"]), reverse=True):
        place = {"dag_id": run["dag_id"], "dag_run_id": run["dag_run_id"]}
        day = run["pipeline"], run["partition"]
        if run["state"] == "failed" and day not in done_later and now_ms - (run["closed_ms"] or 0) < DAY_MS:
            text = f"{run['run_id']} has failed: {run['code']}"
            state = run["run_id"], run["closed_ms"]
            yield _need("run_failed", text, run["closed_ms"] or 0, _advice(run["status"], run["peer"]), state, **place)
        if run["run_id"] in asked:
            text = f"{run['peer']} asks for {run['run_id']}: {run['reason'] or 'no reason given'}"
            asked_ms = asked[run["run_id"]].asked_ms
            state = run["run_id"], asked_ms
            yield _need("approval", text, asked_ms, "Approve or reject it in the DAG run", state, **place)
        done_later.add(day)


# ------------------------------------------------------------------------------------------------------------- peers
def peer_reports(store: Store, party: Party) -> list[dict[str, Any]]:
    """Return the peers of party.yaml, as the gateway last saw them; of one that it does not know yet, why."""
    seen = {row.name: row for row in store.peers.list()}
    old = outdated(store)
    unknown = {"code": GatewayOutdated.code, "text": old.text, "party": party.name} if old else None
    found = []
    for peer in party.peers:
        row = seen.get(peer.name)
        failure = row.failure if row else unknown
        until_ms = first_end(peer.authority)
        found.append(
            {
                "name": peer.name,
                "address": peer.address or "",
                "connected": row is not None and row.connected,
                "version": row.version if row else "",
                "clock_skew_s": row.clock_skew_s if row else 0.0,
                "failure": failure_report(failure, party.name, peer.name) if failure else None,
                "since_ms": row.since_ms if row else 0,
                "seen_ms": row.seen_ms if row else 0,
                "certificate_until_ms": until_ms,
                "checks": (row.checks or []) if row else [],
                "checked_ms": row.checked_ms if row else None,
            }
        )
    return found


def own_certificate_until(party: Party) -> int | None:
    """Return when the first of this party's certificates ends; None if it cannot be read from here."""
    ends = [first_end(path) for path in (party.gateway.certificate, party.gateway.authority)]
    return min((end for end in ends if end is not None), default=None)


def first_end(path: Path) -> int | None:
    """Return when the first certificate of a file ends; None if it cannot be read from here."""
    try:
        return valid_until(path)
    except ConfigError:
        return None


# -------------------------------------------------------------------------------------------------------------- data
def data_report(store: Store, party: Party) -> dict[str, Any]:
    """Return this party's datasets and those of peers that tickets name, with what has landed of each.

    ``waiting`` are the partitions that another dataset has and this one has not.
    """
    landed: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in store.landings.list():
        n_rows = row.rows if row.party == party.name else None  # a peer does not say how many
        at = {"party": row.party, "partition": row.partition, "at_ms": row.landed_ms, "rows": n_rows}
        landed.setdefault((row.party, row.dataset), []).append(at)
    known = {key: {each["partition"] for each in rows} for key, rows in landed.items()}
    found = [_own_dataset(party.name, dataset) for dataset in party.datasets]
    for ticket, grant in readable(store.tickets.list(granted=False)):
        for scope in grant.datasets:
            shared = {"party": ticket.peer, "name": scope.name}
            if not any(shared.items() <= dataset.items() for dataset in found):
                partitioned = (ticket.peer, scope.name) in landed
                found.append({**shared, "features": list(scope.columns), "label": None, "partitioned": partitioned})
    for dataset in found:
        key = dataset["party"], dataset["name"]
        others = set().union(*(parts for other, parts in known.items() if other != key))
        missing = others - known.get(key, set()) if dataset["partitioned"] else set()
        dataset |= {"landed": landed.get(key, []), "waiting": sorted(missing)}
    return {"datasets": found}


def _own_dataset(party: str, dataset: Dataset) -> dict[str, Any]:
    return {
        "party": party,
        "name": dataset.name,
        "features": list(dataset.features),
        "label": dataset.label is not None,
        "partitioned": dataset.is_partitioned,
    }
