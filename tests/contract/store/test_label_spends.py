"""What every store promises of what peers were told of labels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedtasks.errors import LabelLeakSpent
from fedtasks.label_budget import ALL, epsilon_of, millionths
from fedtasks.store import Labels, LabelSpendRow, LabelsTold, Store
from tests.support.stores import NOW, TICKET, Database, opened, run_row, run_together

LABELS = Labels("shop", "loans", "defaulted")
ROW = LabelSpendRow(LABELS, "first", 10_000, "r1", "train")
SIXTY = millionths(epsilon_of(0.6))


def item(name: str, epsilon: int = ROW.epsilon, **changes: str) -> LabelSpendRow:
    return replace(ROW, item=name, epsilon=epsilon, **changes)


def test_what_was_told_adds_up_over_runs_and_stands_per_peer_dataset_and_column(store: Store) -> None:
    assert store.label_spends.spend(ROW, None) == 10_000
    assert store.label_spends.spend(item("second", 5_000, run_id="r2"), None) == 15_000
    others = [replace(LABELS, **{name: "other"}) for name in ("peer", "dataset", "label")]
    for labels in others:
        assert store.label_spends.spend(replace(ROW, labels=labels, epsilon=7), None) == 7
    assert store.label_spends.total(LABELS) == 15_000
    assert store.label_spends.total(Labels("shop", "loans", "unknown")) == 0
    told = {each.labels: each for each in store.label_spends.list()}
    assert told.keys() == {LABELS, *others}
    assert told[LABELS] == LabelsTold(LABELS, epsilon=15_000, runs=2, last_ms=NOW)


def test_item_named_again_is_charged_only_by_what_it_is_more(store: Store) -> None:
    totals = [store.label_spends.spend(item("label_dp", epsilon), None) for epsilon in (40, 40, 70, 10)]
    assert totals == [40, 40, 70, 70]
    assert store.label_spends.told_once(LABELS, "label_dp") == 70


def test_what_is_told_once_is_found_by_the_word_that_its_items_begin_with(store: Store) -> None:
    for name, epsilon in (("label_dp 3f1a", 20), ("label_dp 90c2", 50), ("label_dpx", 90), ("label.dp a", 90)):
        store.label_spends.spend(item(name, epsilon), None)
    store.label_spends.spend(replace(item("label_dp 3f1a", 99), labels=replace(LABELS, peer="other")), None)
    assert store.label_spends.told_once(LABELS, "label_dp") == 50
    assert store.label_spends.told_once(LABELS, "never") == 0


def test_spend_beyond_the_limit_is_refused_in_words_and_not_written(store: Store) -> None:
    store.label_spends.spend(item("first", SIXTY), 60)
    with pytest.raises(LabelLeakSpent, match=r"shop was told of `defaulted` of `loans`.* 60 %.* allows 60 %") as caught:
        store.label_spends.spend(item("second", 1), 60)
    assert caught.value.fields == {"dataset": "loans", "spent": "60", "asked": "50", "limit": "60"}
    assert not caught.value.retryable
    assert store.label_spends.total(LABELS) == SIXTY


def test_item_already_charged_passes_a_budget_that_is_spent(store: Store) -> None:
    assert store.label_spends.spend(item("first", SIXTY), 60) == SIXTY
    assert store.label_spends.spend(item("first", SIXTY), 60) == store.label_spends.spend(item("first", 1), 55) == SIXTY


def test_item_that_rises_beyond_the_limit_keeps_what_it_was_charged(store: Store) -> None:
    store.label_spends.spend(item("first", 40_000), 60)
    with pytest.raises(LabelLeakSpent):
        store.label_spends.spend(item("first", SIXTY + 1), 60)
    assert store.label_spends.total(LABELS) == 40_000


@pytest.mark.parametrize("percent", [None, 100])
def test_labels_that_may_be_told_altogether_have_no_limit(store: Store, percent: int | None) -> None:
    for name in ("first", "second"):
        store.label_spends.spend(item(name, ALL), percent)
    assert store.label_spends.total(LABELS) == 2 * ALL
    with pytest.raises(LabelLeakSpent):
        store.label_spends.spend(item("third", 1), 99)


def test_spend_that_is_negative_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="negative"):
        store.label_spends.spend(item("first", -1), None)


def test_what_was_told_outlives_the_ticket_and_the_run(store: Store) -> None:
    store.tickets.put(replace(TICKET, acceptance=None))
    run = run_row(2)
    store.label_spends.spend(item("first", run_id=run.run_id), None)
    store.uses.release(TICKET.ticket_id, run.run_id)
    store.tickets.remove([TICKET.ticket_id])
    assert store.label_spends.total(LABELS) == 10_000


def test_processes_that_spend_at_once_never_pass_the_limit_together(database: Database) -> None:
    code = """
from fedtasks.errors import LabelLeakSpent
from fedtasks.store import Labels, LabelSpendRow
labels = Labels("shop", "loans", "defaulted")
with Store.open(url, password_file) as store:
    meet()
    for number in range(20):
        try:
            store.label_spends.spend(LabelSpendRow(labels, f"item {number}", 4_000, "r1", "train"), 60)
            say(number)
        except LabelLeakSpent:
            pass
"""
    with opened(database) as store:
        charged = run_together(database, code, 4)
        # 11 items fit below 44,577; each is charged once, whoever says it first.
        assert len(set(charged)) == 11
        assert store.label_spends.total(LABELS) == 44_000 <= SIXTY
