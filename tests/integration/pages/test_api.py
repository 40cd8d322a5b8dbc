"""The pages' API inside Airflow's own application: who may read and change what, and what changes do."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

import tests.support.airflow_application  # noqa: F401 - gives Airflow a home of its own before it is imported
from fedtasks.airflow.pages.badge import COOKIE
from fedtasks.airflow.pages.changes import change_routes
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.reads import read_routes
from fedtasks.clock import now_ms
from fedtasks.store import MetricRow, ModelRow, RefusalRow, TicketRequestRow
from fedtasks.tickets.clauses import clauses
from fedtasks.wire.v1 import ticket_pb2
from tests.support.gateways import PIPELINE, grant_ticket
from tests.support.pages import DAG_RUN, House, make_run
from tests.support.runs import wait_for
from tests.support.tickets import HEADER, claims_of, signed

READS = [route.path for route in read_routes(OwnParty()).routes]
CHANGES = [route.path for route in change_routes(OwnParty()).routes]
DAG = {"dag_id": PIPELINE, "dag_run_id": DAG_RUN}
FORBIDDEN = ("style=", "<script>", "onclick")


def sample(path: str) -> dict[str, str]:
    """What a read needs to be told."""
    if path in ("/run", "/run/joins", "/run/metrics", "/results"):
        return DAG
    if path == "/task":
        return {**DAG, "task_id": "train", "map_index": "{MAP_INDEX}"}
    return {"dag_id": PIPELINE} if path == "/compare" else {}


# -------------------------------------------------------------------------------------------------------------- rights
@pytest.mark.parametrize("path", READS)
def test_read_without_signing_in_is_refused(house: House, path: str) -> None:
    answer = house.get(f"api{path}", user="", **sample(path))
    assert (answer.status_code, answer.json()["code"]) == (401, "NOT_SIGNED_IN")


@pytest.mark.parametrize("user", ["vera", "udo", "ada"])
@pytest.mark.parametrize("path", READS)
def test_read_is_answered_to_every_role(house: House, path: str, user: str) -> None:
    answer = house.get(f"api{path}", user=user, **sample(path))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("body", [{}, {"run_id": "x"}], ids=["empty", "partial"])
def test_change_without_signing_in_is_refused(house: House, path: str, body: dict[str, str]) -> None:
    assert house.post(f"api{path}", body, user="").status_code == 401


@pytest.mark.parametrize("path", CHANGES)
def test_change_by_a_viewer_is_refused(house: House, path: str) -> None:
    answer = house.post(f"api{path}", {}, user="vera")
    assert (answer.status_code, answer.json()["code"]) == (403, "NOT_ALLOWED")


@pytest.mark.parametrize("path", [path for path in CHANGES if path.startswith("/tickets/")])
def test_change_of_the_party_by_a_user_is_refused(house: House, path: str) -> None:
    assert house.post(f"api{path}", {}, user="udo").status_code == 403


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("headers", [{"X-Fedtasks": ""}, {"Content-Type": "text/plain"}], ids=["header", "type"])
def test_change_that_no_page_of_ours_sent_is_refused(house: House, path: str, headers: dict[str, str]) -> None:
    answer = house.post(f"api{path}", {}, **headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "REQUEST_INVALID")


@pytest.mark.parametrize("path", CHANGES)
def test_change_with_a_field_too_many_names_it(house: House, path: str) -> None:
    answer = house.post(f"api{path}", {"surprise": 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "REQUEST_INVALID")
    assert "surprise" in answer.json()["text"]


def test_dag_that_may_not_be_read_is_not_shown(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    manager = type(get_auth_manager())
    monkeypatch.setattr(manager, "is_authorized_dag", lambda *_, **__: False)
    monkeypatch.setattr(manager, "get_authorized_dag_ids", lambda *_, **__: set())
    for path in READS:
        if "dag_id" in sample(path):
            assert house.get(f"api{path}", **sample(path)).status_code == 403, path
    seen = house.get("api/overview").json()
    assert (seen["running"], seen["recent"]) == ([], [])
    assert house.get("api/models").json() == {"models": []}
    assert house.post("api/run/cancel", {"run_id": house.run_id, "reason": "x"}).status_code == 403


def test_runs_of_a_dag_that_airflow_does_not_know_are_left_out(house: House) -> None:
    with house.pair.bank.store() as store:
        store.runs.add(make_run(7, dag_id="elsewhere", state="failed", closed_ms=1, opened_ms=1))
    assert {run["dag_id"] for run in house.get("api/runs").json()["runs"]} == {PIPELINE}
    assert house.get("api/runs", dag_id="elsewhere").json()["runs"] == []


# -------------------------------------------------------------------------------------------------------------- policy
@pytest.mark.parametrize(
    "path", ["federation", "static/icon.svg", "api/overview", "api/run", "nothing", "static/../plugin.py"]
)
def test_policy_is_on_every_response(house: House, path: str) -> None:
    headers = house.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize(
    "path", ["static/../plugin.py", "static/%2e%2e/plugin.py", "static//etc/passwd", "static/federation.html", "docs"]
)
def test_files_are_the_packages_own_and_no_other(house: House, path: str) -> None:
    assert house.get(path).status_code == 404


@pytest.mark.parametrize("page", ["federation", "federated", "progress", "compare"])
def test_shell_is_there_for_anybody_and_holds_no_data(house: House, page: str) -> None:
    answer = house.get(page, user="", **DAG)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert PIPELINE not in answer.text
    assert not any(text in answer.text for text in FORBIDDEN)


def test_file_that_the_browser_has_is_not_sent_again(house: House) -> None:
    etag = house.get("static/icon.svg").headers["etag"]
    again = house.client.get("/fedtasks/static/icon.svg", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")


def test_airflow_frames_the_pages_where_people_look(house: House) -> None:
    plugins = house.client.get("/api/v2/plugins", headers=house.headers("ada")).json()["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "fedtasks"]
    views = {view["url_route"]: view["destination"] for view in ours["external_views"]}
    assert views == {"federation": "nav", "federated": "dag_run", "progress": "task_instance", "compare": "dag"}
    assert all(view["href"].startswith("/fedtasks/") for view in ours["external_views"])


# --------------------------------------------------------------------------------------------------------------- reads
def test_run_is_shown_with_its_lanes_rights_and_times(house: House) -> None:
    run = house.get("api/run", **DAG).json()
    assert (run["run_id"], run["party"], run["peer"]) == (house.run_id, "bank", "shop")
    assert run["status"]["state"] == "running"
    assert [task["task"] for task in run["tasks"]] == ["psi", "align", "train", "evaluate", "close_run"]
    assert {right["what"]: right["may"] for right in run["rights"]} == {
        "metrics": True,
        "scores": True,
        "own half": True,
        "people": True,
    }
    assert run["times"]["computing_since_ms"]


def test_metrics_after_a_time_are_those_that_came_later(house: House) -> None:
    first = house.get("api/run/metrics", **DAG).json()
    assert [step for step, _value, _at in first["series"]["train.loss"]] == [1, 2, 3]
    later = max(at for _step, _value, at in first["series"]["train.loss"])
    assert house.get("api/run/metrics", **DAG, after_ms=later).json() == {"series": {}, "at_ms": later}


def test_refused_dag_run_says_why_and_an_unknown_one_that_there_is_none(house: House) -> None:
    failure = {"code": "PEER_PAUSED", "text": "paused <b>", "party": "shop", "task": "open_run", "at_ms": now_ms()}
    with house.pair.bank.store() as store:
        store.refusals.put(RefusalRow(PIPELINE, "refused-1", PIPELINE, "2026-11-21", "shop", failure, now_ms()))
    refused = house.get("api/run", dag_id=PIPELINE, dag_run_id="refused-1").json()
    assert (refused["state"], refused["failure"]["code"], refused["failure"]["act"]) == (
        "refused",
        "PEER_PAUSED",
        "shop",
    )
    assert refused["failure"]["remedy"]
    assert house.get("api/run", dag_id=PIPELINE, dag_run_id="never").json()["state"] == "none"
    assert house.get("api/results", dag_id=PIPELINE, dag_run_id="never").status_code == 404


def test_runs_of_a_dag_run_that_holds_several_are_shown_one_by_one(house: House) -> None:
    place = {"dag_id": PIPELINE, "dag_run_id": "several-1"}
    pipelines = [f"{PIPELINE}.{name}" for name in ("network", "trees")]
    with house.pair.bank.store() as store:
        for number, pipeline in enumerate(pipelines):
            run_id = f"{pipeline}.2026-11-21.bank.1"
            row = make_run(1, run_id=run_id, pipeline=pipeline, dag_run_id="several-1", opened_ms=number + 1)
            store.runs.add(replace(row, state="succeeded", closed_ms=9))
            store.metrics.put([MetricRow(run_id, "train", "loss", 1, number, 5)])
    last = house.get("api/run", **place).json()
    assert (last["pipeline"], last["pipelines"]) == (pipelines[1], pipelines)
    for number, pipeline in enumerate(pipelines):
        of = {**place, "pipeline": pipeline}
        assert house.get("api/run", **of).json()["run_id"] == f"{pipeline}.2026-11-21.bank.1"
        assert house.get("api/run/metrics", **of).json()["series"]["train.loss"] == [[1, number, 5]]
        task = house.get("api/task", **place, task_id=f"{pipeline.partition('.')[2]}.train", map_index="-1").json()
        assert (task["run_id"], task["task"]) == (f"{pipeline}.2026-11-21.bank.1", "train")
        compared = house.get("api/compare", dag_id=PIPELINE, pipeline=pipeline).json()
        assert [row["dag_run_id"] for row in compared["partitions"]] == ["several-1"]
        assert compared["pipelines"] == [PIPELINE, *pipelines]
    assert house.get("api/task", **place, task_id="other.train", map_index="-1").status_code == 404


def test_runs_come_page_by_page(house: House) -> None:
    with house.pair.bank.store() as store:
        for number in range(20, 25):
            store.runs.add(make_run(number, state="succeeded", closed_ms=1, opened_ms=number))
    first = house.get("api/runs", limit=3).json()
    second = house.get("api/runs", limit=3, before=first["runs"][-1]["run_id"]).json()
    assert (first["more"], len(first["runs"])) == (True, 3)
    assert not {run["run_id"] for run in first["runs"]} & {run["run_id"] for run in second["runs"]}


# ------------------------------------------------------------------------------------------------------------- changes
def test_preflight_by_a_user_finds_all_well(house: House) -> None:
    def checks() -> dict[str, bool]:
        answer = house.post("api/peers/preflight", {"peer": "shop", "pipeline": PIPELINE}, user="udo").json()
        return {check["name"]: check["ok"] for check in answer["checks"]}

    wait_for(lambda: checks()["connection"])
    assert set(checks().values()) == {True}
    (peer,) = house.get("api/peers").json()["peers"]
    assert peer["connected"]
    assert peer["checks"]


def test_ticket_request_reaches_the_peer_in_the_callers_name(house: House) -> None:
    body = {"peer": "shop", "pipelines": [PIPELINE], "role": "leader", "days": 30, "reason": "next year"}
    wait_for(lambda: house.get("api/peers").json()["peers"][0]["connected"])
    assert house.post("api/tickets/request", body).status_code == 200
    (request,) = house.get("api/tickets").json()["requests"]
    assert (request["asked_by"], request["reason"], request["state"]) == ("bank", "next year", "open")
    with house.pair.shop.store() as store:
        assert [row.own for row in store.ticket_requests.list()] == [False]


def test_ticket_is_revoked_in_the_callers_name(house: House) -> None:
    ticket_id = grant_ticket(house.pair.bank, house.pair.shop)
    answer = house.post("api/tickets/revoke", {"ticket_id": ticket_id, "reason": "no more"})
    assert answer.status_code == 200, answer.text
    (ticket,) = house.get("api/tickets").json()["granted"]
    assert (ticket["state"], ticket["revocable"]) == ("revoked", False)
    rows = house.get("api/audit").json()
    assert rows["chain"]["ok"]
    assert ("ada", "ticket.revoked") in {(row["actor"], row["action"]) for row in rows["rows"]}
    held = house.post("api/tickets/revoke", {"ticket_id": house.ticket_id, "reason": "mine?"})
    assert (held.status_code, held.json()["code"]) == (409, "TICKET_INVALID")


def test_ticket_is_declined_in_the_callers_name_and_the_grantor_learns_it(house: House) -> None:
    shop, bank = house.pair.shop, house.pair.bank
    ticket_id = grant_ticket(shop, bank, accept=False)
    answer = house.post("api/tickets/decline", {"ticket_id": ticket_id, "reason": "too wide"})
    assert answer.status_code == 200, answer.text
    held = {ticket["ticket_id"]: ticket for ticket in house.get("api/tickets").json()["held"]}
    assert (held[ticket_id]["state"], held[ticket_id]["declinable"]) == ("declined", False)
    assert ("ada", "ticket.declined") in {
        (row["actor"], row["action"]) for row in house.get("api/audit").json()["rows"]
    }
    with shop.store() as store:
        wait_for(lambda: store.tickets.get(ticket_id).declination is not None)
    accepted = house.post("api/tickets/decline", {"ticket_id": house.ticket_id, "reason": "too late"})
    assert (accepted.status_code, accepted.json()["code"]) == (409, "TICKET_INVALID")


@pytest.mark.parametrize("path", ["/tickets/accept", "/tickets/draft", "/tickets/grant"])
def test_ticket_is_signed_only_by_who_may_answer_required_actions(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

    manager = type(get_auth_manager())
    plain = manager.is_authorized_dag

    def without_approvals(self: Any, **asked: Any) -> bool:
        return asked.get("access_entity") is not DagAccessEntity.HITL_DETAIL and plain(self, **asked)

    monkeypatch.setattr(manager, "is_authorized_dag", without_approvals)
    assert house.post(f"api{path}", {}).status_code == 403


def ask_bank(house: House) -> str:
    """Let the shop ask the bank for a ticket; returns the request's name."""
    wait_for(lambda: house.get("api/peers").json()["peers"][0]["connected"])
    asked = ticket_pb2.TicketRequest(pipelines=[PIPELINE], role="leader", days=30, reason="<b>next</b> year")
    with house.pair.shop.client() as shop:
        return shop.request_ticket("bank", asked)


