"""Rows of the store that only show what was: metrics step by step, counts by window, refusals.

What bounds or proves something has no age: runs, receipts, what was sent, tickets and their uses, what peers were told
of labels, the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep
from fedtasks.retention.removal import Removal
from fedtasks.store import Store


def removals(store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    """Yield the rows that go."""
    before_ms = now_ms - keep.curves_days * DAY_MS
    for run_id, n_rows in store.metrics.of_runs_ended(before_ms).items():
        why = f"the run ended more than {keep.curves_days} days ago"
        yield Removal("curves", f"metrics of {run_id}", why, partial(store.metrics.remove, run_id), n_rows=n_rows)
    yield from _counted(
        "curves",
        "windows of joined streams",
        keep.curves_days,
        store.joins.total_windows(before_ms),
        partial(store.joins.remove_windows, before_ms),
    )
    before_ms = now_ms - keep.runs_days * DAY_MS
    yield from _counted(
        "runs",
        "DAG runs that came to no run",
        keep.runs_days,
        store.refusals.total(before_ms),
        partial(store.refusals.remove_old, before_ms),
    )


def _counted(kind: str, what: str, days: int, n_rows: int, forget: Callable[[], object]) -> Iterator[Removal]:
    if n_rows:
        yield Removal(kind, what, f"older than {days} days", forget, n_rows=n_rows)
