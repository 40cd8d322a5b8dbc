"""How a run stands: who waits for whom, since when, until when, why, and who must act."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedtasks.clock import utc
from fedtasks.errors import (
    AirflowIncomplete,
    ApprovalPending,
    DataNotLanded,
    PeerRestarted,
    PeerUnreachable,
    from_code,
)
from fedtasks.names import APPROVE, DATA
from fedtasks.reports.airflow_parts import Silent, said
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


HALF_NOT_BEGUN, HALF_BEHIND, NO_PROGRESS = "HALF_NOT_BEGUN", "HALF_BEHIND", "NO_PROGRESS"
"""What holds up a run where no error does: the other half is not there yet, has not reached this attempt, or one of the
two stands still."""


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
        The reason of a wait, a failure or a retry, or whose half stands still; plain text, part of which may be the
        peer's.
    act
        Who must act, if somebody must: a party's name, or both parties'.
    code, remedy
        Of a failure or an obstacle, as the registry of errors has them; the remedy speaks to whoever must act.
    failing
        The party whose half failed.
    cause
        What holds up a run that goes on, for programs: a code of the registry of errors, or `HALF_NOT_BEGUN`,
        `HALF_BEHIND` or `NO_PROGRESS`. Empty while nothing does.
    removed_ms
        When this party has removed the run's files, 0 while it keeps them.
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
    cause: str = ""
    removed_ms: int = 0


def sentence(status: Status) -> str:
    """Say in one line of plain text how a run stands; part of it may be the peer's words.

    What a page cuts off is at the end: first who must act, then what is the matter, times last.
    """
    return f"{ICONS[status.state]} {words_of(status)}"


def words_of(status: Status, *more: str) -> str:
    """Return the sentence without its icon; `more` of it comes before the times."""
    since, until = clock_time(status.since_ms), clock_time(status.until_ms, beside_ms=status.since_ms)
    at = f"at {since} UTC" if status.since_ms else ""
    match status.state:
        case State.OPENED:
            parts, times = [f"Opened with {status.peer}"], [f"at {since} UTC"]
        case State.WAITING:
            parts = [f"Waiting for {status.act or status.peer}", status.task, status.why, status.code, status.remedy]
            times = [f"since {since}", f"gives up {until} UTC"] if status.until_ms else [f"since {since} UTC"]
        case State.RUNNING:
            parts = [f"Running with {status.peer}", status.why, status.task, f"attempt {status.attempt}"]
            parts += [status.code, status.remedy]
            times = [f"since {since} UTC"]
        case State.RETRYING:
            parts, times = [f"Tried again with {status.peer}", status.task, status.code, status.why], []
        case State.DONE:
            parts, times = [f"Done with {status.peer}", status.why], [at]
        case State.FAILED:
            parts = [must_act(status.act), f"Failed at {status.failing}", status.task, status.code]
            parts, times = [*parts, status.why, status.remedy], [at]
    if status.removed_ms:
        parts.append(f"its files were removed on {utc(status.removed_ms, '%Y-%m-%d')}")
    return _joined(*parts, *more, *times)


REFUSED = "⛔"
"""The icon of a DAG run that came to no run."""


def refusal_sentence(refusal: RefusalRow, party: str) -> str:
    """Say in one line of plain text why a DAG run came to no run, or to none yet; `party` is this one."""
    return f"{refusal_icon(refusal)} {refusal_words(refusal, party)}"


def refusal_icon(refusal: RefusalRow) -> str:
    """Return the icon of that sentence."""
    return REFUSED if waits_of(refusal) is None else ICONS[State.WAITING]


def refusal_words(refusal: RefusalRow, party: str) -> str:
    """Return that sentence without its icon."""
    waiting = opening_status(refusal, party)
    if waiting is not None:
        return words_of(waiting)
    told = explained(refusal.failure, party, refusal.peer, holder=party)
    refuser = refusal.failure.get("refuser", told.failing)
    return _joined(must_act(told.act), f"Refused by {refuser}", told.code, told.why, told.remedy)


def waits_of(refusal: RefusalRow) -> dict[str, Any] | None:
    """Return what a DAG run that came to no run yet waits for, as the gateway keeps it; None if it was refused."""
    waits = refusal.failure.get("waits")
    return dict(waits) if isinstance(waits, Mapping) else None


def opening_status(refusal: RefusalRow, party: str) -> Status | None:
    """Say for what a DAG run waits that asks again for its run; None if it was refused. `party` is this one."""
    waits = waits_of(refusal)
    if waits is None:
        return None
    peer, told = refusal.peer, explained(refusal.failure, party, refusal.peer, holder=party)
    facts = {"since_ms": waits["since_ms"], "until_ms": waits["until_ms"], "code": told.code, "cause": told.code}
    if "unreachable_since_ms" in waits:
        why = f"{peer}'s gateway is unreachable since {clock_time(waits['unreachable_since_ms'])} UTC"
        return Status(State.WAITING, peer, **facts, why=why, act=peer, remedy=told.remedy)
    if "ticket" in waits:
        held = " and ".join(waits["runs"])
        by = f" by {held}" if held else ""
        why = f"ticket {waits['ticket']} is in use{by}; it is asked for again as soon as it has room"
        return Status(State.WAITING, peer, **facts, why=why)
    return Status(State.WAITING, peer, **facts, why=told.why, act=told.act, remedy=told.remedy)


def must_act(act: str) -> str:
    """Say who must act; nothing where nobody must."""
    return f"{act} must act" if act else ""


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))


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
    silent: Sequence[Silent] = (),
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
    silent
        The parts of this party's own Airflow that do not run.
    """
    holder = holder_of(run, party)
    if run.removed_ms is not None:
        kept = status_of(replace(run, removed_ms=None), own, peer, party=party)
        return replace(kept, act="", remedy="", removed_ms=run.removed_ms)  # nothing lets it go on any more
    if run.state == "failed":
        return explained(run.failure or {}, party, run.peer, holder=holder)
    if run.state == "succeeded":
        return Status(State.DONE, run.peer, since_ms=run.closed_ms or 0, why=_publication(own))
    current = max(own, key=lambda half: half.since_ms, default=None)
    if silent:
        return _without_airflow(run, current, silent, party)
    if current is None:
        return Status(State.OPENED, run.peer, since_ms=run.opened_ms)
    facts: dict[str, Any] = {"task": current.task, "attempt": current.attempt, "since_ms": current.since_ms}
    theirs = next((half for half in peer if half.task == current.task), None)
    if _awaits_data(current, theirs):
        wait = dict(current.progress or {})
        why = f"{run.partition} has not landed at {wait['for']}"
        facts |= {"until_ms": wait["until_ms"], "cause": DataNotLanded.code}
        return Status(State.WAITING, run.peer, **facts, why=why, act=wait["for"])
    if current.state == "waiting":
        facts["until_ms"] = current.until_ms
        if current.task == APPROVE and not run.initiated:
            facts["cause"] = ApprovalPending.code
            return Status(State.WAITING, run.peer, **facts, why=_unapproved(party), act=party)
        if is_behind(theirs, current) and unreachable_since_ms is None and obstacle is not None:
            return _kept_by(obstacle, run, party, facts)
        why, cause = _wait(run, theirs, unreachable_since_ms)
        return Status(State.WAITING, run.peer, **facts, why=why, act=run.peer, cause=cause)
    if current.state == "failed":
        failed = explained(_first_failure(current, theirs), party, run.peer, holder=holder)
        why = _joined(f"{failed.failing}'s half", failed.why) if failed.failing == run.peer else failed.why
        return Status(State.RETRYING, run.peer, **facts, why=why, code=failed.code, cause=failed.code)
    if current.state == "running" and is_behind(theirs, current) and obstacle is not None:
        return _kept_by(obstacle, run, party, facts)
    why = _standstill(current, theirs, party, run.peer)
    return Status(State.RUNNING, run.peer, **facts, why=why, cause=NO_PROGRESS if why else "")


