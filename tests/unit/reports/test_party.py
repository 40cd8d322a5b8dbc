"""The morning look, tickets and their budgets, models, data and decisions, as plain values."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from fedtasks import identity
from fedtasks.clock import DAY_MS, utc
from fedtasks.config import Airflow, Dataset, FeatureType, Gateway, Party, Peer
from fedtasks.reports.airflow_parts import Silent, keep
from fedtasks.reports.audit import EXPORTED, audit_csv, audit_report, chain_report
from fedtasks.reports.models import compare_report, model_reports
from fedtasks.reports.party import RECENT, SILENT_MS, data_report, overview, peer_reports
from fedtasks.reports.tickets import ticket_reports
from fedtasks.store import (
    ApprovalRow,
    AuditFilter,
    HalfRow,
    LandingRow,
    MetricRow,
    ModelRow,
    PeerRow,
    Store,
    TicketRequestRow,
    TicketRow,
)
from fedtasks.tickets.clauses import clauses
from tests.support.report_rows import NOW_MS, RUN_ID, make_run, put_ticket
from tests.support.tickets import HEADER, claims_of, signed


@pytest.fixture
def party(tmp_path: Path) -> Party:
    identity.create_identity(tmp_path / "keys", "shop")
    keys = tmp_path / "keys"
    return Party(
        "bank",
        Gateway(keys / "a", keys / "b", keys / "c", keys / "d", keys / "e"),
        Airflow("http://127.0.0.1:1", "admin", keys / "f"),
        "file:///storage",
        peers=(Peer("shop", keys / "authority.pem", "AAAA"),),
        datasets=(Dataset("loans", "file:///loans/{partition}", "customer", {"income": FeatureType.NUMERIC}),),
    )


def see_peer(store: Store, connected: bool = True, **changes: Any) -> None:
    values = {"version": "1", "clock_skew_s": 0.0, "failure": None, "since_ms": NOW_MS, "seen_ms": NOW_MS}
    store.peers.put_state(PeerRow("shop", connected, **(values | changes)))


def needs(store: Store, party: Party, now_ms: int = NOW_MS) -> dict[str, str]:
    return {need["kind"]: need["text"] for need in overview(store, party, {"credit"}, now_ms)["needs"]}


# ---------------------------------------------------------------------------------------------------------- overview
def test_nothing_needs_anybody_when_all_is_well(store: Store, party: Party) -> None:
    see_peer(store)
    put_ticket(store)
    store.runs.add(make_run(state="succeeded", closed_ms=NOW_MS))
    found = overview(store, party, {"credit"}, NOW_MS)
    assert (found["needs"], found["running"], len(found["recent"])) == ([], [], 1)
    assert {budget["clause"]: budget["used"] for budget in found["budgets"]} == {
        "limits.runs": 1,
        "limits.concurrent_runs": 0,
        "limits.ids_blinded": 0,
        "limits.ids_blinded_per_day": 0,
    }


def test_gateway_that_has_not_looked_for_long_is_down(store: Store, party: Party) -> None:
    see_peer(store)
    assert needs(store, party) == {}
    assert needs(store, party, NOW_MS + SILENT_MS + 1).keys() == {"gateway_down"}


def test_part_of_this_partys_airflow_that_does_not_run_needs_somebody(store: Store, party: Party) -> None:
    see_peer(store)
    keep(store, party.name, [Silent("triggerer", NOW_MS)], NOW_MS)
    (text,) = needs(store, party).values()
    assert text.startswith("bank's triggerer has not been heard of since ")
    assert needs(store, party).keys() == {"airflow_incomplete"}
    assert [peer["name"] for peer in peer_reports(store, party)] == ["shop"]  # this party is no peer of its own
    keep(store, party.name, [], NOW_MS + 1)
    assert needs(store, party) == {}


def test_runs_that_the_store_has_lost_need_somebody_who_looks_through_the_tickets(store: Store, party: Party) -> None:
    see_peer(store)
    for number in (1, 2):
        store.lost_runs.add(f"credit.2026-11-21.shop.{number}", "shop", "t", NOW_MS, charge=False)
    assert needs(store, party) == {"store_restored": "shop remembers 2 runs that this party's store has lost"}


def test_peer_that_is_away_is_named_with_its_failure(store: Store, party: Party) -> None:
    see_peer(store, connected=False, failure={"code": "PEER_UNREACHABLE", "text": "no answer", "party": "shop"})
    assert needs(store, party) == {"peer_down": "shop is not connected: no answer"}


def test_tickets_that_end_soon_are_offered_or_asked_for_need_somebody(store: Store, party: Party) -> None:
    see_peer(store)
    put_ticket(store, ticket_id="old", expires_s=NOW_MS // 1000 + 86_400)
    put_ticket(store, ticket_id="new", accepted=False)
    asked = {"pipelines": ["credit"], "dataset": "", "role": "leader", "days": 30, "reason": "<b>please</b>"}
    store.ticket_requests.add(TicketRequestRow("r", "shop", False, asked, "open", NOW_MS))
    store.ticket_requests.add(TicketRequestRow("q", "shop", True, asked, "open", NOW_MS))
    found = needs(store, party)
    assert found.keys() == {"ticket_expiring", "ticket_offered", "ticket_request"}
    assert found["ticket_request"] == "shop asks for a ticket: <b>please</b>"
    store.ticket_requests.settle("r", "granted")
    assert "ticket_request" not in needs(store, party)


def test_failed_run_needs_somebody_until_its_partition_is_run_again(store: Store, party: Party) -> None:
    see_peer(store)
    failure = {"code": "PEER_FAILED", "text": "x", "party": "shop", "task": "train", "at_ms": NOW_MS}
    store.runs.add(make_run(1, state="failed", failure=failure, closed_ms=NOW_MS))
    assert needs(store, party) == {"run_failed": f"{RUN_ID} has failed: PEER_FAILED"}
    store.runs.add(make_run(2))
    assert needs(store, party) == {}


def test_run_that_asks_for_approval_needs_somebody(store: Store, party: Party) -> None:
    see_peer(store)
    asked = ApprovalRow(RUN_ID, "asked", "ticket t-1, approval", NOW_MS, NOW_MS + 1000)
    store.runs.add(make_run(initiated=False, reason="monthly"), asked)
    assert needs(store, party) == {"approval": f"shop asks for {RUN_ID}: monthly"}


def test_run_that_goes_on_is_shown_however_many_have_ended_since(store: Store, party: Party) -> None:
    store.runs.add(make_run(1))
    for number in range(2, 2 * RECENT + 2):
        ended = {"state": "succeeded", "closed_ms": NOW_MS, "dag_run_id": f"run-{number}"}
        store.runs.add(make_run(number, opened_ms=NOW_MS + number, **ended))
    found = overview(store, party, {"credit"}, NOW_MS)
    assert [run["run_id"] for run in found["running"]] == [RUN_ID]
    assert [run["number"] for run in found["recent"]] == list(range(2 * RECENT + 1, RECENT + 1, -1))


def test_runs_of_dags_that_may_not_be_read_are_left_out(store: Store, party: Party) -> None:
    store.runs.add(make_run(1))
    store.runs.add(make_run(2, state="failed", closed_ms=NOW_MS, failure={"code": "X", "text": "x"}))
    found = overview(store, party, {"other"}, NOW_MS)
    assert (found["running"], found["recent"]) == ([], [])
    assert "run_failed" not in {need["kind"] for need in found["needs"]}


def test_peers_are_those_of_party_yaml_even_if_never_seen(store: Store, party: Party) -> None:
    (peer,) = peer_reports(store, party)
    assert (peer["name"], peer["connected"], peer["checks"]) == ("shop", False, [])
    assert peer["certificate_until_ms"] > NOW_MS


def test_certificate_that_ends_first_is_shown_and_told_of(store: Store, party: Party, tmp_path: Path) -> None:
    see_peer(store)
    authority = party.peers[0].authority
    alone = peer_reports(store, party)[0]["certificate_until_ms"]
    identity.create_identity(tmp_path / "other", "shop")
    leaf = (tmp_path / "other" / "gateway.pem").read_bytes()
    authority.write_bytes(authority.read_bytes() + leaf)
    (peer,) = peer_reports(store, party)
    assert peer["certificate_until_ms"] == identity.valid_until(tmp_path / "other" / "gateway.pem") < alone
    near = peer["certificate_until_ms"] - 3 * DAY_MS - 1
    see_peer(store, seen_ms=near)
    assert needs(store, party, near) == {"certificate_expiring": "The certificate of shop ends in 3 days"}


def test_need_has_one_key_for_each_user_and_state(store: Store, party: Party) -> None:
    def key(user: str, now_ms: int = NOW_MS) -> str:
        (need,) = overview(store, party, {"credit"}, now_ms, user)["needs"]
        return str(need["key"])

    failure = {"code": "PEER_UNREACHABLE", "text": "no answer", "party": "shop"}
    see_peer(store, connected=False, failure=failure)
    first = key("ada")
    assert key("ada", NOW_MS + 1000) == first
    assert key("udo") != first
    see_peer(store, connected=False, failure=failure, since_ms=NOW_MS + 1)
    assert key("ada") != first


# ----------------------------------------------------------------------------------------------------------- tickets
def test_offered_ticket_says_every_clause_in_words(store: Store) -> None:
    put_ticket(store, accepted=False)
    (ticket,) = ticket_reports(store, "bank", NOW_MS)["held"]
    told = {each["label"]: each for each in ticket["terms"]}
    assert {each.label for each in clauses().values()} <= told.keys()
    assert told["dataset customers"]["value"] == "columns age"
    assert told["approval"]["value"] == "nobody is asked before a run begins"
    assert told["runs"] == {"label": "runs", "value": "10", "text": clauses()["limits.runs"].sentence}
    assert told["trees"]["value"] == "no limit"
    put_ticket(store)
    (ticket,) = ticket_reports(store, "bank", NOW_MS)["held"]
    assert ticket["terms"] == []


def test_ticket_counts_what_is_used_in_all_and_in_a_day(store: Store) -> None:
    put_ticket(store, granted=True)
    store.uses.count("t-1", "a", "ids_blinded", 70, None)
    store.uses.count("t-1", "a", "runs", 1, None)
    store.runs.add(make_run(initiated=False))
    (ticket,) = ticket_reports(store, "bank", NOW_MS + 90_000_000)["granted"]
    assert {limit["clause"]: (limit["limit"], limit["used"]) for limit in ticket["limits"]} == {
        "limits.runs": (10, 1),
        "limits.concurrent_runs": (2, 1),
        "limits.attempts": (3, None),
        "limits.epochs": (5, None),
        "limits.label_leak": (60, None),
        "limits.ids_blinded": (1000, 70),
        "limits.ids_blinded_per_day": (100, 0),
    }


def said(listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["clause"]: each["value"] for each in listed}


def test_ticket_that_lets_labels_be_read_says_so_in_words(store: Store) -> None:
    put_ticket(store, granted=True, ticket_id="t-1")
    put_ticket(store, granted=True, ticket_id="t-2", floor={"label_protection": "none"})
    found = {each["ticket_id"]: each for each in ticket_reports(store, "bank", NOW_MS)["granted"]}
    assert found["t-1"]["warnings"] == []
    (warning,) = found["t-2"]["warnings"]
    assert "the follower can read the labels of all train rows" in warning
    assert found["t-2"]["floor"] == []


def test_ticket_shows_what_it_says_of_trees_and_nothing_that_demands_nothing(store: Store) -> None:
    put_ticket(store, granted=True, ticket_id="t-1")
    put_ticket(
        store,
        granted=True,
        ticket_id="t-2",
        limits={"concurrent_runs": None, "attempts": None, "trees": 9},
        floor={"min_leaf_rows": 30, "first_tree": "leader"},
        outputs={"scores": "both"},
    )
    plain, bounded = sorted(ticket_reports(store, "bank", NOW_MS)["granted"], key=lambda ticket: ticket["ticket_id"])
    # What no ticket allows unless it says so is demanded of all.
    always = {"floor.label_protection": "any"}
    assert said(plain["floor"]) == always
    assert said(bounded["floor"]) == {"floor.min_leaf_rows": 30, "floor.first_tree": "leader", **always}
    leak, trees = sorted(bounded["limits"], key=lambda limit: str(limit["clause"]))
    assert (leak["clause"], leak["limit"], leak["per"]) == ("limits.label_leak", 60, "labels")
    assert (trees["clause"], trees["label"], trees["limit"], trees["used"]) == ("limits.trees", "trees", 9, None)
    assert trees["text"] == clauses()["limits.trees"].sentence
    of_scores = [said(each["outputs"])["outputs.scores"] for each in (plain, bounded)]
    assert of_scores == ["leader", "both"]


@pytest.mark.parametrize(
    ("changes", "state", "revocable"),
    [
        ({}, "accepted", True),
        ({"acceptance": None}, "issued", True),
        ({"revocation": "signed"}, "revoked", False),
        ({"grant": "nonsense"}, "unreadable", None),
    ],
)
def test_ticket_says_how_it_stands(store: Store, changes: dict[str, Any], state: str, revocable: bool | None) -> None:
    put_ticket(store, granted=True, ticket_id="t-0")
    row: TicketRow | None = store.tickets.get("t-0")
    assert row is not None
    store.tickets.put(replace(row, ticket_id="t-1", **changes))
    found = {ticket["ticket_id"]: ticket for ticket in ticket_reports(store, "bank", NOW_MS)["granted"]}
    assert (found["t-1"]["state"], found["t-1"].get("revocable")) == (state, revocable)


def test_ticket_that_holds_poison_is_one_unreadable_row_of_reports_that_go_on(store: Store, party: Party) -> None:
    see_peer(store)
    put_ticket(store, ticket_id="t-0")
    row: TicketRow | None = store.tickets.get("t-0")
    assert row is not None
    changes: list[dict[str, Any]] = [
        {"exp": 10**4299},
        {"exp": 10**13},
        {"limits": {"runs": 10**4000}},
        {"datasets": [{"name": "customers", "schema_digest": "0" * 64, "columns": ["\ud800"]}]},
        {"datasets": [{"name": "customers", "schema_digest": "0" * 64, "columns": ["a"] * 20_000}]},
    ]
    for number, change in enumerate(changes, 1):
        poisoned = signed(HEADER, json.dumps({**claims_of(row.grant), **change}).encode())
        store.tickets.put(replace(row, ticket_id=f"t-{number}", grant=poisoned, acceptance=None))
    store.tickets.put(replace(row, ticket_id="t-9", grant=signed(HEADER, b"[" * 40_000)))
    began = time.process_time()
    held = {ticket["ticket_id"]: ticket for ticket in ticket_reports(store, "bank", NOW_MS)["held"]}
    assert time.process_time() - began < 1
    assert [ticket["state"] for ticket in held.values()] == ["accepted", *["unreadable"] * (len(changes) + 1)]
    assert all(ticket["why"].isprintable() for ticket in list(held.values())[1:])
    assert overview(store, party, {"credit"}, NOW_MS)["party"] == "bank"
    assert {dataset["name"] for dataset in data_report(store, party)["datasets"]} == {"loans", "customers"}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"acceptance": None, "declination": "signed"}, "declined"),
        ({"declination": "signed"}, "declined"),
        ({"acceptance": None}, "issued"),
    ],
)
def test_ticket_held_can_be_declined_until_it_is_answered(store: Store, changes: dict[str, Any], state: str) -> None:
    put_ticket(store, ticket_id="t-0")
    row: TicketRow | None = store.tickets.get("t-0")
    assert row is not None
    store.tickets.put(replace(row, ticket_id="t-1", **changes))
    found = {ticket["ticket_id"]: ticket for ticket in ticket_reports(store, "bank", NOW_MS)["held"]}
    assert (found["t-1"]["state"], found["t-1"]["declinable"]) == (state, state == "issued")


@pytest.mark.parametrize(("days", "state"), [(-1, "not yet valid"), (31, "expired")])
def test_ticket_outside_of_its_time_says_so(store: Store, days: int, state: str) -> None:
    put_ticket(store, granted=True)
    (ticket,) = ticket_reports(store, "bank", NOW_MS + days * 86_400_000)["granted"]
    assert ticket["state"] == state


# ---------------------------------------------------------------------------------------------------- models and data
def put_model(store: Store, number: int, **changes: Any) -> None:
    run_id = f"credit.2026-11-21.{number}"
    row = ModelRow("credit", number, "shop", run_id, "2026-11-21", None, "a" * 64, "b" * 64, None, {}, True, NOW_MS)
    store.models.publish(replace(row, **changes), "credit")


def test_models_show_versions_newest_first_and_only_of_readable_dags(store: Store) -> None:
    for number in (1, 2):
        store.runs.add(make_run(number, state="succeeded"))
        put_model(store, number, parent=number - 1 or None)
    (model,) = model_reports(store, {"credit"})
    versions = [(each["version"], each["champion"], each["parent"]) for each in model["versions"]]
    assert versions == [(2, True, 1), (1, False, None)]
    assert model_reports(store, {"other"}) == []


def test_compare_shows_last_metrics_and_what_was_configured_otherwise(store: Store) -> None:
    for number, epochs in ((1, 3), (2, 5)):
        config = f'{{"leader": "bank", "steps": {{"train": {{"epochs": {epochs}}}}}}}'
        store.runs.add(make_run(number, state="succeeded", config_json=config))
        run_id = f"credit.2026-11-21.{number}"
        rows = [MetricRow(run_id, "train", "loss", step, 1 / step, NOW_MS) for step in range(1, epochs + 1)]
        store.metrics.put([*rows, MetricRow(run_id, "evaluate", "bin.threshold", 1, 0.5, NOW_MS)])
    put_model(store, 2)
    first, second = compare_report(store, "credit", 10)["partitions"]
    assert (first["metrics"], second["metrics"]) == ({"train.loss": 1 / 3}, {"train.loss": 1 / 5})
    assert (first["settings_changed"], first["champion"], second["champion"]) == ([], False, True)
    assert second["settings_changed"] == [{"field": "steps.train.epochs", "from": 3, "to": 5}]


def test_data_waits_for_partitions_that_others_have(store: Store, party: Party) -> None:
    put_ticket(store)
    for owner, dataset, partition, rows in (
        ("bank", "loans", "2026-11-20", 40),
        ("shop", "customers", "2026-11-20", 0),
        ("shop", "customers", "2026-11-21", 0),
    ):
        store.landings.add(LandingRow(owner, dataset, partition, rows, NOW_MS))
    own, theirs = data_report(store, party)["datasets"]
    assert (own["name"], own["partitioned"], own["waiting"]) == ("loans", True, ["2026-11-21"])
    assert [(each["partition"], each["rows"]) for each in own["landed"]] == [("2026-11-20", 40)]
    assert (theirs["party"], theirs["name"], theirs["features"], theirs["waiting"]) == (
        "shop",
        "customers",
        ["age"],
        [],
    )


# ------------------------------------------------------------------------------------------------------------- audit
def test_audit_comes_page_by_page_and_its_chain_holds(store: Store) -> None:
    for number in range(5):
        store.audit.add("bank", "run.open", "noted", number=number)
    first = audit_report(store, 3)
    assert ([row["seq"] for row in first["rows"]], first["more"]) == ([5, 4, 3], True)
    second = audit_report(store, 3, before=3)
    assert ([row["seq"] for row in second["rows"]], second["more"]) == ([2, 1], False)
    assert first["chain"] == {"ok": True, "text": "rows 3–5 fit the chain"}
    assert chain_report(store) == {"ok": True, "text": "all 5 rows fit the chain"}


def test_audit_of_a_choice_is_filtered_paged_and_checked_row_by_row(store: Store) -> None:
    for number in range(4):
        store.audit.add("shop", "run.start", "refused", number=number)
        store.audit.add("ada", "ticket.revoked", "noted", peer="shop", ticket="t")
        store.audit.add("ada", "run.open", "noted", run_id=RUN_ID)
    found = audit_report(store, 3, where=AuditFilter(peer="shop"))
    assert ([row["seq"] for row in found["rows"]], found["more"]) == ([11, 10, 8], True)
    assert found["chain"] == {"ok": True, "text": "3 rows, each as it was written"}
    older = audit_report(store, 9, before=8, where=AuditFilter(peer="shop"))
    assert ([row["seq"] for row in older["rows"]], older["more"]) == ([7, 5, 4, 2, 1], False)
    none = audit_report(store, 3, where=AuditFilter(action="no"))
    assert (none["rows"], none["chain"]["text"]) == ([], "no decision is like that")


def test_audit_export_is_bounded_and_holds_no_formula(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedtasks.reports.audit.MAX_EXPORTED", 2)
    for number in range(3):
        store.audit.add("=cmd()", "run.open", "noted", number=number, text='a "b",\nc')
    head, newest, older = csv.reader(io.StringIO(audit_csv(store, AuditFilter())))
    assert tuple(head) == EXPORTED
    assert (newest[0], older[0]) == ("3", "2")
    assert newest[1] == utc(NOW_MS, "%Y-%m-%dT%H:%M:%SZ")
    assert newest[2:5] == ["'=cmd()", "run.open", "noted"]
    assert json.loads(newest[5]) == {"number": 2, "text": 'a "b",\nc'}


def test_audit_that_was_changed_is_seen_on_its_page_and_in_the_whole(store: Store, tmp_path: Path) -> None:
    for number in range(3):
        store.audit.add("bank", "run.open", "noted", number=number)
    engine = create_engine(f"sqlite:///{tmp_path}/store.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit SET actor = 'mallory' WHERE seq = 2"))
    engine.dispose()
    for chain in (audit_report(store, 10)["chain"], chain_report(store)):
        assert not chain["ok"]
        assert "row 2" in chain["text"]
    assert audit_report(store, 1)["chain"]["ok"]


def test_halves_of_many_runs_come_at_once(store: Store) -> None:
    store.runs.add(make_run(1))
    store.runs.add(make_run(2))
    store.halves.put(HalfRow(RUN_ID, "psi", True, 1, "running"))
    found = store.halves.of_runs([RUN_ID, "credit.2026-11-21.2"])
    assert {run_id: len(halves) for run_id, halves in found.items()} == {RUN_ID: 1, "credit.2026-11-21.2": 0}


def test_need_whose_remedy_is_the_peers_says_so(store: Store, party: Party) -> None:
    failure = {"code": "PEER_FAILED", "cause": "DATA_CORRUPT", "text": "x", "party": "shop", "task": "psi", "at_ms": 1}
    store.runs.add(make_run(state="failed", failure=failure, closed_ms=NOW_MS))
    (need,) = [need for need in overview(store, party, {"credit"}, NOW_MS)["needs"] if need["kind"] == "run_failed"]
    assert need["remedy"] == "shop must act: Clear the task that wrote the file"