def terms_of(house: House, request_id: str) -> dict[str, Any]:
    """What the bank would grant."""
    form = house.get("api/tickets/form").json()
    (dataset,) = form["datasets"]
    bounds = {"limits.runs": 7} | {each["clause"]: each["default"] for each in form["clauses"] if each["choices"]}
    asked = {"request_id": request_id, "dataset": dataset["name"], "columns": dataset["columns"], "days": 9}
    return {**asked, "approval": "person", "bounds": bounds}


def test_request_is_granted_in_the_callers_name_after_every_clause_was_read(house: House) -> None:
    request_id = ask_bank(house)
    body = terms_of(house, request_id)
    draft = house.post("api/tickets/draft", body)
    assert draft.status_code == 200, draft.text
    told = {each["label"]: each["value"] for each in draft.json()["terms"]}
    assert (told["for"], told["valid for"], told["runs"]) == ("shop", "9 days", "7")
    assert told["approval"] == "a person of the granting side is asked before a run begins"
    assert {clause.label for clause in clauses().values()} <= told.keys()
    before = {each["ticket_id"] for each in house.get("api/tickets").json()["granted"]}
    granted = house.post("api/tickets/grant", body)
    assert granted.status_code == 200, granted.text
    (ticket,) = [each for each in house.get("api/tickets").json()["granted"] if each["ticket_id"] not in before]
    assert (ticket["ticket_id"], ticket["state"], ticket["peer"]) == (granted.json()["ticket_id"], "issued", "shop")
    assert ticket["terms"] == draft.json()["terms"]
    for path in ("draft", "grant"):
        assert house.post(f"api/tickets/{path}", body).status_code == 400
    assert len(house.get("api/tickets").json()["granted"]) == len(before) + 1
    audit = house.get("api/audit", action="ticket.issued", limit=1).json()
    assert [(row["actor"], row["detail"]["ticket"]) for row in audit["rows"]] == [("ada", ticket["ticket_id"])]
    with house.pair.shop.store() as store:
        wait_for(lambda: store.tickets.get(ticket["ticket_id"]) is not None)
        wait_for(lambda: {row.state for row in store.ticket_requests.list() if row.own} == {"granted"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dataset": "nothing"}, "nothing"),
        ({"bounds": {"limits.fun": 1}}, "limits.fun"),
        ({"bounds": {"limits.runs": 0}}, "runs"),
        ({"bounds": {"outputs.scores": "everybody"}}, "scores"),
        ({"columns": ["a", "a"]}, "twice"),
        ({"request_id": "never"}, "no request"),
    ],
    ids=["dataset", "clause", "bound", "choice", "columns", "request"],
)
def test_grant_that_no_ticket_can_say_is_refused_before_it_is_signed(
    house: House, changes: dict[str, Any], told: str
) -> None:
    body = {**terms_of(house, ask_bank(house)), **changes}
    for path in ("draft", "grant"):
        answer = house.post(f"api/tickets/{path}", body)
        assert answer.status_code in (400, 404), answer.text
        assert told in answer.json()["text"] or path == "grant"
    with house.pair.bank.store() as store:
        for row in store.ticket_requests.list():
            store.ticket_requests.settle(row.request_id, "declined")


