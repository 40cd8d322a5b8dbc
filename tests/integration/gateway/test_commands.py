"""Commands against real gateways: tickets cross by themselves, runs are shown and ended, `doctor` sees the peer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from fedtasks import doctor
from fedtasks.cli import app
from tests.integration.gateway.conftest import Pair
from tests.integration.gateway.parties import PIPELINE, Member, grant_ticket
from tests.integration.gateway.test_opening import open_run, wait_for


def command(member: Member, *arguments: str, expect: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--party", str(member.folder / "party.yaml")])
    assert done.exit_code == expect, done.output
    return str(done.stdout)


def listed(member: Member, *arguments: str) -> Any:
    return json.loads(command(member, *arguments, "--json"))


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


def test_runs_and_run_show_tell_of_both_halves(running: Pair, run_id: str) -> None:
    with running.bank.client() as bank:
        bank.announce(run_id, "train", "try-1", 60)
    (row,) = listed(running.bank, "runs")
    assert (row["run_id"], row["initiator"], row["state"], row["peer_state"]) == (run_id, "bank", "running", "running")
    wait_for(lambda: [task["peer"] for task in listed(running.shop, "run", "show", run_id)["tasks"]] != [])
    (task,) = listed(running.shop, "run", "show", run_id)["tasks"]
    assert (task["task"], task["own"], task["peer"]) == ("train", "—", "waiting (attempt 1)")
    assert run_id in command(running.shop, "run", "show", run_id)


def test_run_cancel_ends_both_sides_with_the_reason(running: Pair, run_id: str) -> None:
    command(running.bank, "run", "cancel", run_id, "--reason", "wrong day")
    assert listed(running.bank, "run", "show", run_id)["failure_code"] == "RUN_CANCELLED"
    wait_for(lambda: listed(running.shop, "run", "show", run_id)["state"] == "failed")
    failure = listed(running.shop, "run", "show", run_id)["failure"]
    assert failure.startswith("PEER_CANCELLED")
    assert "wrong day" in failure


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


def test_doctor_finds_a_peer_whose_clock_is_off(pair: Pair) -> None:
    pair.bank.start()
    pair.shop.start(skew_ms=300_000)

    def peer_text() -> str:
        findings = {finding.subject: finding for finding in doctor.examine(pair.bank.folder / "party.yaml")}
        return findings["peer shop"].text if findings["peer shop"].verdict is doctor.Verdict.WRONG else ""

    wait_for(lambda: "clock differs by 300 s" in peer_text())
