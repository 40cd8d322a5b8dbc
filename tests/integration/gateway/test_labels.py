"""What the peer is told of labels is counted by whoever holds them, over runs and tickets, and refused when spent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedtasks import errors
from fedtasks.label_budget import ALL, epsilon_of, millionths
from fedtasks.link.client import GatewayClient
from fedtasks.runtime.context import TaskContext
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.store import Labels, LabelSpendRow
from tests.support.gateways import Member, Pair, grant_ticket
from tests.support.runs import TREES, meet, open_run

TASK = "train"
LABELS = Labels("shop", "loans", "defaulted")
SIXTY = millionths(epsilon_of(0.6))
Begin = Callable[..., tuple[str, int]]


def settings(**train: object) -> str:
    config = {"leader": "bank", "datasets": {"bank": "loans", "shop": "customers"}, "steps": {"train": train}}
    return json.dumps(config, sort_keys=True)


PROTECTED = settings(label_protection="marvell", max_label_leak=60)


@pytest.fixture
def labelled(pair: Pair) -> Pair:
    """Both gateways; the bank, which leads, holds the label."""
    file = pair.bank.folder / "party.yaml"
    file.write_text(file.read_text().replace("    id: customer\n", "    id: customer\n    label: defaulted\n"))
    pair.bank.start()
    pair.shop.start()
    return pair


@pytest.fixture
def begin(labelled: Pair) -> Begin:
    """Open a run of the bank's and let both halves of its training meet; returns run and attempt."""

    def begin(number: int = 1, config: str = PROTECTED) -> tuple[str, int]:
        with labelled.bank.client() as bank, labelled.shop.client() as shop:
            day, name = f"2026-11-{20 + number}", f"manual-{number}"
            run_id = open_run(bank, name, partition=day, config_json=config).run.run_id
            open_run(shop, run_id, config_json="", peer="", partition="")
            return run_id, meet([bank, shop], run_id, TASK)

    return begin


def told(member: Member) -> int:
    with member.store() as store:
        return store.label_spends.total(LABELS)


def tell(member: Member, epsilon: int, item: str = "of before") -> None:
    with member.store() as store:
        store.label_spends.spend(LabelSpendRow(LABELS, item, epsilon, "earlier", TASK), None)


def context(member: Member, client: GatewayClient, run_id: str, attempt: int) -> TaskContext:
    peer, dataset = ("shop", "loans") if member.name == "bank" else ("bank", "customers")
    config = TaskConfig(Path(), run_id, TASK, attempt, peer, "bank", {member.name: dataset})
    return GatewayContext(config, member.party, client)


def spend(pair: Pair, run_id: str, attempt: int, *said: tuple[float, str]) -> None:
    with pair.bank.client() as client:
        half = context(pair.bank, client, run_id, attempt)
        for epsilon, item in said:
            half.spend_label_leak(epsilon, item)


def test_epochs_add_up_until_the_ticket_allows_no_more(labelled: Pair, begin: Begin) -> None:
    grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"})
    run_id, attempt = begin()
    spend(labelled, run_id, attempt, (0.02, ""), (0.02, ""))
    with pytest.raises(errors.LabelLeakSpent) as caught:
        spend(labelled, run_id, attempt, (0.02, "another"))
    assert caught.value.fields == {"dataset": "loans", "spent": "59.5", "asked": "56.8", "limit": "60"}
    assert "label_dp" in caught.value.advice()
    assert told(labelled.bank) == 40_000
    with labelled.bank.store() as store:
        rows = store.audit.list(action="labels.spend")
        assert [(row.decision, row.detail["epsilon"]) for row in rows] == [
            ("allowed", 20_000),
            ("allowed", 20_000),
            ("refused", 20_000),
        ]
        assert rows[-1].detail["code"] == "LABEL_LEAK_SPENT"
        assert rows[1].detail["spent"] == 40_000
        store.audit.verify()


def test_second_training_on_the_same_labels_is_refused_before_anything_is_spent_on_it(
    labelled: Pair, begin: Begin
) -> None:
    grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"})
    run_id, attempt = begin()
    spend(labelled, run_id, attempt, (epsilon_of(0.6), ""))
    labelled.bank.stop()
    labelled.bank.start()
    grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"}, limits={"label_leak": 60})
    with labelled.bank.client() as client, pytest.raises(errors.LabelLeakSpent, match="60 %"):
        open_run(client, "manual-2", partition="2026-11-22", config_json=PROTECTED)
    assert len(labelled.shop.airflow.triggered) == 1
    with labelled.shop.store() as store:
        assert sum(store.uses.total(row.ticket_id).get("runs", 0) for row in store.tickets.list()) == 1