def is_behind(theirs: HalfRow | None, own: HalfRow) -> bool:
    """Return whether the other half of a task has not begun the attempt that this side's half is at, or works at."""
    if theirs is None or theirs.attempt < own.attempt or theirs.state == "failed":
        return True
    return theirs.state == "waiting" and own.state == "running"


def _kept_by(obstacle: Mapping[str, Any], run: RunRow, party: str, facts: Mapping[str, Any]) -> Status:
    """Say that the peer's half is kept from beginning by what a preflight has found."""
    why, code = str(obstacle["text"]), str(obstacle["code"])
    error = from_code(code)
    who = error.among(run.peer, party, holder=holder_of(run, party))
    remedy, act = error.advice(who), who.acting(error.who) or run.peer
    return Status(State.WAITING, run.peer, **facts, why=why, act=act, code=code, remedy=remedy, cause=code)


def _without_airflow(run: RunRow, current: HalfRow | None, silent: Sequence[Silent], party: str) -> Status:
    """Say that this party's own Airflow does not run in full, which keeps whatever does not run already."""
    facts: dict[str, Any] = {"since_ms": run.opened_ms}
    if current is not None:
        facts = {"task": current.task, "attempt": current.attempt, "since_ms": current.since_ms}
    is_running = current is not None and current.state == "running"
    error = AirflowIncomplete
    remedy = error.advice(error.among(party, run.peer))
    until_ms = current.until_ms if current is not None and current.state == "waiting" else 0
    why, state = said(silent, party), State.RUNNING if is_running else State.WAITING
    facts |= {"until_ms": until_ms, "code": error.code, "cause": error.code}
    return Status(state, run.peer, **facts, why=why, act=party, remedy=remedy)


