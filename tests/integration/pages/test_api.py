"""The pages' API inside Airflow's own application: who may read and change what, and what changes do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import tests.support.airflow_application  # noqa: F401 - gives Airflow a home of its own before it is imported
from fedtasks.airflow.pages.changes import change_routes
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.reads import read_routes
from fedtasks.clock import now_ms
from fedtasks.store import ModelRow, RefusalRow, TicketRequestRow
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
    if path in ("/run", "/run/metrics", "/results"):
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


@pytest.mark.parametrize("path", ["/tickets/revoke", "/tickets/decline", "/tickets/request"])
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
        store.refusals.put(RefusalRow(PIPELINE, "refused-1", "2026-11-21", "shop", failure, now_ms()))
    refused = house.get("api/run", dag_id=PIPELINE, dag_run_id="refused-1").json()
    assert (refused["state"], refused["failure"]["code"], refused["failure"]["who"]) == (
        "refused",
        "PEER_PAUSED",
        "peer",
    )
    assert refused["failure"]["remedy"]
    assert house.get("api/run", dag_id=PIPELINE, dag_run_id="never").json()["state"] == "none"
    assert house.get("api/results", dag_id=PIPELINE, dag_run_id="never").status_code == 404


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
