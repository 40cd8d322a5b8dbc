"""What a party's store says in figures, for those who watch many parties at once: no ids, no words of a peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fedtasks.clock import DAY_MS
from fedtasks.config import Party
from fedtasks.errors import leaves
from fedtasks.names import OPEN_RUN, step_of
from fedtasks.reports.airflow_parts import silent_now
from fedtasks.reports.dag_runs import pace_of
from fedtasks.reports.joins import stream_reports
from fedtasks.reports.party import first_end, own_certificate_until
from fedtasks.reports.runs import sides, status_beside
from fedtasks.reports.status import HALF_BEHIND, HALF_NOT_BEGUN, NO_PROGRESS, opening_status
from fedtasks.reports.tickets import budgets, readable, ticket_state
from fedtasks.store import HalfRow, RunRow, Store

OTHER = "OTHER"
"""Stands for a code that is none of this release's: a peer chooses the codes of its failures."""

MAX_TICKETS = 200
"""Of so many tickets in force, the newest, it is told what is left."""


@dataclass(frozen=True)
class Place:
    """Where in which pipeline something is, and with which peer.

    Parameters
    ----------
    pipeline, peer, task
        The task by its step, whatever its stages and shards.
    """

    pipeline: str
    peer: str
    task: str


@dataclass(frozen=True)
class Wait:
    """What holds up runs.

    Parameters
    ----------
    place
        Where they are.
    cause
        See `fedtasks.reports.status.Status`.
    """

    place: Place
    cause: str


@dataclass(frozen=True)
class Waits:
    """The runs that something holds up.

    Parameters
    ----------
    runs
        How many.
    since_ms
        Since when the first of them.
    """

    runs: int
    since_ms: int


@dataclass(frozen=True)
class RunFigures:
    """How runs stand.

    Parameters
    ----------
    going_on
        State (the words of `fedtasks.reports.status.State`) → how many runs that go on.
    ended
        State and code (empty without a failure) → how many runs that have ended within 24 hours.
    waits
        What holds up which runs; DAG runs that have yet to come to a run too, at the task ``open_run``.
    rows_per_s
        Place → rows that this party's halves pass each second there, together.
    untold
        Peer → how many runs it has yet to be told news of.
    """

    going_on: dict[str, int]
    ended: dict[tuple[str, str], int]
    waits: dict[Wait, Waits]
    rows_per_s: dict[Place, float]
    untold: dict[str, int]


@dataclass(frozen=True)
class TicketFigures:
    """A ticket in force.

    Parameters
    ----------
    ticket_id, peer
        Which one.
    granted
        Whether this party has granted it.
    expires_ms
        When it ends.
    left
        Clause → how much of it is left, of clauses that count.
    """

    ticket_id: str
    peer: str
    granted: bool
    expires_ms: int
    left: dict[str, int]


@dataclass(frozen=True)
class StreamFigures:
    """A stream that is joined with a peer.

    Parameters
    ----------
    stream, peer
        Which one.
    committed_ms
        When the last commit was made.
    lag_s
        How long after its event time a row was committed, on average; None before any was.
    watermark_ms
        Up to which event time all is decided; None before a half has said.
    """

    stream: str
    peer: str
    committed_ms: int
    lag_s: float | None
    watermark_ms: float | None


@dataclass(frozen=True)
class SlowFigures:
    """What changes slowly and costs more to find out.

    Parameters
    ----------
    tickets
        Those in force.
    streams
        Those that are joined.
    certificates
        Party → when the first of its certificates ends; without those that cannot be read.
    """

    tickets: tuple[TicketFigures, ...]
    streams: tuple[StreamFigures, ...]
    certificates: dict[str, int]