def test_request_is_refused_and_the_peer_learns_why(house: House) -> None:
    request_id = ask_bank(house)
    body = {"request_id": request_id, "reason": "not this year"}
    for _ in range(2):
        assert house.post("api/tickets/refuse", body).status_code == 200
    for member in (house.pair.bank, house.pair.shop):
        with member.store() as store:
            states = {row.request_id: row.state for row in store.ticket_requests.list()}
            assert states[request_id] == "declined"
            (row,) = [row for row in store.audit.list(action="request.declined") if row.detail["request"] == request_id]
            assert row.detail["reason"] == "not this year"
            assert row.actor == {"bank": "ada", "shop": "bank"}[member.party.name]
    unknown = house.post("api/tickets/refuse", {**body, "request_id": "never"})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "CONFIG_INVALID")


def test_offered_ticket_is_accepted_in_the_callers_name(house: House) -> None:
    ticket_id = grant_ticket(house.pair.shop, house.pair.bank, accept=False)
    wait_for(lambda: ticket_id in {each["ticket_id"] for each in house.get("api/tickets").json()["held"]})
    for _ in range(2):
        assert house.post("api/tickets/accept", {"ticket_id": ticket_id}).status_code == 200
    held = {ticket["ticket_id"]: ticket["state"] for ticket in house.get("api/tickets").json()["held"]}
    assert held[ticket_id] == "accepted"
    rows = house.get("api/audit", action="ticket.accepted").json()["rows"]
    assert [row["actor"] for row in rows if row["detail"]["ticket"] == ticket_id] == ["ada"]
    with house.pair.shop.store() as store:
        wait_for(lambda: store.tickets.get(ticket_id).acceptance is not None)
    assert house.post("api/tickets/accept", {"ticket_id": "never"}).status_code == 404


