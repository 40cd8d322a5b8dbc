"""What every store promises of runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from fedtasks.errors import RunUnknown
from fedtasks.store import RunRow, Store
from tests.support.stores import NOW, RUN, run_row


def numbers(rows: list[RunRow]) -> list[int]:
    return [row.number for row in rows]


def test_run_created_is_found_by_id_and_by_dag_run(store: Store) -> None:
    row = run_row(reason="because", failure={"code": "X"}, peer_failure={"code": "Y", "at_ms": 2**40}, closed_ms=NOW)
    assert store.runs.add(row)
    assert store.runs.get(row.run_id) == row
    assert store.runs.of_dag_run("credit", "manual__1", "credit") == row
    assert store.runs.get("other") is None
    assert store.runs.of_dag_run("credit", "manual__2", "credit") is None


def test_run_whose_id_is_taken_is_not_created(store: Store) -> None:
    store.runs.add(run_row())
    assert not store.runs.add(run_row(peer="mall", dag_run_id="manual__9"))
    assert store.runs.list() == [run_row()]


def test_run_of_a_dag_run_that_is_busy_is_not_created(store: Store) -> None:
    store.runs.add(run_row(1))
    assert not store.runs.add(run_row(2, dag_run_id="manual__1"))
    store.runs.change(run_row(1).run_id, state="failed")
    again = run_row(2, dag_run_id="manual__1")
    assert store.runs.add(again)
    assert store.runs.of_dag_run("credit", "manual__1", "credit") == again
    assert [row.number for row in store.runs.of_partition("credit", "2026-11-21")] == [1, 2]


def test_run_by_dag_prefers_the_run_that_goes_on(store: Store) -> None:
    store.runs.add(run_row(1, opened_ms=NOW))
    store.runs.add(run_row(2, dag_run_id="manual__1", state="failed", opened_ms=NOW + 5))
    found = store.runs.of_dag_run("credit", "manual__1", "credit")
    assert found is not None
    assert found.number == 1


def test_runs_are_newest_first_filtered_and_limited(store: Store) -> None:
    rows = [run_row(1), run_row(2, state="failed"), run_row(3, peer="mall"), run_row(4, partition="x")]
    for row in rows:
        store.runs.add(row)
    assert numbers(store.runs.list()) == [4, 3, 2, 1]
    assert numbers(store.runs.list(limit=2)) == [4, 3]
    assert numbers(store.runs.list(state="running", peer="shop")) == [4, 1]
    assert numbers(store.runs.of_partition("credit", "2026-11-21")) == [1, 2, 3]
    assert numbers(store.runs.of_partition("other", "2026-11-21")) == []


def test_active_runs_are_those_that_go_on_under_a_ticket(store: Store) -> None:
    for row in (run_row(1), run_row(2, state="succeeded"), run_row(3, ticket_id="t-2")):
        store.runs.add(row)
    assert [row.number for row in store.runs.active()] == [1, 3]
    assert [row.number for row in store.runs.active("t-1")] == [1]


def test_run_updated_changes_only_what_was_named(store: Store) -> None:
    store.runs.add(run_row())
    changed = store.runs.change(RUN, note="waits", failure={"code": "X"}, closed_ms=NOW)
    assert changed == run_row(note="waits", failure={"code": "X"}, closed_ms=NOW)
    assert store.runs.get(RUN) == changed
    assert store.runs.change(RUN, failure=None).failure is None
    assert store.runs.get(RUN) == replace(changed, failure=None)
    assert store.runs.change(RUN) == store.runs.get(RUN)


def test_run_bumped_is_unacknowledged_until_the_peer_confirms(store: Store) -> None:
    store.runs.add(run_row(acked_version=1))
    store.runs.add(run_row(2, peer="mall"))
    assert store.runs.unacked("shop") == []
    assert store.runs.change(RUN, bump=True, state="succeeded").version == 2
    assert [row.version for row in store.runs.unacked("shop")] == [2]
    store.runs.change(RUN, acked_version=2)
    assert store.runs.unacked("shop") == []
    assert [row.number for row in store.runs.unacked("mall")] == [2]


def test_run_bumped_from_many_threads_loses_no_version(store: Store) -> None:
    store.runs.add(run_row())
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: store.runs.change(RUN, bump=True).version, range(40)))
    assert sorted(versions) == list(range(2, 42))


def test_run_unknown_or_column_unknown_is_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        store.runs.change(RUN, bump=True)
    store.runs.add(run_row())
    for column in ("version", "run_id", "colour"):
        with pytest.raises(TypeError, match=column):
            store.runs.change(RUN, **{column: 1})
    with pytest.raises(IntegrityError):
        store.runs.change(RUN, state="sleeping")
    assert store.runs.get(RUN) == run_row()


def test_runs_before_a_run_are_older_even_if_opened_at_once(store: Store) -> None:
    rows = [run_row(number, opened_ms=NOW, state="succeeded") for number in range(1, 6)]
    for row in rows:
        store.runs.add(row)
    assert [run.number for run in store.runs.list(before=rows[3], limit=2)] == [3, 2]
    assert [run.number for run in store.runs.list(dag_ids=[rows[0].dag_id])] == [5, 4, 3, 2, 1]
    assert store.runs.list(dag_ids=["elsewhere"]) == []
    assert store.runs.total(rows[0].ticket_id) == 5


def test_runs_are_counted_by_how_they_ended_and_by_who_has_yet_to_be_told(store: Store) -> None:
    endings = [("failed", "DISK_FULL", NOW), ("failed", "DISK_FULL", NOW + 1), ("failed", "DISK_FULL", NOW - 1)]
    for number, (state, code, closed_ms) in enumerate([*endings, ("succeeded", None, NOW)]):
        failure = {"code": code} if code else None
        store.runs.add(run_row(number, state=state, failure=failure, closed_ms=closed_ms, peer=f"shop{number % 2}"))
    store.runs.add(run_row(9, closed_ms=NOW))
    assert store.runs.total_ended(NOW) == {("failed", "DISK_FULL"): 2, ("succeeded", ""): 1}
    told = run_row(9).run_id
    store.runs.acknowledge(told, 1)
    assert store.runs.total_unacked() == {"shop0": 2, "shop1": 2}
