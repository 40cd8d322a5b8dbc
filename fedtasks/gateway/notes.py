"""The sentence at the top of a DAG run's page: who waits for whom, since when, until when, or how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fedtasks.errors import FedtasksError, from_code
from fedtasks.gateway.messages import plain_text
from fedtasks.store import HalfRow, RunRow

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~])")


def escape(text: str) -> str:
    """Make a text from elsewhere harmless inside Markdown."""
    return _MARKDOWN.sub(r"\\\1", plain_text(text))


def clock_time(at_ms: int) -> str:
    """Show an instant as a UTC time of day."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S")


def sentence(run: RunRow, own: Sequence[HalfRow], peer: Mapping[str, HalfRow], unreachable_since_ms: int | None) -> str:
    """Say in one line of Markdown how a run stands.

    Parameters
    ----------
    run
        The run.
    own
        This side's halves.
    peer
        Task → the peer's half.
    unreachable_since_ms
        Since when the peer's gateway has not been reachable, None while it is.
    """
    name = f"`{run.run_id}`"
    if run.state == "failed":
        return f"❌ {name} failed · {_failure(run.failure or {})}"
    if run.state == "succeeded":
        return f"✅ {name} done with {run.peer}{_counts(own)} · receipts agree"
    current = max(own, key=lambda half: half.since_ms, default=None)
    if current is None:
        return f"▶ {name} opened with {run.peer} at {clock_time(run.opened_ms)} UTC"
    place = f"{run.peer} · {current.task}"
    if current.state == "waiting":
        wait = _wait(run, current, peer.get(current.task), unreachable_since_ms)
        return f"⏳ Waiting for {place} · {wait} · {name}"
    if current.state == "running":
        since = clock_time(current.since_ms)
        return f"▶ Running with {place} · attempt {current.attempt} · since {since} UTC · {name}"
    if current.state == "failed":
        code = (current.failure or {}).get("code", "")
        return f"🔁 {current.task} failed ({code}) and is tried again · {name}"
    return f"▶ {current.task} done with {run.peer} at {clock_time(current.since_ms)} UTC · {name}"


def refused(error: FedtasksError) -> str:
    """Say in one line of Markdown why a run could not be opened."""
    return f"⛔ Refused · {error.code} · {escape(error.detail or error.public)}. {error.remedy}"


def not_needed(run_id: str, peer: str, *, done: bool) -> str:
    """Say that a DAG run has nothing to do."""
    state = "was done before" if done else "is running in another DAG run"
    return f"✅ Nothing to do: `{run_id}` with {peer} {state}"


def _wait(run: RunRow, half: HalfRow, theirs: HalfRow | None, unreachable_since_ms: int | None) -> str:
    if unreachable_since_ms is not None:
        why = f"{run.peer}'s gateway is unreachable since {clock_time(unreachable_since_ms)} UTC"
    elif theirs is None:
        why = f"{run.peer}'s half has not begun"
    else:
        why = f"{run.peer}'s half is {theirs.state} at attempt {theirs.attempt}"
    return f"{why} · since {clock_time(half.since_ms)} · gives up {clock_time(half.until_ms)} UTC"


def _failure(failure: Mapping[str, Any]) -> str:
    place = " · ".join(part for part in (failure.get("party"), failure.get("task")) if part)
    error = from_code(str(failure.get("code", "")))
    return f"{failure.get('code')} · {escape(place)} · {escape(str(failure.get('text', '')))}. {error.remedy}"


def _counts(own: Sequence[HalfRow]) -> str:
    shown = {}
    for half in own:
        shown.update((half.outcome or {}).get("counts", {}))
    text = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in shown.items())
    return f" · {text}" if text else ""
