"""A person of the granting side approves or rejects a run with the mouse, and gives no reason; read on both sides."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from fedtasks.laptop.demo_run import PIPELINE, conf, wait_for
from fedtasks.store import RunRow
from tests.support.browser import Visitor, World, open_store
from tests.support.two_airflows import await_question

pytestmark = pytest.mark.timeout(900)

RUN_S = 240
"""For what waits for two Airflows."""
APPROVED, REJECTED = "2026-11-02", "2026-11-03"
"""Before the partitions of the seeded runs, whose newest the page that compares begins with."""


@pytest.fixture(scope="module")
def ticket(world: World) -> Iterator[str]:
    """A ticket of the shop's that asks for a person, accepted by the bank; afterwards no run may find it."""
    issue = ("ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", PIPELINE, "--json")
    terms = ("--approval", "person", "--concurrent", "2", "--label-protection", "none")
    ticket_id = str(json.loads(world.shop.command(*issue, *terms))["ticket_id"])
    wait_for(lambda: ticket_id in world.bank.command("ticket", "list", "--json"), 60, "the ticket to arrive")
    world.bank.command("ticket", "accept", ticket_id)
    wait_for(lambda: '"accepted"' in world.shop.command("ticket", "show", ticket_id, "--json"), 60, "its acceptance")
    yield ticket_id
    world.shop.command("ticket", "revoke", ticket_id, "--reason", "no longer needed")
    wait_for(lambda: '"revoked"' in world.bank.command("ticket", "show", ticket_id, "--json"), 60, "its revocation")


def test_run_goes_on_on_both_sides_once_somebody_clicks_approve(
    world: World, ticket: str, visitor: Visitor, shop_visitor: Visitor
) -> None:
    run_id = ask(world, ticket, "approved-by-hand", APPROVED, train={"epochs": 2})
    page = visitor.open("federated", dag_id=PIPELINE, run_id="approved-by-hand")
    expect(status(page)).to_contain_text("Waiting for shop · approve")
    expect(page.locator("body")).to_contain_text("a person of shop has yet to approve the run")
    click(shop_visitor, run_id, "Approve")
    shops = shop_visitor.open("federated", dag_id=PIPELINE, run_id=run_id)
    for one, peer in ((page, "shop"), (shops, "bank")):
        expect(status(one)).to_have_text(f"Done with {peer}", timeout=RUN_S * 1000)
    approval = shops.locator("section").filter(has=shops.get_by_role("heading", name="Approval"))
    expect(approval).to_contain_text("admin")  # who said yes; the bank is not told
    expect(page.locator("body")).not_to_contain_text("admin")
    await_end(world, "approved-by-hand", run_id, "success")


def test_run_ends_on_both_sides_once_somebody_clicks_reject(
    world: World, ticket: str, visitor: Visitor, shop_visitor: Visitor
) -> None:
    run_id = ask(world, ticket, "rejected-by-hand", REJECTED, train={"epochs": 3})
    click(shop_visitor, run_id, "Reject")
    await_end(world, "rejected-by-hand", run_id, "failed")
    page = visitor.open("federated", dag_id=PIPELINE, run_id="rejected-by-hand")
    shops = shop_visitor.open("federated", dag_id=PIPELINE, run_id=run_id)
    for one in (page, shops):
        expect(status(one)).to_have_text("Failed at shop · approve", timeout=RUN_S * 1000)
        body = one.locator("body")
        expect(body).to_contain_text("APPROVAL_REJECTED")
        expect(body).to_contain_text("A person of the granting party has rejected the run")
        expect(body).to_contain_text("Agree on what may run, then start the partition again")
    visitor.picture("run-rejected")


def ask(world: World, ticket: str, name: str, partition: str, **steps: dict[str, int]) -> str:
    """Let the bank ask for a run and wait until a person of the shop may answer; returns the run's id."""
    world.bank.trigger(PIPELINE, name, {**conf(partition, **steps), "ticket": ticket})
    wait_for(lambda: shops_run(world, partition), RUN_S, "the shop to take part")
    run_id = f"{PIPELINE}.{partition}.bank.1"
    await_question(world.shop, run_id)
    return run_id


def click(visitor: Visitor, run_id: str, answer: str) -> None:
    """Go from the run's page to Airflow's form, as its link leads, and click; the reason stays empty."""
    visitor.page.set_default_timeout(RUN_S * 1000)
    visitor.page.goto(f"{visitor.root}/dags/{PIPELINE}/runs/{run_id}/plugin/federated")
    frame = visitor.page.frame_locator("iframe")
    expect(frame.get_by_role("status").first).to_contain_text("Waiting for shop · approve", timeout=RUN_S * 1000)
    frame.get_by_role("link", name="Approve or reject, where this side is asked").click()
    button = visitor.page.get_by_role("button", name=answer, exact=True)
    expect(button).to_be_enabled(timeout=RUN_S * 1000)
    expect(visitor.page.get_by_text("Reason (optional)").first).to_be_visible()
    visitor.picture(f"question-{answer.lower()}")
    button.click()


def status(page: Page) -> Locator:
    return page.get_by_role("status").first


def shops_run(world: World, partition: str) -> list[RunRow]:
    with open_store(world.shop) as store:
        return list(store.runs.of_partition(PIPELINE, partition))


def await_end(world: World, name: str, run_id: str, state: str) -> None:
    """Wait until both sides' DAG runs have ended so."""
    pairs = ((world.bank, name), (world.shop, run_id))
    wait_for(
        lambda: all(party.dag_run(PIPELINE, dag_run)["state"] == state for party, dag_run in pairs),
        RUN_S,
        f"both DAG runs to end: {state}",
    )
