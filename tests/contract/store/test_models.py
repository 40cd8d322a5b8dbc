"""What every store promises of models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from fedtasks.errors import FedtasksError, ModelTaken, ModelUnknown
from fedtasks.store import ModelRow, Store
from tests.support.stores import NOW, Database, opened, run_row

PIPELINE = "credit"


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with opened(database, clock=lambda: NOW) as store:
        for number in range(1, 6):
            store.runs.add(run_row(number, dag_run_id=f"d-{number}"))
        yield store


def version(number: int, parent: int | None = None, *days: str, **changes: Any) -> ModelRow:
    row = ModelRow(
        model="credit",
        version=number,
        peer="shop",
        run_id=run_row(number).run_id,
        partition="2026-11-21",
        parent=parent,
        own_digest="a" * 64,
        peer_digest="b" * 64,
        metrics={"auc": 0.8},
        consumed={"loans": list(days)},
        champion=False,
        published_ms=NOW,
    )
    return replace(row, **changes)


def test_publish_puts_the_version_into_use(store: Store) -> None:
    store.models.publish(version(1), PIPELINE)
    second = store.models.publish(version(2, 1), PIPELINE)
    assert second == replace(version(2, 1), champion=True)
    assert store.models.champion("credit") == second
    assert [(row.version, row.champion) for row in store.models.list("credit")] == [(1, False), (2, True)]
    assert store.models.champion("other") is None


def test_publish_twice_enters_one_version_and_leaves_the_champion(store: Store) -> None:
    store.models.publish(version(1), PIPELINE)
    store.models.publish(version(2, 1), PIPELINE)
    store.models.make_champion("credit", 1)
    again = store.models.publish(version(2, 1, metrics={"auc": 0.9}, published_ms=NOW + 1), PIPELINE)
    assert (again.metrics, again.champion) == ({"auc": 0.8}, False)
    assert len(store.models.list()) == 2


@pytest.mark.parametrize(
    ("changes", "pipeline", "error"),
    [
        ({}, "another", ModelTaken),
        ({"peer": "mill"}, PIPELINE, ModelTaken),
        ({"version": 1}, PIPELINE, ModelTaken),
        ({"parent": 7}, PIPELINE, ModelUnknown),
    ],
)
def test_publish_of_what_is_taken_or_unfounded_changes_nothing(
    store: Store, changes: dict[str, Any], pipeline: str, error: type[FedtasksError]
) -> None:
    store.models.publish(version(1), PIPELINE)
    with pytest.raises(error):
        store.models.publish(replace(version(2, 1), **changes), pipeline)
    assert [row.version for row in store.models.list()] == [1]
    assert store.models.champion("credit") is not None


def test_version_that_one_side_alone_had_entered_goes_when_both_enter_it_again(store: Store) -> None:
    store.models.publish(version(1), PIPELINE)
    store.models.publish(version(2), PIPELINE)
    store.models.publish(version(3, run_id=version(1).run_id), PIPELINE)
    assert [row.version for row in store.models.list("credit")] == [2, 3]


def test_version_that_another_has_gone_on_from_stays_when_it_is_entered_again(store: Store) -> None:
    store.models.publish(version(1), PIPELINE)
    store.models.publish(version(2, 1), PIPELINE)
    store.models.publish(version(3, 1, run_id=version(1).run_id), PIPELINE)
    store.models.publish(version(4, run_id=version(2).run_id, own_digest="c" * 64), PIPELINE)
    assert [row.version for row in store.models.list("credit")] == [1, 2, 3, 4]


def test_publish_at_once_keeps_one_champion(store: Store) -> None:
    def publish(number: int) -> int:
        try:
            return store.models.publish(version(number), PIPELINE).version
        except ModelTaken:
            return 0

    with ThreadPoolExecutor(5) as pool:
        published = set(pool.map(publish, range(1, 6))) - {0}
    assert {row.version for row in store.models.list()} == published
    assert [row.version for row in store.models.list() if row.champion] == [max(published)]


def test_consumed_follows_the_lineage_and_not_the_numbers(store: Store) -> None:
    store.models.publish(version(1, None, "d1"), PIPELINE)
    store.models.publish(version(2, 1, "d2", "d3"), PIPELINE)
    store.models.make_champion("credit", 1)
    store.models.publish(version(3, 1, "d4"), PIPELINE)
    store.models.publish(version(4, None, "d5"), PIPELINE)
    assert store.models.consumed("credit", 2) == {"loans": ["d1", "d2", "d3"]}
    assert store.models.consumed("credit", 3) == {"loans": ["d1", "d4"]}
    assert store.models.consumed("credit", 4) == {"loans": ["d5"]}


def test_make_champion_of_what_is_not_there_changes_nothing(store: Store) -> None:
    store.models.publish(version(1), PIPELINE)
    with pytest.raises(ModelUnknown):
        store.models.make_champion("credit", 2)
    champion = store.models.champion("credit")
    assert champion is not None
    assert champion.version == 1
