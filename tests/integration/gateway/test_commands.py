"""Commands against real gateways: tickets cross by themselves, runs are shown and ended, `doctor` sees the peer."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fedtasks.clock import now_ms
from fedtasks.doctor import party as doctor
from fedtasks.gateway.tickets import MAX_OFFERS
from fedtasks.store import Store
from tests.support.command_line import invoke
from tests.support.commands import command, listed
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for


def ticket_states(member: Member) -> list[str]:
    return [row["state"] for row in listed(member, "ticket", "list")]


@pytest.fixture
def run_id(running: Pair) -> str:
    """A run that the bank has opened under a ticket of the shop."""
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank:
        opened = open_run(bank).run.run_id
    running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
    return str(opened)


def test_ticket_issued_accepted_and_revoked_crosses_without_a_file(running: Pair) -> None:
    bank, shop = running.bank, running.shop
    command(shop, "ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", PIPELINE)
    wait_for(lambda: ticket_states(bank) == ["issued"])
    (ticket,) = listed(bank, "ticket", "list")
    command(bank, "ticket", "accept", ticket["ticket_id"])
    wait_for(lambda: ticket_states(shop) == ["accepted"])
    command(shop, "ticket", "revoke", ticket["ticket_id"], "--reason", "contract ended")
    wait_for(lambda: ticket_states(bank) == ["revoked"])
    assert listed(bank, "ticket", "show", ticket["ticket_id"])["revoked_because"] == "contract ended"


def test_ticket_declined_crosses_and_what_the_peer_does_not_take_holds_nothing_up(running: Pair) -> None:
    bank, shop = running.bank, running.shop
    issue = ("ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", PIPELINE)
    for _ in range(MAX_OFFERS + 1):
        command(shop, *issue)
    wait_for(lambda: ticket_states(bank) == ["issued"] * MAX_OFFERS)
    offered = {row["ticket_id"] for row in listed(bank, "ticket", "list")}
    first = min(offered)
    command(shop, "ticket", "revoke", first, "--reason", "too many")
    wait_for(lambda: "revoked" in ticket_states(bank))
    second = min(offered - {first})
    command(bank, "ticket", "decline", second, "--reason", "too wide")
    wait_for(lambda: "declined" in ticket_states(shop))
    assert listed(shop, "ticket", "show", second)["declined_because"] == "too wide"


def test_runs_and_run_show_tell_of_both_halves(running: Pair, run_id: str) -> None:
    with running.bank.client() as bank:
        bank.announce(run_id, "train", "try-1", 60)
    (row,) = listed(running.bank, "runs", "--state", "waiting", "--peer", "shop", "--pipeline", PIPELINE)
    assert (row["run_id"], row["initiator"], row["peer_state"]) == (run_id, "bank", "running")
    assert row["sentence"].startswith("⏳ Waiting for shop · train · shop's half has not begun · since ")
    assert listed(running.bank, "runs", "--state", "failed") == []

    def halves() -> tuple[Any, Any]:
        lanes = {task["task"]: task for task in listed(running.shop, "run", "show", run_id)["tasks"]}
        return lanes.get("train", {}).get("own"), lanes.get("train", {}).get("peer")

    wait_for(lambda: halves()[1] is not None)
    assert halves()[0] is None
    assert (halves()[1]["state"], halves()[1]["attempt"]) == ("waiting", 1)
    assert "⏳ waiting" in command(running.shop, "run", "show", run_id)


def test_run_watch_outlives_a_gateway_and_ends_as_the_run_does(running: Pair, run_id: str) -> None:
    bank = running.bank
    watch = [sys.executable, "-m", "fedtasks.cli", "run", "watch", run_id, "--json"]
    watch += ["--party", str(bank.folder / "party.yaml")]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        bank.stop()
        bank.start()
        with bank.client() as client:
            client.announce(run_id, "train", "try-1", 60)
        second = json.loads(watching.stdout.readline())
        command(bank, "run", "cancel", run_id, "--reason", "wrong day")
        *_, last = [json.loads(line) for line in watching.stdout]
        assert watching.wait(10) == 1
    assert [report["status"]["state"] for report in (first, second, last)] == ["opened", "waiting", "failed"]
    assert last["code"] == "RUN_CANCELLED"


def test_run_cancel_ends_both_sides_with_the_reason(running: Pair, run_id: str) -> None:
    ended = listed(running.bank, "run", "cancel", run_id, "--reason", "wrong day")
    assert (ended["state"], ended["code"]) == ("failed", "RUN_CANCELLED")
    wait_for(lambda: listed(running.shop, "run", "show", run_id)["state"] == "failed")
    report = listed(running.shop, "run", "show", run_id)
    assert report["code"] == "PEER_CANCELLED"
    assert "wrong day" in report["failure"]


def test_run_cancel_without_a_gateway_names_the_remedy(
    running: Pair, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.bank.stop()
    monkeypatch.setattr("fedtasks.cli.runs.PATIENCE_S", 0.1)
    party_file = str(running.bank.folder / "party.yaml")
    refused = invoke("run", "cancel", run_id, "--reason", "x", "--party", party_file)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("GATEWAY_UNREACHABLE · ")
    assert "fedtasks gateway" in refused.stderr


def test_run_show_of_an_unknown_run_is_refused(running: Pair) -> None:
    command(running.bank, "run", "show", "nothing.here.1", expect=1)


def test_peer_list_and_doctor_see_the_peer_come_and_go(running: Pair) -> None:
    def seen() -> tuple[str, str]:
        findings = {finding.subject: finding for finding in doctor.examine(running.bank.folder / "party.yaml")}
        return findings["gateway"].verdict.value, findings["peer shop"].verdict.value

    wait_for(lambda: seen() == ("ok", "ok"))
    assert listed(running.bank, "peer", "list")[0]["state"] == "connected"
    running.shop.stop()
    wait_for(lambda: seen() == ("ok", "wrong"))
    assert listed(running.bank, "peer", "list")[0]["state"] == "not connected"


def test_peer_preflight_says_what_keeps_a_run_from_starting(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    looked = ("peer", "preflight", "shop", "--pipeline", PIPELINE)
    wait_for(lambda: listed(running.bank, "peer", "list")[0]["state"] == "connected")
    assert "✔ ok" in command(running.bank, *looked)
    running.shop.airflow.dags[PIPELINE]["is_paused"] = True
    found = {each["subject"]: each for each in json.loads(command(running.bank, *looked, "--json", expect=1))}
    assert found["connection"]["verdict"] == "ok"
    assert found["shop: DAG"]["verdict"] == "wrong"
    assert found["shop: DAG"]["text"].startswith("PEER_PAUSED: ")
    assert "Unpause" in found["shop: DAG"]["remedy"]


def test_ticket_request_is_seen_on_both_sides_until_it_is_granted(running: Pair) -> None:
    wait_for(lambda: listed(running.bank, "peer", "list")[0]["state"] == "connected")
    asked = ("--from", "shop", "--pipeline", PIPELINE, "--dataset", "customers", "--reason", "monthly scores")
    request_id = listed(running.bank, "ticket", "request", *asked)["request_id"]
    for member in (running.bank, running.shop):
        (row,) = listed(member, "ticket", "requests")
        assert (row["request_id"], row["asked_by"], row["of"], row["state"]) == (request_id, "bank", "shop", "open")
        assert "monthly scores" in command(member, "ticket", "requests")
    command(running.shop, "ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", PIPELINE)
    wait_for(lambda: listed(running.bank, "ticket", "requests")[0]["state"] == "granted")


def test_ticket_request_is_refused_with_a_reason_that_both_sides_keep(running: Pair) -> None:
    wait_for(lambda: listed(running.bank, "peer", "list")[0]["state"] == "connected")
    asked = ("--from", "shop", "--pipeline", PIPELINE, "--reason", "monthly scores")
    request_id = listed(running.bank, "ticket", "request", *asked)["request_id"]
    command(running.bank, "ticket", "refuse", request_id, expect=1)  # one's own is not one's own to refuse
    command(running.shop, "ticket", "refuse", request_id, "--reason", "not this year")
    for member in (running.bank, running.shop):
        assert [row["state"] for row in listed(member, "ticket", "requests")] == ["declined"]
        with member.store() as store:
            (row,) = store.audit.list(action="request.declined")
            assert (row.actor, row.detail["reason"]) == ("shop", "not this year")


@pytest.mark.usefixtures("impatient")
def test_ticket_request_of_a_peer_that_is_away_stays_open(running: Pair) -> None:
    wait_for(lambda: listed(running.bank, "peer", "list")[0]["state"] == "connected")
    asked = ("--from", "shop", "--pipeline", PIPELINE, "--reason", "monthly scores")
    request_id = listed(running.bank, "ticket", "request", *asked)["request_id"]
    running.bank.stop()
    command(running.shop, "ticket", "refuse", request_id, expect=1)
    assert [row["state"] for row in listed(running.shop, "ticket", "requests")] == ["open"]


def test_doctor_says_whether_airflow_has_the_pages(pair: Pair) -> None:
    def pages() -> tuple[str, str]:
        findings = {finding.subject: finding for finding in doctor.examine(pair.bank.folder / "party.yaml")}
        return findings["pages"].verdict.value, findings["pages"].remedy

    Store.open(pair.bank.party.store.url).close()
    assert pages() == ("ok", "")
    pair.bank.airflow.has_pages = False
    assert pages()[0] == "warning"
    assert "api-server" in pages()[1]


def test_doctor_finds_a_peer_whose_clock_is_off(pair: Pair) -> None:
    pair.bank.start()
    pair.shop.start(clock=lambda: now_ms() + 300_000)

    def peer_text() -> str:
        findings = {finding.subject: finding for finding in doctor.examine(pair.bank.folder / "party.yaml")}
        return findings["peer shop"].text if findings["peer shop"].verdict is doctor.Verdict.WRONG else ""

    wait_for(lambda: "clock differs by 300 s" in peer_text())
