"""What people do and see while both gateways are up; read before the states, for which the bank's gateway stops."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from fedtasks.laptop.demo import DAG_RUN, PARTITION, PIPELINE, conf, wait_for
from tests.ui.conftest import Visitor, World

pytestmark = pytest.mark.timeout(900)

RUN_S = 600


def test_anonymous_page_asks_to_sign_in(world: World, visitor: Visitor) -> None:
    visitor.page.context.clear_cookies()
    page = visitor.open("federation")
    expect(page.get_by_role("alert")).to_contain_text("NOT_SIGNED_IN")
    visitor.faults[:] = [fault for fault in visitor.faults if "401" not in fault]


def test_peer_is_preflighted_from_the_page(world: World, visitor: Visitor) -> None:
    page = visitor.open("federation#peers")
    peer = page.get_by_role("article", name="Peer shop")
    expect(peer).to_contain_text("connected")
    peer.get_by_label("Pipeline").fill(PIPELINE)
    peer.get_by_role("button", name="Run preflight with shop").click()
    checks = page.get_by_role("region", name="Preflight with shop")
    expect(checks.get_by_text("good", exact=True).first).to_be_visible()
    expect(checks.get_by_text("not good", exact=True)).to_have_count(0)


def test_ticket_is_requested_and_the_peer_sees_it(world: World, visitor: Visitor) -> None:
    page = visitor.open("federation#tickets")
    page.get_by_role("button", name="Request a ticket").click()
    question = page.get_by_role("dialog")
    visitor.require_accessible()
    question.get_by_label("Pipelines").fill(PIPELINE)
    question.get_by_label("Reason").fill("the next <b>season</b>")
    question.get_by_role("button", name="Request a ticket").click()
    expect(question).to_have_count(0)
    expect(page.get_by_role("region", name="Requests for tickets")).to_contain_text("the next <b>season</b>")


def test_ticket_is_revoked_with_a_reason(world: World, visitor: Visitor) -> None:
    issue = ("ticket", "issue", "--to", "shop", "--dataset", "loans", "--role", "follower", "--pipeline", PIPELINE)
    world.bank.command(*issue, "--days", "30")
    tickets = json.loads(world.bank.command("ticket", "list", "--json"))
    (ticket,) = [each for each in tickets if each["granted_by"] == "bank"]
    page = visitor.open("federation#tickets")
    card = page.get_by_role("article", name=f"Ticket {ticket['ticket_id']}")
    card.get_by_role("button", name="Revoke").click()
    question = page.get_by_role("dialog")
    question.get_by_role("button", name="Revoke").click()
    expect(question).to_be_visible()  # nothing is changed without a reason
    question.get_by_label("Reason").fill("issued by mistake")
    question.get_by_role("button", name="Revoke").click()
    expect(card).to_contain_text("Revoked")


def test_real_run_is_followed_in_its_tab_of_airflow(world: World, visitor: Visitor) -> None:
    world.bank.trigger(PIPELINE, DAG_RUN, conf(PARTITION))
    wait_for(lambda: world.bank.dag_run(PIPELINE, DAG_RUN)["state"] != "queued", 60, "the DAG run to start")
    visitor.page.goto(f"{visitor.root}/dags/{PIPELINE}/runs/{DAG_RUN}/plugin/federated")
    frame = visitor.page.frame_locator("iframe")
    done = frame.get_by_role("status").filter(has_text="Done with shop")
    expect(done).to_be_visible(timeout=RUN_S * 1000)
    expect(frame.get_by_role("heading", name=f"{PIPELINE} · {PARTITION}")).to_be_visible()
    expect(frame.get_by_role("figure", name="ROC")).to_be_attached()
    expect(frame.get_by_text("Both receipts agree")).to_be_attached()
    visitor.picture("run-in-airflow")