# --------------------------------------------------------------------------------------------------------------- audit
def test_audit_is_filtered_and_exported_alike(house: House) -> None:
    with house.pair.bank.store() as store:
        store.audit.add("telco", "run.start", "refused", code="=1+1")
    asked = {"peer": "telco", "decision": "refused", "since_ms": 1}
    (row,) = house.get("api/audit", **asked).json()["rows"]
    answer = house.get("api/audit.csv", **asked)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    head, line = csv.reader(io.StringIO(answer.text))
    assert (head[0], line[0], line[2], line[6]) == ("number", str(row["seq"]), "telco", row["digest"])
    for wrong in ({"decision": "maybe"}, {"since_ms": -1}, {"peer": "x" * 129}):
        assert house.get("api/audit", **wrong).status_code == 400
        assert house.get("api/audit.csv", **wrong).status_code == 400


# --------------------------------------------------------------------------------------------------------------- badge
def test_navigation_counts_what_needs_the_user_and_was_not_dismissed(house: House) -> None:
    assert house.get("api/badge.svg", user="").status_code == 401
    with house.pair.bank.store() as store:
        asked = {"pipelines": ["p"], "dataset": "", "role": "leader", "days": 1, "reason": ""}
        store.ticket_requests.add(TicketRequestRow("badge", "shop", False, asked, "open", 1))
    keys = [need["key"] for need in house.get("api/overview").json()["needs"]]
    assert len(keys) == len(set(keys)) > 0
    plain = house.get("static/icon.svg").text

    def shown(user: str, dismissed: list[str]) -> str:
        house.client.cookies.clear()
        headers = {**house.headers(user), "Cookie": f"{COOKIE}={'.'.join(dismissed)}"}
        answer = house.client.get("/fedtasks/api/badge.svg", headers=headers)
        assert answer.headers["content-type"] == "image/svg+xml"
        return str(answer.text)

    assert f">{len(keys)}</text>" in shown("ada", [])
    assert shown("ada", keys) == plain
    assert f">{len(keys)}</text>" in shown("udo", keys)  # what somebody else has dismissed
    assert f">{len(keys)}</text>" in shown("ada", ["nonsense", "%00", "a" * 4000])
    with house.pair.bank.store() as store:
        store.ticket_requests.settle("badge", "declined")


