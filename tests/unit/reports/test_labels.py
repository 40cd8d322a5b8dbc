"""What is said of the budget of labels, and what a run would take of it."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks.errors import LabelLeakSpent
from fedtasks.label_budget import ALL, epsilon_of, limit_of, millionths
from fedtasks.reports.labels import label_reports, require_budget, what_is_told
from fedtasks.reports.tickets import ticket_reports
from fedtasks.store import Labels, LabelSpendRow, Store
from fedtasks.tickets import DatasetScope, Grant
from tests.support.report_rows import NOW_MS, put_ticket

LABELS = Labels("shop", "loans", "defaulted")
KINDS = {"train": "split_nn", "more": "split_nn", "trees": "secureboost", "own": ""}


def tell(store: Store, epsilon: int, item: str = "x", run_id: str = "r1", labels: Labels = LABELS) -> None:
    store.label_spends.spend(LabelSpendRow(labels, item, epsilon, run_id, "train"), None)


def grant(**bounds: dict[str, Any]) -> Grant:
    return Grant("t", "shop", "bank", (DatasetScope("c", "0" * 64, ("a",)),), ("credit",), ("leader",), 0, 1, **bounds)


def config(**steps: dict[str, object]) -> dict[str, Any]:
    # Whatever a test does not name tells nothing.
    quiet: dict[str, dict[str, object]] = {"trees": {}, "own": {}}
    return {"leader": "bank", "datasets": {"bank": "loans"}, "steps": {**quiet, **steps}}


def kinds(*names: str) -> dict[str, str]:
    return {name: KINDS[name] for name in (*names, "trees", "own")}


def protected(by: str, percent: int) -> dict[str, object]:
    return {"label_protection": by, "max_label_leak": percent}


def test_steps_of_a_run_tell_together_what_their_settings_bound(store: Store) -> None:
    both = config(train=protected("marvell", 60), more=protected("isotropic", 55))
    expected = (limit_of(60) or 0) + (limit_of(55) or 0)
    assert what_is_told(store, LABELS, both, kinds("train", "more")) == expected
    assert what_is_told(store, LABELS, config(), kinds()) == 0


@pytest.mark.parametrize("by", ["none", "max_norm"])
def test_step_without_a_bound_tells_every_label(store: Store, by: str) -> None:
    twice = config(train=protected(by, 100), more=protected(by, 100))
    assert what_is_told(store, LABELS, twice, kinds("train", "more")) == ALL


def test_labels_that_were_flipped_once_cost_only_what_is_more(store: Store) -> None:
    tell(store, millionths(epsilon_of(0.55)), "label_dp")
    again = config(train=protected("label_dp", 55))
    assert what_is_told(store, LABELS, again, kinds("train")) == 0
    more = config(train=protected("label_dp", 60))
    assert what_is_told(store, LABELS, more, kinds("train")) == (limit_of(60) or 0) - (limit_of(55) or 0)


def test_run_is_refused_exactly_if_it_does_not_fit(store: Store) -> None:
    asked, kinds_asked = config(train=protected("marvell", 55)), kinds("train")
    tell(store, (limit_of(60) or 0) - (limit_of(55) or 0))
    require_budget(store, LABELS, grant(), asked, kinds_asked)
    tell(store, 1, "one more")
    with pytest.raises(LabelLeakSpent, match=r"58.* 60") as caught:
        require_budget(store, LABELS, grant(), asked, kinds_asked)
    assert caught.value.fields["limit"] == "60"
    require_budget(store, LABELS, grant(limits={"label_leak": 61}), asked, kinds_asked)
    require_budget(store, LABELS, grant(floor={"label_protection": "none"}), asked, kinds_asked)
    require_budget(store, None, grant(), asked, kinds_asked)
    require_budget(store, LABELS, grant(), config(), kinds())


@pytest.mark.parametrize(
    ("epsilon", "limits", "told", "left", "words"),
    [
        (
            10_000,
            {},
            54.9,
            58,
            "AUC of at most 54.9 % (50 % is guessing); 60 % are allowed, which leaves room for one more",
        ),
        (limit_of(60), {}, 60, 50, "nothing is left of the 60 % that are allowed"),
        (ALL, {"label_leak": 100}, 100, None, "may have read every `defaulted` of `loans`; no limit"),
    ],
)
def test_what_was_told_is_said_in_words_and_as_an_auc(
    store: Store, epsilon: int, limits: dict[str, int], told: float, left: int | None, words: str
) -> None:
    tell(store, epsilon)
    (found,) = label_reports(store.label_spends.list(), "shop", grant=grant(limits=limits))
    assert (found["told"], found["left"], found["dataset"], found["label"]) == (told, left, "loans", "defaulted")
    assert words in found["text"]
    assert label_reports(store.label_spends.list(), "another") == []


def test_ticket_shows_what_was_told_of_the_datasets_that_it_names(store: Store) -> None:
    put_ticket(store, granted=True, ticket_id="t-1")
    put_ticket(store, granted=False, ticket_id="t-2")
    granted, held = (ticket_reports(store, "bank", NOW_MS)[side][0] for side in ("granted", "held"))
    assert granted["labels"] == held["labels"] == []
    peer, named = held["peer"], granted["datasets"][0]["name"]
    for dataset in (named, "other"):
        tell(store, 10_000, labels=Labels(peer, dataset, "bought"))
    granted, held = (ticket_reports(store, "bank", NOW_MS)[side][0] for side in ("granted", "held"))
    # A ticket that this party holds does not name its own datasets.
    assert [each["dataset"] for each in granted["labels"]] == [named]
    assert {each["dataset"] for each in held["labels"]} == {named, "other"}
    assert held["labels"][0]["runs"] == 1
