"""What people do and see while both gateways are up; read before the states, for which the bank's gateway stops."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from fedtasks.clock import now_ms
from fedtasks.laptop.demo_run import DAG_RUN, PARTITION, PIPELINE, conf, wait_for
from fedtasks.store import ModelRow
from fedtasks.tickets.clauses import clauses
from tests.support.browser import PATIENCE_MS, Visitor, World, open_store

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


def test_request_is_granted_after_every_clause_was_shown(world: World, visitor: Visitor) -> None:
    request_id = ask_bank(world, "the next <b>season</b>")
    page = visitor.open("federation#tickets")
    page.get_by_role("button", name=f"Grant request {request_id}").click()
    form = page.get_by_role("dialog")
    expect(form).to_contain_text(f"shop asks to run {PIPELINE} as follower")
    form.get_by_text("Limits: how much").click()
    form.get_by_label(re.compile("^runs")).fill("7")
    visitor.require_accessible()
    visitor.picture("grant-form")
    form.get_by_role("button", name="Read what it says").click()
    question = page.get_by_role("dialog", name="Grant this ticket to shop")
    terms = question.get_by_role("region", name="What the ticket says")
    for clause in clauses().values():
        expect(terms.get_by_role("rowheader", name=clause.label, exact=True).first).to_be_attached()
    expect(terms.get_by_role("row", name=re.compile("^runs 7 "))).to_be_attached()
    visitor.require_accessible()
    visitor.picture("grant-confirmation")
    assert granted(world, "bank") == []
    question.get_by_role("button", name="Cancel").click()
    expect(form).to_be_visible()  # with all that was filled in
    form.get_by_role("button", name="Read what it says").click()
    question.get_by_role("button", name="Grant this ticket to shop").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    (ticket,) = granted(world, "bank")
    expect(page.get_by_role("article", name=f"Ticket {ticket['ticket_id']}")).to_contain_text("7 of 7 left")
    wait_for(lambda: ticket["ticket_id"] in world.shop.command("ticket", "list"), 60, "the ticket to reach the shop")


def test_request_is_declined_with_a_reason_that_the_peer_reads(world: World, visitor: Visitor) -> None:
    request_id = ask_bank(world, "too much")
    page = visitor.open("federation#tickets")
    page.get_by_role("button", name=f"Decline request {request_id}").click()
    question = page.get_by_role("dialog")
    question.get_by_label("Reason").fill("not this year")
    question.get_by_role("button", name="Decline shop's request").click()
    expect(page.get_by_role("row").filter(has_text=request_id)).to_contain_text("Declined")
    asked = json.loads(world.shop.command("ticket", "requests", "--json"))
    assert {each["request_id"]: each["state"] for each in asked}[request_id] == "declined"


def test_offered_ticket_is_accepted_after_every_clause_was_shown(world: World, visitor: Visitor) -> None:
    issue = ("ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", "offline_psi", "--json")
    ticket_id = json.loads(world.shop.command(*issue))["ticket_id"]
    wait_for(lambda: ticket_id in world.bank.command("ticket", "list"), 60, "the ticket to reach the bank")
    page = visitor.open("federation#tickets")
    card = page.get_by_role("article", name=f"Ticket {ticket_id}")
    card.get_by_role("button", name="Accept").click()
    question = page.get_by_role("dialog")
    for clause in clauses().values():
        expect(question.get_by_role("rowheader", name=clause.label, exact=True).first).to_be_attached()
    visitor.require_accessible()
    visitor.picture("accept-confirmation")
    question.get_by_role("button", name="Accept ticket").click()
    expect(card).to_contain_text("Accepted")


def ask_bank(world: World, why: str) -> str:
    """Let the shop ask the bank for a ticket; returns the request's name."""
    ask = ("ticket", "request", "--from", "bank", "--pipeline", PIPELINE, "--role", "follower", "--reason", why)
    return str(json.loads(world.shop.command(*ask, "--json"))["request_id"])


def granted(world: World, party: str) -> list[dict[str, str]]:
    """Return the tickets that a party has granted and not revoked, as the bank lists them."""
    tickets = json.loads(world.bank.command("ticket", "list", "--json"))
    return [each for each in tickets if each["granted_by"] == party and each["state"] != "revoked"]


def test_ticket_is_revoked_with_a_reason(world: World, visitor: Visitor) -> None:
    issue = ("ticket", "issue", "--to", "shop", "--dataset", "loans", "--role", "follower", "--pipeline", PIPELINE)
    ticket_id = json.loads(world.bank.command(*issue, "--days", "30", "--json"))["ticket_id"]
    page = visitor.open("federation#tickets")
    card = page.get_by_role("article", name=f"Ticket {ticket_id}")
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


def test_version_is_rolled_back_on_both_sides(world: World, visitor: Visitor) -> None:
    run_id, digests = f"{PIPELINE}.{PARTITION}.bank.1", ("a" * 64, "b" * 64)
    for party, peer, (own, theirs) in ((world.bank, "shop", digests), (world.shop, "bank", digests[::-1])):
        first = ModelRow("risk", 1, peer, run_id, PARTITION, None, own, theirs, {"auc": 0.84}, {}, True, now_ms())
        with open_store(party) as store:
            for version in (first, replace(first, version=2, parent=1)):
                store.models.publish(version, PIPELINE)
    page = visitor.open("federation#models")
    page.get_by_role("button", name="Roll back to version 1 of risk").click()
    question = page.get_by_role("dialog")
    visitor.require_accessible()
    question.get_by_label("Reason").fill("the newer one drifts")
    question.get_by_role("button", name="Roll back to version 1 of risk").click()
    expect(page.get_by_role("button", name="Promote version 2 of risk")).to_be_visible()
    for party in (world.bank, world.shop):
        with open_store(party) as store:
            champion = store.models.champion("risk")
            assert champion is not None
            assert champion.version == 1


def test_run_is_cancelled_on_both_sides_with_the_reason(world: World, visitor: Visitor) -> None:
    name, partition = "ended-by-hand", "2026-11-30"
    world.bank.trigger(PIPELINE, name, conf(partition))
    wait_for(lambda: shops_run(world, partition), 120, "the shop to take part")
    page = visitor.open("federated", dag_id=PIPELINE, run_id=name)
    page.get_by_role("button", name="Cancel run").click()
    question = page.get_by_role("dialog")
    question.get_by_label("Reason").fill("<b>the wrong</b> day")
    question.get_by_role("button", name=f"Cancel {PIPELINE}").click()
    expect(page.get_by_role("status")).to_contain_text("Failed at bank", timeout=PATIENCE_MS)
    expect(page.locator("body")).to_contain_text("RUN_CANCELLED")
    expect(page.locator("body")).to_contain_text("<b>the wrong</b> day")
    wait_for(lambda: world.bank.dag_run(PIPELINE, name)["state"] == "failed", 120, "the bank's DAG run to fail")
    wait_for(lambda: shops_run(world, partition) == "PEER_CANCELLED", 60, "the shop to learn of it")
    visitor.picture("run-cancelled")


def shops_run(world: World, partition: str) -> str:
    """Return how the shop's run of a partition stands: its state, or the code that it has failed with; or nothing."""
    with open_store(world.shop) as store:
        rows = store.runs.of_partition(PIPELINE, partition)
    return str((rows[0].failure or {}).get("code", rows[0].state)) if rows else ""
