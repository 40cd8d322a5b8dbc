"""One run and many, as plain values: how they stand, who waits, what left, who may see what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedtasks.errors import RunUnknown
from fedtasks.reports.airflow_parts import Silent, keep
from fedtasks.reports.dag_runs import OVERLAP_MS, dag_run_report, metrics_report, task_report
from fedtasks.reports.runs import run_list, run_report
from fedtasks.reports.status import State
from fedtasks.store import ApprovalRow, DisclosureRow, MetricRow, PeerRow, RefusalRow, Store
from tests.support.report_rows import NOW_MS, RUN_ID, make_half, make_run, put_ticket


def test_run_unknown_is_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        run_report(store, "bank", "no.such.1")


def test_lanes_hold_every_step_and_the_parts_of_a_sharded_one(store: Store) -> None:
    store.runs.add(make_run())
    store.halves.put(make_half("psi.send[0]", "succeeded", outcome={"counts": {"people_shared": 3000}}))
    store.halves.put(make_half("psi.send[1]", "running", since_ms=NOW_MS + 5))
    store.halves.put(make_half("psi.send[0]", "succeeded", own=False))
    report = run_report(store, "bank", RUN_ID)
    assert [task["task"] for task in report["tasks"]] == ["psi", "align", "train", "close_run"]
    psi = report["tasks"][0]
    assert [part["task"] for part in psi["parts"]] == ["psi.send[0]", "psi.send[1]"]
    assert (psi["own"]["state"], psi["own"]["progress"]) == ("running", {"done": 1, "of": 2})
    assert psi["peer"]["state"] == "succeeded"
    assert report["tasks"][1]["own"] is None


def test_times_are_what_halves_waited_and_worked(store: Store) -> None:
    store.runs.add(make_run())
    done = {"announced_ms": NOW_MS, "started_ms": NOW_MS + 300, "since_ms": NOW_MS + 1000}
    store.halves.put(make_half("psi", "succeeded", **done))
    store.halves.put(make_half("align", "waiting", announced_ms=NOW_MS + 1100, since_ms=NOW_MS + 1100))
    assert run_report(store, "bank", RUN_ID)["times"] == {
        "wait_ms": 300,
        "compute_ms": 700,
        "waiting_since_ms": NOW_MS + 1100,
        "computing_since_ms": None,
    }


@pytest.mark.parametrize(
    ("connected", "why"), [(True, "shop's half has not begun"), (False, "shop's gateway is unreachable")]
)
def test_status_of_a_wait_names_its_cause(store: Store, connected: bool, why: str) -> None:
    store.runs.add(make_run())
    store.halves.put(make_half("align", "waiting", until_ms=NOW_MS + 60_000))
    store.peers.put_state(PeerRow("shop", connected, "1", 0.0, None, NOW_MS, NOW_MS))
    status = run_report(store, "bank", RUN_ID)["status"]
    assert (status["state"], status["task"], status["act"]) == ("waiting", "align", "shop")
    assert status["why"].startswith(why)
    assert status["until_ms"] == NOW_MS + 60_000


def test_few_people_are_not_counted_out(store: Store) -> None:
    store.runs.add(make_run())
    store.halves.put(make_half("psi", "succeeded", outcome={"counts": {"people_shared": 3, "ids_blinded": 500}}))
    assert run_report(store, "bank", RUN_ID)["counts"] == {"people_shared": "fewer than 10", "ids_blinded": 500}


def test_ledger_sums_attempts_and_never_says_less_than_what_left(store: Store) -> None:
    store.runs.add(make_run())
    store.halves.put(make_half("psi", "succeeded", outcome={"counts": {"ids_blinded": 400}}))
    store.disclosures.put(
        [
            DisclosureRow(RUN_ID, "psi", 1, "blinded", 2, 0, 100),
            DisclosureRow(RUN_ID, "psi", 2, "blinded", 1, 0, 50),
            DisclosureRow(RUN_ID, "train", 1, "activation", 8, 64, 500),
            DisclosureRow(RUN_ID, "train", 1, "means", 1, 1, 10),
        ]
    )
    store.traffic.add(RUN_ID, "psi", 0, 1, 1000, 5)
    report = run_report(store, "bank", RUN_ID)
    lines = [(line["what"], line["messages"], line["items"], line["bytes"]) for line in report["ledger"]]
    assert lines == [
        ("activations", 8, 64, 500),
        ("frames, and what was sent again", 0, 0, 340),
        ("blinded ids", 3, 400, 150),
        ("means", 1, 1, 10),
    ]
    assert sum(line["bytes"] for line in report["ledger"]) == report["bytes_sent"] == 1000


@pytest.mark.parametrize(
    ("config", "may", "people"),
    [
        ('{"leader": "bank", "steps": {"psi": {"learns": "both"}}}', True, "both"),
        ('{"leader": "bank", "steps": {"psi": {"learns": "client"}}}', True, "bank"),
        ('{"leader": "shop", "steps": {"psi": {"learns": "client"}}}', False, "shop"),
        ('{"leader": "bank", "steps": {"psi": {"learns": "client", "signer": "bank"}}}', True, "shop"),
        ('{"leader": "shop", "steps": {"psi": {"learns": "size"}}}', False, "nobody: only how many"),
    ],
)
def test_rights_follow_role_settings_and_ticket(store: Store, config: str, may: bool, people: str) -> None:
    store.runs.add(make_run(config_json=config))
    put_ticket(store)
    rights = {right["what"]: right for right in run_report(store, "bank", RUN_ID)["rights"]}
    assert rights["metrics"]["may"] is rights["scores"]["may"] is may
    assert rights["own half"]["may"]
    assert (rights["people"]["who"], rights["people"]["may"]) == (people, people in ("both", "bank"))


@pytest.mark.parametrize(
    ("granted", "asked", "who", "may"),
    [
        ("both", {"scores": "both"}, "both", True),
        ("both", {"scores": "leader"}, "shop", False),
        ("both", {}, "shop", False),
        ("leader", {"scores": "both"}, "shop", False),
    ],
)
def test_rights_to_scores_follow_the_run_as_far_as_its_ticket_goes(
    store: Store, granted: str, asked: dict[str, str], who: str, may: bool
) -> None:
    store.runs.add(make_run(config_json=json.dumps({"leader": "shop", "steps": {"psi": {}, "evaluate": asked}})))
    put_ticket(store, outputs={"scores": granted})
    rights = {right["what"]: right for right in run_report(store, "bank", RUN_ID)["rights"]}
    assert (rights["scores"]["who"], rights["scores"]["may"]) == (who, may)
    assert not rights["metrics"]["may"]


@pytest.mark.parametrize(
    ("settings", "people", "scores"),
    [
        ({}, "both", "bank"),
        ({"psi": {"learns": "client"}}, "bank", "bank"),
        ({"psi": {"learns": "client", "signer": "bank"}, "evaluate": {"scores": "both"}}, "shop", "both"),
    ],
)
def test_rights_follow_effective_values_of_the_steps_that_declare_them(
    store: Store, settings: dict[str, Any], people: str, scores: str
) -> None:
    kinds = {"psi": "psi", "evaluate": "evaluate", "train": "split_nn"}
    steps = [{"name": name, "digest": "", "kind": kind} for name, kind in kinds.items()]
    config = json.dumps({"leader": "bank", "steps": settings})
    store.runs.add(make_run(config_json=config, steps_json=json.dumps(steps)))
    put_ticket(store, outputs={"scores": "both"})
    rights = {right["what"]: right["who"] for right in run_report(store, "bank", RUN_ID)["rights"]}
    assert (rights["people"], rights["scores"]) == (people, scores)


def test_approval_is_shown_beside_the_run(store: Store) -> None:
    asked = ApprovalRow(RUN_ID, "asked", "ticket t-1, approval", NOW_MS, NOW_MS + 1000)
    store.runs.add(make_run(initiated=False), asked)
    approval = run_report(store, "bank", RUN_ID)["approval"]
    assert (approval["state"], approval["clause"]) == ("asked", "ticket t-1, approval")


def test_report_tells_all_that_a_run_asks_for_and_what_decides_first(store: Store) -> None:
    steps = {"mine": {"a": "x" * 999}, "psi": {"learns": "client"}, "train": {"epochs": 3}}
    config = {"leader": "bank", "datasets": {"bank": "loans", "shop": "customers"}, "steps": steps}
    kinds = [{"name": "mine", "digest": ""}, {"name": "psi", "digest": "", "kind": "psi"}]
    kinds.append({"name": "train", "digest": "", "kind": "split_nn"})
    store.runs.add(make_run(config_json=json.dumps(config), steps_json=json.dumps(kinds)))
    asked = run_report(store, "bank", RUN_ID)["asked"]
    places = [line["place"] for line in asked]
    assert places[:3] == ["leader", "datasets.bank", "datasets.shop"]
    assert (places[-1], asked[-1]["value"]) == ("mine.a", "x" * 999)
    said = {line["place"]: (line["value"], line["clause"]) for line in asked}
    assert said["psi.learns"] == ("client", "outputs.intersection")
    assert said["psi.pad_rows"] == ("1", "floor.pad_rows")
    assert said["train.epochs"] == ("3", "limits.epochs")
    assert len(places) == len(set(places))


# ------------------------------------------------------------------------------------------------------------- lists
def test_list_pages_back_without_losing_runs_opened_at_once(store: Store) -> None:
    for number in range(1, 8):
        store.runs.add(make_run(number, state="succeeded", opened_ms=NOW_MS))
    seen: list[str] = []
    before = ""
    while page := run_list(store, "bank", before=before, limit=3):
        seen += [run["run_id"] for run in page]
        before = seen[-1]
    assert seen == [f"credit.2026-11-21.{number}" for number in range(7, 0, -1)]


def test_list_keeps_to_state_and_dags(store: Store) -> None:
    store.runs.add(make_run(1))
    store.runs.add(make_run(2, state="failed", failure={"code": "PEER_FAILED", "text": "x", "at_ms": 1}))
    store.runs.add(make_run(3, state="succeeded", dag_id="other"))
    store.halves.put(make_half("psi", "waiting"))
    assert [run["number"] for run in run_list(store, "bank", state=State.WAITING)] == [1]
    assert [run["number"] for run in run_list(store, "bank", state=State.FAILED)] == [2]
    assert [run["number"] for run in run_list(store, "bank", dag_ids={"other"})] == [3]
    assert run_list(store, "bank", dag_ids=set()) == []


# ----------------------------------------------------------------------------------------------------------- DAG runs
def put_refusal(store: Store, at_ms: int) -> None:
    failure = {"code": "TICKET_EXPIRED", "text": "over", "party": "shop", "task": "open_run", "at_ms": at_ms}
    store.refusals.put(RefusalRow("credit", "manual-1", "credit", "2026-11-21", "shop", failure, at_ms))


def test_dag_run_without_a_run_says_so(store: Store) -> None:
    assert dag_run_report(store, "bank", "credit", "manual-1")["state"] == "none"


def test_refusal_after_a_run_counts_and_one_before_it_does_not(store: Store) -> None:
    put_refusal(store, NOW_MS)
    refused = dag_run_report(store, "bank", "credit", "manual-1")
    assert (refused["state"], refused["failure"]["code"], refused["failure"]["act"]) == (
        "refused",
        "TICKET_EXPIRED",
        "bank",
    )
    store.runs.add(make_run(opened_ms=NOW_MS + 10))
    assert dag_run_report(store, "bank", "credit", "manual-1")["run_id"] == RUN_ID
    put_refusal(store, NOW_MS + 20)
    assert dag_run_report(store, "bank", "credit", "manual-1")["state"] == "refused"


def test_dag_run_that_waits_for_its_run_says_for_what_and_until_when(store: Store) -> None:
    waits = {"since_ms": NOW_MS, "until_ms": NOW_MS + 60_000, "ticket": "t-1", "runs": ["credit.2026-11-20.bank.1"]}
    failure = {"code": "TICKET_BUSY", "text": "", "party": "bank", "task": "open_run", "at_ms": NOW_MS, "waits": waits}
    store.refusals.put(RefusalRow("credit", "manual-1", "credit", "2026-11-21", "shop", failure, NOW_MS))
    found = dag_run_report(store, "bank", "credit", "manual-1")
    assert (found["state"], found["status"]["state"], found["status"]["code"]) == ("opening", "waiting", "TICKET_BUSY")
    assert "credit.2026-11-20.bank.1" in found["status"]["why"]
    assert found["status"]["until_ms"] == NOW_MS + 60_000


def test_running_run_names_the_part_of_this_partys_airflow_that_does_not_run(store: Store) -> None:
    store.runs.add(make_run())
    keep(store, "bank", [Silent("scheduler", NOW_MS)], NOW_MS)
    (listed,) = run_list(store, "bank")
    for status in (listed["status"], run_report(store, "bank", RUN_ID)["status"]):
        assert status["why"].startswith("bank's scheduler has not been heard of since ")
        assert (status["act"], status["code"]) == ("bank", "AIRFLOW_INCOMPLETE")


def test_metrics_are_told_again_for_a_while_and_bins_never(store: Store) -> None:
    store.runs.add(make_run())

    def add(name: str, step: int, value: float, at_ms: int) -> None:
        store.metrics.put([MetricRow(RUN_ID, "train", name, step, value, at_ms)])

    add("loss", 1, 0.9, NOW_MS)
    add("bin.threshold", 1, 0.5, NOW_MS)
    first = metrics_report(store, RUN_ID, "", -1)
    assert first == {"series": {"train.loss": [[1, 0.9, NOW_MS]]}, "at_ms": NOW_MS - OVERLAP_MS}
    add("auc", 1, float("nan"), NOW_MS - 1000)  # came late
    again = metrics_report(store, RUN_ID, "", first["at_ms"])
    assert again["series"] == {"train.auc": [[1, None, NOW_MS - 1000]], "train.loss": [[1, 0.9, NOW_MS]]}


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        ({"done": 20, "of": 100}, (2.0, 40.0)),
        # A half that has gone on from a checkpoint knows better.
        ({"done": 90, "of": 100, "rows_per_s": 8000, "left_s": 5}, (8000, 5)),
        ({"done": 0, "of": 100}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_task_says_its_pace_and_what_is_left(store: Store, progress: dict[str, Any], expected: tuple[Any, Any]) -> None:
    store.runs.add(make_run())
    store.halves.put(make_half("train", "running", started_ms=NOW_MS, progress=progress))
    report = task_report(store, "bank", RUN_ID, "train", NOW_MS + 10_000)
    assert (report["rate_per_s"], report["left_s"]) == expected
    assert report["federated"]
    assert report["peer"] is None


def test_task_that_no_half_has_announced_is_not_federated(store: Store) -> None:
    store.runs.add(make_run())
    assert not task_report(store, "bank", RUN_ID, "clean_up", NOW_MS)["federated"]
