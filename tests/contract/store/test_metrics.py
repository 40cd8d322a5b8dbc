"""What every store promises of metrics, disclosures and bytes."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fedtasks.errors import RunUnknown
from fedtasks.store import DisclosureRow, MetricRow, Store
from tests.support.stores import NOW, RUN, run_row


def test_bytes_add_up_over_attempts_shards_and_tasks(store: Store) -> None:
    store.runs.add(run_row())
    assert store.traffic.total(RUN) == (0, 0)
    store.traffic.add(RUN, "train", 0, 1, 10, 1)
    store.traffic.add(RUN, "train", 0, 1, 10, 2)
    store.traffic.add(RUN, "train", 0, 2, 100, 0)
    store.traffic.add(RUN, "train", 1, 1, 1000, 0)
    store.traffic.add(RUN, "psi", 0, 1, 2**40, 2**41)
    assert store.traffic.total(RUN) == (1120 + 2**40, 3 + 2**41)


def test_bytes_added_from_many_threads_are_all_counted(store: Store) -> None:
    store.runs.add(run_row())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.traffic.add(RUN, "train", 0, 1, 3, 5), range(40)))
    assert store.traffic.total(RUN) == (120, 200)


def test_metrics_are_kept_once_with_the_last_value(store: Store) -> None:
    store.runs.add(run_row())
    first = MetricRow(RUN, "train", "loss", 1, 0.5, NOW)
    last = MetricRow(RUN, "train", "loss", 1, 0.1 + 0.2, NOW + 1)
    others = [MetricRow(RUN, "train", "loss", 2**33, -math.inf, NOW), MetricRow(RUN, "evaluate", "auc", 0, 0.75, NOW)]
    store.metrics.put([])
    store.metrics.put([first, *others])
    store.metrics.put([first, last])
    assert store.metrics.list(RUN) == [others[1], last, others[0]]
    assert store.metrics.list(RUN, "train") == [last, others[0]]
    assert store.metrics.list(RUN, name="auc") == [others[1]]
    assert store.metrics.list(RUN, "evaluate", "loss") == []


def test_metric_that_is_no_number_is_kept_as_such(store: Store) -> None:
    store.runs.add(run_row())
    store.metrics.put([MetricRow(RUN, "train", "loss", 1, math.nan, NOW)])
    assert math.isnan(store.metrics.list(RUN)[0].value)


def test_bytes_and_metrics_of_an_unknown_run_are_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        store.traffic.add(RUN, "train", 0, 1, 1, 1)
    store.runs.add(run_row())
    with pytest.raises(RunUnknown):
        store.metrics.put([MetricRow(RUN, "t", "loss", 1, 1.0, NOW), MetricRow("other", "t", "loss", 1, 1.0, NOW)])
    assert store.metrics.list(RUN) == []


def test_metrics_after_a_time_are_those_that_came_later(store: Store) -> None:
    store.runs.add(run_row())
    rows = [MetricRow(run_row().run_id, "train", "loss", step, 1.0, NOW + step) for step in (1, 2, 3)]
    store.metrics.put(rows)
    assert store.metrics.list(run_row().run_id, after_ms=NOW + 1) == rows[1:]


def test_last_metrics_of_several_runs_come_by_run(store: Store) -> None:
    first, second = run_row(1, state="succeeded"), run_row(2)
    for row in (first, second):
        store.runs.add(row)
    values = ((first, 1, 0.9), (first, 3, 0.5), (first, 2, 0.7), (second, 1, math.nan))
    store.metrics.put([MetricRow(run.run_id, "train", "loss", step, value, NOW) for run, step, value in values])
    last = store.metrics.last_of_runs([first.run_id, second.run_id])
    assert [(row.step, row.value) for row in last[first.run_id]] == [(3, 0.5)]
    assert [(row.step, math.isnan(row.value)) for row in last[second.run_id]] == [(1, True)]
    assert store.metrics.last_of_runs([]) == {}


def test_disclosures_are_kept_by_attempt_with_the_last_total(store: Store) -> None:
    store.runs.add(run_row())
    first = DisclosureRow(RUN, "psi", 1, "blinded", 2, 40, 1280)
    rows = [replace(first, messages=3, items=60), replace(first, attempt=2), replace(first, task="train")]
    store.disclosures.put([])
    store.disclosures.put([first])
    store.disclosures.put(rows)
    assert store.disclosures.list(RUN) == rows
    with pytest.raises(RunUnknown):
        store.disclosures.put([first, replace(first, run_id="other", name="answers")])
    assert store.disclosures.list(RUN) == rows