def run_figures(store: Store, party: str, now_ms: int) -> RunFigures:
    """Return how runs stand.

    Notes
    -----
    Cost: eight queries, over the runs that go on and those of the last 24 hours, however many there were before.
    """
    runs = store.runs.active()
    halves = store.halves.of_runs([run.run_id for run in runs])
    seen, silent = {row.name: row for row in store.peers.list()}, silent_now(store, party)
    states: Counter[str] = Counter()
    held: list[tuple[Wait, int]] = []
    paces: Counter[Place] = Counter()
    for run in runs:
        own, peer = sides(halves[run.run_id])
        status = status_beside(run, own, peer, party, silent, seen.get(run.peer))
        states[status.state.value] += 1
        if status.cause:
            place = Place(run.pipeline, run.peer, step_of(status.task) or OPEN_RUN)
            held.append((Wait(place, known_code(status.cause)), status.since_ms))
        for place, rate in _paces(run, own, now_ms):
            paces[place] += rate  # type: ignore[assignment]  # a counter adds up whatever it is given
    held += _openings(store, party)
    return RunFigures(
        going_on=dict(states),
        ended=_ended(store, now_ms),
        waits=_together(held),
        rows_per_s=dict(paces),
        untold=store.runs.total_unacked(),
    )


def slow_figures(store: Store, party: Party, now_ms: int) -> SlowFigures:
    """Return what changes slowly.

    Notes
    -----
    Cost: three queries for each of at most `MAX_TICKETS` tickets, and those of `stream_reports`.
    """
    ends = {peer.name: first_end(peer.authority) for peer in party.peers}
    ends[party.name] = own_certificate_until(party)
    return SlowFigures(
        tickets=tuple(_tickets(store, now_ms)),
        streams=tuple(
            StreamFigures(each["stream"], each["peer"], each["at_ms"], each["lag_s"], each["watermark_ms"])
            for each in stream_reports(store)
        ),
        certificates={name: until_ms for name, until_ms in ends.items() if until_ms is not None},
    )


def known_code(code: str) -> str:
    """Return a code as it may name a figure: one that this release knows, else `OTHER`."""
    return code if code in _codes() else OTHER


def _codes() -> frozenset[str]:
    """Return all causes; the registry is complete once it is imported, and small."""
    return frozenset({leaf.code for leaf in leaves()} | {"", HALF_BEHIND, HALF_NOT_BEGUN, NO_PROGRESS})


def _ended(store: Store, now_ms: int) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for (state, code), n_runs in store.runs.total_ended(now_ms - DAY_MS).items():
        found[state, known_code(code)] += n_runs
    return dict(found)


def _paces(run: RunRow, own: list[HalfRow], now_ms: int) -> Iterator[tuple[Place, float]]:
    for half in own:
        rate = pace_of(half, half.progress or {}, now_ms)["rate_per_s"]
        if rate is not None:
            yield Place(run.pipeline, run.peer, step_of(half.task)), rate


def _openings(store: Store, party: str) -> Iterator[tuple[Wait, int]]:
    """Yield what holds up DAG runs that have yet to come to a run."""
    for row in store.refusals.list():
        status = opening_status(row, party)
        if status is not None:
            yield Wait(Place(row.pipeline, row.peer, OPEN_RUN), known_code(status.cause)), status.since_ms


def _together(held: list[tuple[Wait, int]]) -> dict[Wait, Waits]:
    found: dict[Wait, Waits] = {}
    for wait, since_ms in held:
        known = found.get(wait, Waits(0, since_ms))
        found[wait] = Waits(known.runs + 1, min(known.since_ms, since_ms))
    return found


def _tickets(store: Store, now_ms: int) -> Iterator[TicketFigures]:
    in_force = [each for each in readable(store.tickets.list()) if ticket_state(*each, now_ms) == "accepted"]
    for row, grant in in_force[-MAX_TICKETS:]:
        left = {
            str(limit["clause"]): max(0, int(limit["limit"]) - int(limit["used"]))
            for limit in budgets(store, row, grant, now_ms)
            if limit["used"] is not None
        }
        yield TicketFigures(row.ticket_id, row.peer, row.granted, grant.expires_s * 1000, left)
