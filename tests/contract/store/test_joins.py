"""What every store promises of joined streams: commits follow each other, and each is counted once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedtasks.errors import JoinTaken
from fedtasks.store import JoinRow, JoinWindowRow, Store
from fedtasks.store.joins import COUNTS
from tests.support.stores import NOW, Database, opened, run_together

MINUTE = 60_000


def commit(number: int, **changes: object) -> JoinRow:
    row = JoinRow("shop", "clicks", 0, number, f"{number:064x}", "r1", NOW + number)
    return replace(row, **changes)  # type: ignore[arg-type]


def window(minute: int, row: JoinRow, **counts: int) -> JoinWindowRow:
    return JoinWindowRow(row.peer, row.stream, row.shard, minute * MINUTE, row.run_id, **counts)


def put(store: Store, row: JoinRow, *minutes: int, **counts: int) -> JoinRow:
    return store.joins.commit(row, [window(minute, row, **counts) for minute in minutes])


def test_commit_takes_the_place_of_the_one_before_it(store: Store) -> None:
    assert store.joins.get("shop", "clicks", 0) is None
    for number in (1, 2, 3):
        assert put(store, commit(number, run_id=f"r{number}")) == commit(number, run_id=f"r{number}")
    assert store.joins.get("shop", "clicks", 0) == commit(3, run_id="r3")
    assert store.joins.list() == [commit(3, run_id="r3")]


def test_commit_again_is_fine_and_counts_nothing_whichever_run_says_it(store: Store) -> None:
    first = put(store, commit(1), 0, joined=3, lag_ms=70)
    assert put(store, commit(1, at_ms=NOW + 9), 0, joined=3, lag_ms=70) == first
    assert put(store, commit(1, run_id="r2"), 0, joined=3, lag_ms=70) == first
    (found,) = store.joins.windows()
    assert (found.joined, found.lag_ms) == (3, 70)


@pytest.mark.parametrize(
    "taken",
    [commit(2, digest="f" * 64), commit(1), commit(1, digest="f" * 64), commit(4), commit(5)],
    ids=["another order", "older", "older in another order", "one left out", "two left out"],
)
def test_commit_that_does_not_follow_changes_nothing(store: Store, taken: JoinRow) -> None:
    put(store, commit(1), 0, joined=1)
    put(store, commit(2), 1, joined=2)
    with pytest.raises(JoinTaken, match="the last one is 2, made by run r1") as caught:
        put(store, taken, 0, 1, 2, joined=9)
    assert caught.value.fields["newest"] == "2"
    assert store.joins.get("shop", "clicks", 0) == commit(2)
    assert [(each.start_ms, each.joined) for each in store.joins.windows()] == [(0, 1), (MINUTE, 2)]


def test_first_commit_of_a_shard_is_the_first_by_number(store: Store) -> None:
    with pytest.raises(JoinTaken, match="the last one is 0"):
        put(store, commit(2), 0, joined=1)
    assert (store.joins.list(), store.joins.windows()) == ([], [])


def test_shards_streams_and_peers_are_committed_apart(store: Store) -> None:
    rows = [commit(1), commit(1, shard=1), commit(1, stream="views"), commit(1, peer="mill")]
    for row in rows:
        put(store, row, 0, joined=1)
    put(store, commit(2, shard=1), 0, joined=1)
    assert store.joins.get("shop", "clicks", 0) == commit(1)
    assert store.joins.list("shop", "clicks") == [commit(1), commit(2, shard=1)]
    places = [(row.stream, row.peer, row.shard) for row in store.joins.list()]
    assert places == [("clicks", "mill", 0), ("clicks", "shop", 0), ("clicks", "shop", 1), ("views", "shop", 0)]


def test_windows_add_up_over_commits_shards_and_runs(store: Store) -> None:
    counts = {name: number for number, name in enumerate(COUNTS, 1)}
    counts["lag_ms"] = 8 * 10**12  # that of a million rows which came a day late
    put(store, commit(1), 3, 4, 3, **counts)
    put(store, commit(2, run_id="r2"), 4, **counts)
    put(store, commit(1, shard=1, run_id="r2"), 4, **counts)
    put(store, commit(1, stream="views", run_id="r2"), 4, 5, joined=1)

    def expected(minute: int, times: int) -> JoinWindowRow:
        summed = {name: times * count for name, count in counts.items()}
        return JoinWindowRow("shop", "clicks", 0, minute * MINUTE, "", **summed)

    assert store.joins.windows(stream="clicks") == [expected(3, 2), expected(4, 3)]
    assert store.joins.windows(peer="shop", stream="clicks", run_id="r2") == [expected(4, 2)]
    assert store.joins.windows(stream="clicks", since_ms=4 * MINUTE) == [expected(4, 3)]
    assert store.joins.windows(stream="clicks", width_ms=10 * MINUTE) == [expected(0, 5)]
    assert store.joins.windows(peer="mill") == []
    assert [row.stream for row in store.joins.windows(run_id="r2")] == ["clicks", "views", "views"]
    of_shard = [(row.start_ms, row.joined) for row in store.joins.newest_windows("shop", "clicks", 0, 9)]
    assert of_shard == [(3 * MINUTE, 2), (4 * MINUTE, 2)]
    assert [row.shard for row in store.joins.newest_windows("shop", "clicks", 1, 1)] == [1]
    assert store.joins.newest_windows("shop", "clicks", 0, 1)[0].start_ms == 4 * MINUTE
    assert store.joins.of_run("r1") == [("shop", "clicks")]
    assert store.joins.of_run("r2") == [("shop", "clicks"), ("shop", "views")]
    assert store.joins.span("shop", "clicks") == (3 * MINUTE, 4 * MINUTE)
    assert store.joins.span("shop", "clicks", "r2") == (4 * MINUTE, 4 * MINUTE)
    assert store.joins.span("mill", "views") is None


def test_window_of_another_shard_or_run_is_refused(store: Store) -> None:
    for other in (commit(1, shard=1), commit(1, run_id="r2")):
        with pytest.raises(ValueError, match="another shard or run"):
            store.joins.commit(commit(1), [window(0, other, joined=1)])
    assert store.joins.list() == []


def test_processes_that_commit_at_once_make_each_commit_once(database: Database) -> None:
    code = """
from fedtasks.errors import JoinTaken
from fedtasks.store import JoinRow, JoinWindowRow
with Store.open(url, password_file) as store:
    meet()
    for number in range(1, 21):
        row = JoinRow("shop", "clicks", 0, number, name * 64, name, number)
        try:
            store.joins.commit(row, [JoinWindowRow("shop", "clicks", 0, 0, name, joined=1)])
            say(number)
        except JoinTaken:
            pass
"""
    with opened(database) as store:
        made = run_together(database, code, 4)
        last = store.joins.get("shop", "clicks", 0)
        assert last is not None
        assert sorted(made) == list(range(1, last.number + 1))
        (counted,) = store.joins.windows()
        assert counted.joined == last.number
