"""What a terminal shows of a run: how it stands, both sides task by task, what left the house, and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from fedtasks.cli.output import cell, console, empty_table, moment, print_json, say, size
from fedtasks.errors import StoreUnavailable
from fedtasks.reports.joins import run_joins_report
from fedtasks.reports.runs import run_report
from fedtasks.reports.status import clock_time
from fedtasks.store import Store

LOOK_EVERY_S = 0.5
PATIENCE_S = 120.0
"""How long a store that cannot be reached is waited for."""

MOST_IMPORTANT = 10
"""How many features are told of."""

_OF_JOIN = {
    "Rows joined": "joined",
    "Joined by correction": "corrected",
    "Without a counterpart": "unmatched",
    "Late, kept": "late",
    "Too late, left out": "too_late",
    "Duplicates, left out": "duplicates",
    "Without id or time, left out": "rejected",
}
_SIGNS = {"waiting": "⏳", "running": "▶", "succeeded": "✔", "failed": "✘"}
_ASKED = ("place", "value", "clause")
_FACTS = {"Ticket": "ticket_id", "DAG run": "dag_run_id", "Reason": "reason"}


def follow(store: Store, party: str, run_id: str, *, as_json: bool) -> int:
    """Show a run until it has ended, and return the exit code that says how.

    A terminal sees both sides move; anything else gets a line for each change: JSON, or the status sentence.

    Raises
    ------
    RunUnknown
        Nobody opened it.
    StoreUnavailable
        The store has not answered for `PATIENCE_S`.
    """
    with _screen(as_json) as show:
        for report in changes(store, party, run_id):
            show(report)
    return 0 if report["state"] == "succeeded" else 1


@contextmanager
def _screen(as_json: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    terminal, said = console(), ""

    def tell(report: Mapping[str, Any]) -> None:
        nonlocal said
        if said != report["status"]["sentence"]:
            said = report["status"]["sentence"]
            say(said)

    if as_json:
        yield lambda report: print_json(report, indent=None)
    elif terminal.is_terminal:
        with Live(console=terminal, auto_refresh=False) as live:
            yield lambda report: live.update(run_view(report), refresh=True)
    else:
        yield tell


def changes(store: Store, party: str, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield a run's report now and whenever it has changed, until the run has ended."""
    seen = run_report(store, party, run_id)
    yield with_joins(store, seen)
    answered = time.monotonic()
    while seen["state"] == "running":
        time.sleep(LOOK_EVERY_S)
        try:
            report = run_report(store, party, run_id)
        except StoreUnavailable:
            if time.monotonic() > answered + PATIENCE_S:
                raise
            continue
        answered = time.monotonic()
        if report != seen:
            seen = report
            yield with_joins(store, seen)


def with_joins(store: Store, report: dict[str, Any]) -> dict[str, Any]:
    """Add to a run's report what it has joined in all, which takes longer than the rest."""
    if not report["joins"]:
        return report
    joins = run_joins_report(store, report["run_id"])["joins"]
    return {**report, "joins": [{name: each[name] for name in each if name != "windows"} for each in joins]}


def run_view(report: Mapping[str, Any]) -> RenderableType:
    """Return a run as `fedtasks.reports.runs.run_report` has it, ready to print."""
    return Group(*_parts(report))


