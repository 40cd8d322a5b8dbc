"""How a run stands: who waits for whom, since when, until when, why, and who must act."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtasks.clock import utc
from fedtasks.errors import from_code
from fedtasks.names import APPROVE, DATA
from fedtasks.store import HalfRow, RefusalRow, RunRow


class State(enum.Enum):
    """What a run is at; the value is the word that people read."""

    OPENED = "opened"
    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    DONE = "done"
    FAILED = "failed"


ICONS = {
    State.OPENED: "▶",
    State.WAITING: "⏳",
    State.RUNNING: "▶",
    State.RETRYING: "🔁",
    State.DONE: "✅",
    State.FAILED: "❌",
}


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Parameters
    ----------
    state
        What it is at.
    peer
        The other party.
    task
        The half that it is about: the newest of this side, or the one that failed.
    attempt
        Which try of it.
    since_ms, until_ms
        When that began, and when a wait ends (0 if nothing waits).
    why
        The reason of a wait, a failure or a retry; plain text, part of which may be the peer's.
    act
        The party that must act, if somebody must; ``both`` if either can.
    code, remedy
        Of a failure or an obstacle, as the registry of errors has them.
    failing
        The party whose half failed.
    """

    state: State
    peer: str
    task: str = ""
    attempt: int = 0
    since_ms: int = 0
    until_ms: int = 0
    why: str = ""
    act: str = ""
    code: str = ""
    remedy: str = ""
    failing: str = ""


def sentence(status: Status) -> str:
    """Say in one line of plain text how a run stands; part of it may be the peer's words."""
    since, until = clock_time(status.since_ms), clock_time(status.until_ms, beside_ms=status.since_ms)
    match status.state:
        case State.OPENED:
            parts = [f"Opened with {status.peer}", f"at {since} UTC"]
        case State.WAITING:
            wait = f"since {since}", f"gives up {until} UTC"
            parts = [f"Waiting for {status.act}", status.task, status.why, status.code, *wait]
        case State.RUNNING:
            parts = [f"Running with {status.peer}", status.task, f"attempt {status.attempt}", f"since {since} UTC"]
        case State.RETRYING:
            parts = [f"Tried again with {status.peer}", status.task, status.code, status.why]
        case State.DONE:
            parts = [f"Done with {status.peer}", status.why, f"at {since} UTC"]
        case State.FAILED:
            parts = [f"Failed at {status.failing}", status.task, status.code, status.why, status.remedy]
    return f"{ICONS[status.state]} {_joined(*parts, act=status.act)}"


def refusal_sentence(refusal: RefusalRow, party: str) -> str:
    """Say in one line of plain text why a DAG run came to no run; `party` is this one."""
    told = _failed(refusal.peer, refusal.failure, party, State.FAILED)
    return f"⛔ {_joined(f'Refused by {told.failing}', told.code, told.why, told.remedy, act=told.act)}"


def _joined(*parts: str, act: str) -> str:
    return " · ".join(part for part in (*parts, f"to act: {act}" if act else "") if part)


def clock_time(at_ms: int, *, beside_ms: int | None = None) -> str:
    """Show an instant as a UTC time of day, with the day where it is another than that of `beside_ms`."""
    day = "%Y-%m-%d"
    same_day = beside_ms is None or utc(at_ms, day) == utc(beside_ms, day)
    return utc(at_ms, "%H:%M:%S") if same_day else utc(at_ms)


