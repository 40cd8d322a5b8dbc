"""How a run stands: who waits for whom, since when, until when, why, and who must act."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtasks.errors import from_code
from fedtasks.store import HalfRow, RunRow


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
        Of a failure, as the registry of errors has them.
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


def status_of(
    run: RunRow,
    own: Sequence[HalfRow],
    peer: Sequence[HalfRow],
    *,
    party: str,
    unreachable_since_ms: int | None = None,
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
    """
    if run.state == "failed":
        return _failed(run, run.failure or {}, party, State.FAILED)
    if run.state == "succeeded":
        return Status(State.DONE, run.peer, since_ms=run.closed_ms or 0)
    current = max(own, key=lambda half: half.since_ms, default=None)
    if current is None:
        return Status(State.OPENED, run.peer, since_ms=run.opened_ms)
    facts: dict[str, Any] = {"task": current.task, "attempt": current.attempt, "since_ms": current.since_ms}
    if current.state == "waiting":
        theirs = next((half for half in peer if half.task == current.task), None)
        why, act = _wait(run, theirs, unreachable_since_ms), run.peer
        return Status(State.WAITING, run.peer, **facts, until_ms=current.until_ms, why=why, act=act)
    if current.state == "failed":
        failed = _failed(run, current.failure or {}, party, State.RETRYING)
        return Status(State.RETRYING, run.peer, **facts, why=failed.why, code=failed.code)
    return Status(State.RUNNING, run.peer, **facts)


def _wait(run: RunRow, theirs: HalfRow | None, unreachable_since_ms: int | None) -> str:
    if unreachable_since_ms is not None:
        return f"{run.peer}'s gateway is unreachable"
    if theirs is None:
        return f"{run.peer}'s half has not begun"
    return f"{run.peer}'s half is {theirs.state} at attempt {theirs.attempt}"


def _failed(run: RunRow, failure: Mapping[str, Any], party: str, state: State) -> Status:
    code, failing = str(failure.get("code", "")), str(failure.get("party") or party)
    error = from_code(code)
    other = party if failing == run.peer else run.peer
    act = {"own": failing, "peer": other, "both": "both"}.get(error.who, error.who)
    return Status(
        state,
        run.peer,
        task=str(failure.get("task", "")),
        since_ms=int(failure.get("at_ms") or run.closed_ms or 0),
        why=str(failure.get("text", "")),
        act=act,
        code=code,
        remedy=error.remedy,
    )
