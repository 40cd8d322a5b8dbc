"""What every store promises of what goes by age, and of what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from fedtasks.errors import ModelRemoved, RunRemoved
from fedtasks.store import JoinRow, JoinWindowRow, MetricRow, ModelRow, RefusalRow, Store
from tests.support.stores import NOW, RUN, run_row


def test_run_that_has_ended_is_removed_once_and_never_goes_on(store: Store) -> None:
    store.runs.add(run_row())
    assert not store.runs.mark_removed(RUN)
    assert store.runs.change(RUN, state="failed", closed_ms=NOW).removed_ms is None
    assert store.runs.mark_removed(RUN)
    removed = store.runs.get(RUN)
    assert removed is not None
    assert removed.removed_ms is not None
    assert store.runs.mark_removed(RUN)
    with pytest.raises(RunRemoved):
        store.runs.reopen(RUN)
    assert store.runs.get(RUN) == removed


def test_version_in_use_is_never_given_up_and_one_that_was_is_never_used(store: Store) -> None:
    store.runs.add(run_row())
    for number in (1, 2):
        row = ModelRow("m", number, "shop", RUN, "p", None, f"{number}" * 64, "b" * 64, None, {}, False, NOW)
        store.models.publish(row, run_row().pipeline)
    assert not store.models.mark_removed("m", 2)
    assert not store.models.mark_removed("m", 3)
    assert store.models.mark_removed("m", 1)
    with pytest.raises(ModelRemoved):
        store.models.make_champion("m", 1)
    assert [(row.champion, row.removed_ms is None) for row in store.models.list("m")] == [(False, False), (True, True)]
    first = store.models.get("m", 1)
    assert first is not None
    assert store.models.publish(replace(first, removed_ms=None), run_row().pipeline) == first  # said once more


def test_metrics_windows_and_refusals_go_by_age_and_others_stay(store: Store) -> None:
    for number, closed_ms in ((1, NOW - 2), (2, NOW), (3, None)):
        state = "running" if closed_ms is None else "succeeded"
        run = run_row(number, dag_run_id=f"d-{number}", state=state, closed_ms=closed_ms)
        store.runs.add(run)
        store.metrics.put([MetricRow(run.run_id, "train", "loss", step, 0.5, NOW) for step in range(number)])
        store.refusals.put(RefusalRow("credit", f"d-{number}", "credit", "p", "shop", {}, NOW - 2 + number))
    windows = [JoinWindowRow("shop", "clicks", 0, start, RUN, joined=1) for start in (0, 60_000)]
    store.joins.commit(JoinRow("shop", "clicks", 0, 1, "d" * 64, RUN, NOW), windows)

    assert store.metrics.of_runs_ended(NOW) == {RUN: 1}
    store.metrics.remove(RUN)
    assert store.metrics.of_runs_ended(NOW + 1) == {run_row(2).run_id: 2}
    assert len(store.metrics.list(run_row(3).run_id)) == 3
    assert store.joins.total_windows(60_000) == 1
    store.joins.remove_windows(60_000)
    assert [row.start_ms for row in store.joins.windows()] == [60_000]
    assert store.refusals.total(NOW) == 1
    store.refusals.remove_old(NOW)
    assert [row.at_ms for row in store.refusals.list()] == [NOW + 1, NOW]


def test_loaded_tags_are_listed(store: Store) -> None:
    assert store.tags.list() == []
    batch = pa.RecordBatch.from_arrays([pa.array([b"t" * 16], pa.binary()), pa.array(["7"])], ["tag", "id"])
    loaded = [store.tags.load(dataset, "k", "g", [batch]) for dataset in ("people", "loans")]
    assert store.tags.list() == loaded[::-1]