def test_navigation_shows_no_number_to_who_may_not_see_the_party(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedtasks.airflow.pages.badge.sees_party", lambda _: False)
    monkeypatch.setattr("fedtasks.airflow.pages.badge.overview", lambda *_: pytest.fail("nothing is looked up"))
    assert house.get("api/badge.svg", user="vera", dark=True).text == house.get("static/icon-dark.svg").text


def test_tickets_are_answered_whatever_stands_in_the_store(house: House) -> None:
    with house.pair.bank.store() as store:
        row = store.tickets.get(house.ticket_id)
        for number, change in enumerate(({"exp": 10**4299}, {"exp": 10**13}, {"approval": "\ud800"})):
            poisoned = signed(HEADER, json.dumps({**claims_of(row.grant), **change}).encode())
            store.tickets.put(replace(row, ticket_id=f"poison-{number}", grant=poisoned, acceptance=None))
        asked = {"pipelines": ["\ud800"], "dataset": "", "role": "leader", "days": 1, "reason": "\ud800\x1b"}
        store.ticket_requests.add(TicketRequestRow("poison", "shop", False, asked, "open", 2**60))
    try:
        answers = [house.get(f"api/{path}") for path in ("tickets", "overview", "data")]
        assert [answer.status_code for answer in answers] == [200] * 3
        states = {ticket["ticket_id"]: ticket["state"] for ticket in answers[0].json()["held"]}
        assert [states[f"poison-{number}"] for number in range(3)] == ["unreadable"] * 3
        assert answers[0].json()["requests"][0]["reason"].startswith("?")
    finally:
        with house.pair.bank.store() as store:
            store.tickets.remove([f"poison-{number}" for number in range(3)])
            store.ticket_requests.settle("poison", "declined")


def test_champion_that_the_peer_does_not_hold_stays_as_it_was(house: House) -> None:
    first = ModelRow("credit", 1, "shop", house.run_id, "2026-11-21", None, "a" * 64, "b" * 64, None, {}, False, 1)
    with house.pair.bank.store() as store:
        for row in (first, replace(first, version=2, parent=1)):
            store.models.publish(row, PIPELINE)
    body: dict[str, Any] = {"model": "credit", "version": 1, "reason": "worse since"}
    assert house.post("api/models/champion", body).status_code == 409
    assert house.post("api/models/champion", {**body, "version": 9}).json()["code"] == "MODEL_UNKNOWN"
    (model,) = house.get("api/models").json()["models"]
    assert [(each["version"], each["champion"]) for each in model["versions"]] == [(2, True), (1, False)]


def test_run_is_cancelled_in_the_callers_name(house: House) -> None:
    unknown = house.post("api/run/cancel", {"run_id": "no.such.1", "reason": "x"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "RUN_UNKNOWN")
    assert house.post("api/run/cancel", {"run_id": house.run_id, "reason": "wrong day"}).status_code == 200
    status = house.get("api/run", **DAG).json()["status"]
    assert (status["state"], status["code"]) == ("failed", "RUN_CANCELLED")
    assert "ada: wrong day" in status["why"]


def test_gateway_that_does_not_run_is_named(house: House) -> None:
    house.pair.bank.stop()
    answer = house.post("api/peers/preflight", {"peer": "shop"})
    assert (answer.status_code, answer.json()["code"]) == (503, "GATEWAY_UNREACHABLE")
    assert house.get("api/overview").status_code == 200