def holder_of(run: RunRow, party: str) -> str:
    """Return who holds the ticket of a run: whoever has asked for it; `party` is this one."""
    return party if run.initiated else run.peer


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
            why = "all that training added was worse" if found.get("kept") else why
            unmeasured = "" if found.get("compared", True) else ", without a comparison: the one before lacks a feature"
            return f"{version} is in use{unmeasured}" if found["published"] else f"kept {version}: {why}"
    return ""


def _wait(run: RunRow, theirs: HalfRow | None, unreachable_since_ms: int | None) -> tuple[str, str]:
    """Say what a half waits for, and its cause."""
    if unreachable_since_ms is not None:
        since = clock_time(unreachable_since_ms)
        return f"{run.peer}'s gateway is unreachable since {since} UTC", PeerUnreachable.code
    if theirs is None:
        return f"{run.peer}'s half has not begun", HALF_NOT_BEGUN
    if theirs.task == APPROVE and theirs.state == "waiting":
        return _unapproved(run.peer), ApprovalPending.code
    said = f"{run.peer}'s half is {theirs.state} at attempt {theirs.attempt}"
    failure = theirs.failure or {}
    if theirs.state != "failed" or not failure:
        return said, HALF_BEHIND
    code = str(failure.get("code", ""))
    return _joined(said, f"{code}, {failure.get('text', '')}"), code or HALF_BEHIND


def _first_failure(own: HalfRow, theirs: HalfRow | None) -> Mapping[str, Any]:
    """Return why an attempt has failed: what made the other half fail, where this one only followed it."""
    failure = own.failure or {}
    has_followed = failure.get("code") == PeerRestarted.code
    if has_followed and theirs is not None and theirs.attempt == own.attempt and theirs.failure:
        return theirs.failure
    return failure


def _standstill(own: HalfRow, theirs: HalfRow | None, party: str, peer: str) -> str:
    """Say whose half has made no progress for minutes, and since when; nothing while both move."""
    if theirs is None or theirs.attempt != own.attempt or theirs.state != "running":
        theirs_ms, they_wait = 0, False
    else:
        theirs_ms, they_wait = theirs.quiet_since_ms, theirs.awaits_peer
    own_ms, own_waits = own.quiet_since_ms, own.awaits_peer
    if own_ms and not own_waits:
        return f"no progress of {party}'s half since {clock_time(own_ms)}"
    if theirs_ms and not they_wait:
        return f"no progress of {peer}'s half since {clock_time(theirs_ms)}"
    if own_ms and theirs_ms:
        return f"no progress since {clock_time(max(own_ms, theirs_ms))}: each half waits for the other"
    return f"nothing has come from {peer}'s half since {clock_time(own_ms)}" if own_ms else ""


def advice_of_check(code: str, name: str, party: str, peer: str) -> str:
    """Return who must act and the remedy for what a preflight has found; a check's name begins with whose it is."""
    error = from_code(code)
    at = peer if name.startswith(f"{peer}: ") else party
    parties = error.among(at, party if at == peer else peer)
    act = parties.acting(error.who)
    return f"{act}: {error.advice(parties)}" if act else error.advice(parties)


def _unapproved(grantor: str) -> str:
    return f"a person of {grantor} has yet to approve the run"


def explained(failure: Mapping[str, Any], party: str, peer: str, *, holder: str = "") -> Status:
    """Return a stored failure as a status: where it came up, why, who must act, and what they can do.

    Parameters
    ----------
    failure
        As the store has it. What has made the peer's half fail (``cause``) says who must act; somebody of this party
        who ended the run (``by``) is named to this party alone.
    party, peer
        This party and the other one.
    holder
        Who holds the ticket of the run in question.
    """
    code, failing = str(failure.get("code", "")), str(failure.get("party") or party)
    error = from_code(str(failure.get("cause") or code))
    parties = error.among(failing, party if failing == peer else peer, holder=holder)
    by = f"by {failure['by']} in {party}'s Airflow" if failure.get("by") else ""
    return Status(
        State.FAILED,
        peer,
        task=str(failure.get("task", "")),
        since_ms=int(failure.get("at_ms") or 0),
        why=_joined(str(failure.get("text", "")), by),
        act=parties.acting(error.who),
        code=code,
        remedy=error.advice(parties),
        failing=failing,
    )
