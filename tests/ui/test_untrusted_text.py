"""A peer that writes markup wherever it may write; read after the states, whose pictures have none of it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from fedtasks.laptop.demo_run import PIPELINE
from fedtasks.store import Store
from tests.support.browser import Visitor
from tests.support.ui_seed import MARKUP, see_peer, spoil

pytestmark = pytest.mark.timeout(600)

FAILED = {"dag_id": PIPELINE, "run_id": "failed"}
PLACES = {
    "failed run": ("federated", FAILED),
    "refused run": ("federated", {"dag_id": PIPELINE, "run_id": "refused"}),
    "failed task": ("progress", {**FAILED, "task_id": "align"}),
    "overview": ("federation#overview", {}),
    "tickets": ("federation#tickets", {}),
    "peers": ("federation#peers", {}),
    "audit": ("federation#audit", {}),
}


@pytest.fixture(scope="module")
def spoilt(seeded: Store) -> Store:
    spoil(seeded)
    return seeded


@pytest.mark.parametrize("place", PLACES)
def test_text_of_the_peer_stays_text(spoilt: Store, visitor: Visitor, place: str) -> None:
    see_peer(spoilt, connected=False, why=f"connection refused {MARKUP}")
    name, query = PLACES[place]
    visitor.page.set_viewport_size({"width": 480, "height": 800})
    page = visitor.open(name, **query)
    expect(page.get_by_text(MARKUP).first).to_be_visible()
    assert page.locator("img").count() == 0
    assert page.title() in ("Federation", "Federated", "Progress")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visitor.require_accessible()