def _parts(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    head = cell(f"{report['run_id']}  {report['initiator']} → {report['responder']}")
    head.stylize("bold")
    yield head
    yield cell(report["status"]["sentence"])
    facts = cell(" · ".join(_facts(report)))
    facts.stylize("dim")
    yield facts
    if report["approval"]:
        yield cell(_approval(report["approval"]))
        yield _table(["Asked for", "", "Bounded by"], ([line[key] for key in _ASKED] for line in report["asked"]))
    yield _lanes(report)
    if report["counts"]:
        yield _table(["People and rows", ""], report["counts"].items())
    yield cell(f"Sent {size(report['bytes_sent'])}, received {size(report['bytes_received'])}")
    if report["ledger"]:
        columns = ["Left the house", "Task", f"{report['peer']} learns", "Rows", "Size"]
        yield _table(columns, map(_ledger_line, report["ledger"]))
    if report["metrics"]:
        yield _table(["Metric", "Last value"], report["metrics"].items())
    for joined in report["joins"]:
        yield join_table(joined)
    if breakdown := report["breakdown"]:
        if "groups" in breakdown:
            yield _groups(breakdown["groups"])
        if "classes" in breakdown:
            yield _confusion(breakdown["classes"], breakdown["confusion"])
    if report["leak"]:
        yield cell(f"⚠ {report['leak']}")
    if report["rebuilt"]:
        yield cell(f"⚠ {report['rebuilt']}")
    for remark in report["remarks"]:
        yield cell(f"⚠ {remark}")
    if report["importance"]:
        yield cell(_importance(report["importance"]))
    if report["rights"]:
        rows = [(right["what"], "✔ yes" if right["may"] else "✘ no", _clause(right)) for right in report["rights"]]
        yield _table(["Results", "May be seen here", "Because"], rows)
    yield cell(_receipts(report["receipts"], report["peer"]))


def join_table(joined: Mapping[str, Any]) -> Table:
    """Show what became of this party's rows of a stream, as `fedtasks.reports.joins` has it."""
    facts = [(title, shown) for title, shown in join_facts(joined).items() if shown]
    return _table([f"Stream {joined['stream']} with {joined['peer']}", ""], facts)


def join_facts(joined: Mapping[str, Any]) -> dict[str, str]:
    """Say what became of rows and how it goes, title by title; empty for what is not known."""
    counted = {title: f"{joined[key]:,}" for title, key in _OF_JOIN.items()}
    offset_ms, lag_s, rate = joined["clock_offset_ms"], joined["lag_s"], joined["join_rate"]
    return {
        "Join rate": "nothing is decided yet" if rate is None else f"{100 * rate:.1f} %",
        **counted,
        "Lag, on average": "" if lag_s is None else f"{lag_s:,.1f} s",
        "Open rows, in memory": _megabytes(joined["memory_mb"]),
        "Open rows, on the local disk": _megabytes(joined["spilled_mb"]),
        "Clock offset, measured": "" if offset_ms is None else _offset(offset_ms, joined["peer"]),
        "Decided up to (UTC)": moment(int(joined["watermark_ms"])) if joined["watermark_ms"] else "",
    }


def _offset(offset_ms: float, peer: str) -> str:
    return f"event times of {peer} are {abs(offset_ms):,.0f} ms {'later' if offset_ms >= 0 else 'earlier'}"


def _megabytes(value: float | None) -> str:
    return "" if value is None else size(int(value * 1e6))


def _facts(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"opened {moment(report['opened_ms'])} UTC"
    if report["closed_ms"]:
        yield f"closed {moment(report['closed_ms'])} UTC"
    for label, key in _FACTS.items():
        if report[key]:
            yield f"{label} {report[key]}"


def _approval(approval: Mapping[str, Any]) -> str:
    """Say how it stands with the person whom the ticket asks for."""
    said = f" by {approval['decided_by']}" if approval["decided_by"] else ""
    why = f": {approval['reason']}" if approval["reason"] else ""
    return f"Approval ({approval['clause']}): {approval['state']}{said}{why}"


def _lanes(report: Mapping[str, Any]) -> Table:
    table = empty_table(["Task", report["party"], "", report["peer"]])
    for task in report["tasks"]:
        own = task["own"]
        table.add_row(cell(task["task"]), cell(half_text(own)), _bar(own), cell(half_text(task["peer"])))
    return table


def half_text(half: Mapping[str, Any] | None) -> str:
    """Say how one side's half of a task stands."""
    if half is None:
        return "—"
    words = [f"{_SIGNS[half['state']]} {half['state']}"]
    if half["attempt"] > 1:
        words.append(f"attempt {half['attempt']}")
    if half["state"] in ("waiting", "running"):
        words.append(f"since {clock_time(half['since_ms'])}")
    if half["state"] == "running" and half["progress"]:
        words.extend(filter(None, [_progress(half["progress"])]))
    if half["quiet_since_ms"]:
        words.append(f"no progress since {clock_time(half['quiet_since_ms'])}")
    if half["progress"].get("link"):
        words.append(f"link: {half['progress']['link']}")
    return " · ".join((*words, half["code"])) if half["code"] else " · ".join(words)


def _progress(progress: Mapping[str, Any]) -> str:
    phase, done, of = progress.get("phase", ""), progress.get("done"), progress.get("of")
    if not isinstance(done, int) or not isinstance(of, int):
        return str(phase)
    words = [f"{phase} {done:,} of {of:,}".strip()]
    if isinstance(pace := progress.get("rows_per_s"), int) and isinstance(left_s := progress.get("left_s"), int):
        words.append(f"{pace:,} rows/s, {timedelta(seconds=left_s)} left")
    return " · ".join(words)


def _bar(half: Mapping[str, Any] | None) -> RenderableType:
    progress = half["progress"] if half is not None and half["state"] == "running" else {}
    return ProgressBar(progress["of"], progress["done"], width=16) if {"done", "of"} <= progress.keys() else ""


def _ledger_line(entry: Mapping[str, Any]) -> tuple[object, ...]:
    rows = f"{entry['items']:,}" if entry["items"] else ""
    return entry["what"], entry["task"], entry["learns"], rows, size(entry["bytes"])


def _importance(features: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line which features count most."""
    by = "gain" if "gain" in features[0] else "splits"
    told = [f"{each['feature']} {each[by]:,.4g}" for each in features[:MOST_IMPORTANT]]
    more = [f"{len(features) - len(told)} more"] if len(features) > len(told) else []
    return f"Features by {by}: {' · '.join([*told, *more])}"


def _groups(groups: Sequence[Mapping[str, float]]) -> Table:
    """Show by groups of test rows with like scores how right these are."""
    rows = [(each["lowest"], int(each["rows"]), each["mean_score"], each["mean_label"]) for each in groups]
    return _table(["Scores from", "Test rows", "Mean score", "Mean label"], rows)


def _confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    """Show how many test rows of each class (down) are taken for which (across)."""
    rows = ((text, *row) for text, row in zip(classes, counts, strict=True))
    return _table(["Label", *(f"→ {text}" for text in classes)], rows)


def _clause(right: Mapping[str, Any]) -> str:
    return f"{right['who']} ({right['clause']})" if right["clause"] else str(right["who"])


def _receipts(receipts: Mapping[str, Any], peer: str) -> str:
    if receipts["agree"]:
        return "✔ Both receipts are signed and agree."
    own, theirs = ("signed" if receipts[side] else "not yet signed" for side in ("own", "peer"))
    return f"Receipts: own {own}, {peer}'s {theirs}."


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Table:
    table = empty_table(columns)
    for row in rows:
        table.add_row(*(cell(_shown(value)) for value in row))
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "no number" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