def test_label_holder_that_is_asked_refuses_a_run_whose_budget_is_spent(labelled: Pair) -> None:
    grant_ticket(labelled.bank, labelled.shop, floor={"label_protection": "any"})
    tell(labelled.bank, SIXTY - 100)
    with labelled.shop.client() as client, pytest.raises(errors.LabelLeakSpent) as caught:
        open_run(client, config_json=PROTECTED, peer="bank")
    # What the peer reads names no column of this party's.
    assert "defaulted" not in str(caught.value)
    assert labelled.bank.airflow.triggered == []
    with labelled.bank.store() as store:
        (refused,) = store.audit.list(action="run.start")
    assert refused.detail["code"] == "LABEL_LEAK_SPENT"


@pytest.mark.parametrize(
    ("before", "item", "limits", "config"),
    [
        (SIXTY, "label_dp 3f1a", {}, settings(label_protection="label_dp", max_label_leak=60)),
        (SIXTY // 2, "x", {}, settings(label_protection="isotropic", max_label_leak=55)),
        (ALL, "x", {"label_leak": 100}, PROTECTED),
        (SIXTY, "x", {"label_leak": 70}, PROTECTED),
    ],
    ids=["labels flipped once", "what is left is enough", "every label may be told", "a higher limit"],
)
def test_training_that_fits_into_what_is_left_begins(
    labelled: Pair, before: int, item: str, limits: dict[str, int], config: str
) -> None:
    limits = {"runs": 10, "concurrent_runs": 5, **limits}
    grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"}, limits=limits)
    tell(labelled.bank, before, item)
    with labelled.bank.client() as client:
        assert open_run(client, config_json=config).run.run_id


def test_run_that_tells_nothing_of_labels_begins_with_a_budget_that_is_spent(labelled: Pair) -> None:
    grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"})
    tell(labelled.bank, ALL)
    with labelled.bank.client() as client:
        assert open_run(client, config_json=settings(trees=3), steps=TREES).run.run_id


def test_training_without_protection_tells_everything_and_is_counted_where_the_ticket_allows_it(
    labelled: Pair, begin: Begin
) -> None:
    grant_ticket(labelled.shop, labelled.bank)  # its floor says none
    run_id, attempt = begin(config=settings(label_protection="none", max_label_leak=100))
    spend(labelled, run_id, attempt, (math.inf, ""), (math.inf, ""))
    assert told(labelled.bank) == 2 * ALL
    with labelled.bank.store() as store:
        assert [each.labels for each in store.label_spends.list()] == [LABELS]
    # A ticket with a limit finds that every label was told.
    with labelled.bank.client() as bank:
        bank.cancel_run(run_id, "a test")
    ticket_id = grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"})
    with labelled.bank.client() as client, pytest.raises(errors.LabelLeakSpent):
        open_run(client, "manual-2", ticket_id=ticket_id, config_json=PROTECTED)


def test_whoever_has_no_label_and_attempts_that_may_not_speak_charge_nothing(labelled: Pair, begin: Begin) -> None:
    grant_ticket(labelled.shop, labelled.bank)
    run_id, attempt = begin()
    with labelled.shop.client() as client:
        with pytest.raises(errors.ConfigError, match="no label"):
            context(labelled.shop, client, run_id, attempt).spend_label_leak(0.1)
        with pytest.raises(errors.ConfigError, match="no label"):
            client.spend_label_leak(run_id, TASK, attempt, "x", 5)
    with labelled.bank.client() as client:
        with pytest.raises(errors.AttemptStale):
            client.spend_label_leak(run_id, TASK, attempt + 1, "x", 5)
        for wrong in ({"item": ""}, {"item": "a\nb"}, {"epsilon": -1}, {"epsilon": ALL + 1}):
            with pytest.raises(errors.ConfigError):
                client.spend_label_leak(**{**_spend(run_id, attempt), **wrong})
    for member in (labelled.bank, labelled.shop):
        with member.store() as store:
            assert store.label_spends.list() == []


def _spend(run_id: str, attempt: int) -> dict[str, Any]:
    return {"run_id": run_id, "task": TASK, "attempt": attempt, "item": "x", "epsilon": 5}


def test_preflight_says_how_much_was_told_and_whether_anything_is_left(labelled: Pair) -> None:
    grant_ticket(labelled.shop, labelled.bank, floor={"label_protection": "any"})
    with ExitStack() as stack:
        bank, shop = (stack.enter_context(member.client()) for member in (labelled.bank, labelled.shop))

        def checks(client: GatewayClient, peer: str) -> list[tuple[bool, str, str]]:
            found = client.preflight(peer, "train_split_nn")
            return [(each.ok, each.code, each.text) for each in found if "labels" in each.name]

        assert checks(bank, "shop") == []
        tell(labelled.bank, SIXTY - 1000)
        ((ok, code, text),) = checks(bank, "shop")
        assert (ok, code) == (True, "")
        assert "read `defaulted` of `loans` with an AUC of at most 59.9 %" in text
        tell(labelled.bank, 1000, "the rest")
        ((ok, code, _),) = checks(bank, "shop")
        assert (ok, code) == (False, "LABEL_LEAK_SPENT")
        assert checks(shop, "bank") == []  # what was told of labels, their holder alone shows