def status_of(
    run: RunRow,
    own: Sequence[HalfRow],
    peer: Sequence[HalfRow],
    *,
    party: str,
    unreachable_since_ms: int | None = None,
    obstacle: Mapping[str, Any] | None = None,
) -> Status:
    """Say how a run stands.

    Parameters
    ----------
    run
        The run.
    own, peer
        Both sides' halves.
    party
        This party's name.
    unreachable_since_ms
        Since when the peer's gateway has not been reachable, None while it is.
    obstacle
        What a preflight has found to keep the peer's half from beginning: ``code`` and ``text`` of a check.
    """
    if run.state == "failed":
        return _failed(run.peer, run.failure or {}, party, State.FAILED)
    if run.state == "succeeded":
        return Status(State.DONE, run.peer, since_ms=run.closed_ms or 0, why=_publication(own))
    current = max(own, key=lambda half: half.since_ms, default=None)
    if current is None:
        return Status(State.OPENED, run.peer, since_ms=run.opened_ms)
    facts: dict[str, Any] = {"task": current.task, "attempt": current.attempt, "since_ms": current.since_ms}
    theirs = next((half for half in peer if half.task == current.task), None)
    if _awaits_data(current, theirs):
        wait = dict(current.progress or {})
        why = f"{run.partition} has not landed there"
        return Status(State.WAITING, run.peer, **facts, until_ms=wait["until_ms"], why=why, act=wait["for"])
    if current.state == "waiting":
        facts["until_ms"] = current.until_ms
        if current.task == APPROVE and not run.initiated:
            return Status(State.WAITING, run.peer, **facts, why="a person here has yet to approve the run", act=party)
        if theirs is None and unreachable_since_ms is None and obstacle is not None:
            why, code = str(obstacle["text"]), str(obstacle["code"])
            remedy = from_code(code).remedy
            return Status(State.WAITING, run.peer, **facts, why=why, act=run.peer, code=code, remedy=remedy)
        why = _wait(run, theirs, unreachable_since_ms)
        return Status(State.WAITING, run.peer, **facts, why=why, act=run.peer)
    if current.state == "failed":
        failed = _failed(run.peer, current.failure or {}, party, State.RETRYING)
        return Status(State.RETRYING, run.peer, **facts, why=failed.why, code=failed.code)
    return Status(State.RUNNING, run.peer, **facts)


def _awaits_data(own: HalfRow, theirs: HalfRow | None) -> bool:
    """Whether one of the two has yet to find its partition: a half that has succeeded has found its own."""
    is_there = own.state == "succeeded" and theirs is not None and theirs.state == "succeeded"
    return own.task == DATA and own.progress is not None and own.state in ("running", "succeeded") and not is_there


def counts_of(halves: Sequence[HalfRow]) -> dict[str, int]:
    """Return the counts with which halves have ended, of equal names the last."""
    found: dict[str, int] = {}
    for half in halves:
        found |= (half.outcome or {}).get("counts", {})
    return found


def _publication(own: Sequence[HalfRow]) -> str:
    """Say which version of a model is in use after a run that was to publish one."""
    for half in own:
        found = (half.outcome or {}).get("values", {})
        if found.keys() >= {"published", "model", "version"}:
            version = f"version {found['version']} of {found['model']}"
            why = "nobody was new" if counts_of(own).get("rows_train") == 0 else "the new one is worse"
            return f"{version} is in use" if found["published"] else f"kept {version}: {why}"
    return ""


def _wait(run: RunRow, theirs: HalfRow | None, unreachable_since_ms: int | None) -> str:
    if unreachable_since_ms is not None:
        return f"{run.peer}'s gateway is unreachable since {clock_time(unreachable_since_ms)} UTC"
    if theirs is None:
        return f"{run.peer}'s half has not begun"
    if theirs.task == APPROVE and theirs.state == "waiting":
        return "a person there has yet to approve the run"
    return f"{run.peer}'s half is {theirs.state} at attempt {theirs.attempt}"


def _failed(peer: str, failure: Mapping[str, Any], party: str, state: State) -> Status:
    code, failing = str(failure.get("code", "")), str(failure.get("party") or party)
    error = from_code(code)
    other = party if failing == peer else peer
    act = {"own": failing, "peer": other, "both": "both"}.get(error.who, error.who)
    return Status(
        state,
        peer,
        task=str(failure.get("task", "")),
        since_ms=int(failure.get("at_ms") or 0),
        why=str(failure.get("text", "")),
        act=act,
        code=code,
        remedy=error.remedy,
        failing=failing,
    )
