"""A browser before the Airflows of a bank and a shop; what every page must keep to is checked for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from fedtasks.config import read_secret
from fedtasks.laptop.demo import introduce, prepare, start, stop
from fedtasks.laptop.party import LocalParty
from fedtasks.store import Store
from tests.support.browser import Visitor, World, open_store
from tests.support.ui_seed import see_peer, seed

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZE = {"width": 1000, "height": 760}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="folder for pictures of the pages; by default they are thrown away")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ui)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both parties up, and the ticket accepted."""
    parties = bank, shop = prepare(tmp_path_factory.mktemp("parties") / "two")
    introduce(bank, shop)
    try:
        yield World(bank, shop, start(parties))
    finally:
        stop(parties)


@pytest.fixture(scope="session")
def seeded(world: World) -> Iterator[Store]:
    """The bank's store with a run in every state; its gateway is down, so that none of them moves."""
    world.bank.stop_gateway()
    with open_store(world.bank) as store:
        seed(store, world.ticket_id)
        yield store


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = request.config.getoption("--pictures", None) or tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cookie(world: World) -> dict[str, Any]:
    """What the browser of somebody who is signed in at the bank holds."""
    return signed_in(world.bank)


@pytest.fixture(scope="session")
def shop_cookie(world: World) -> dict[str, Any]:
    """What the browser of somebody who is signed in at the shop holds."""
    return signed_in(world.shop)


def signed_in(party: LocalParty) -> dict[str, Any]:
    airflow = party.airflow
    login = {"username": airflow.user, "password": read_secret(airflow.password_file)}
    answer = httpx.post(f"{airflow.url}/auth/token", json=login, trust_env=False).raise_for_status()
    return {"name": "_token", "value": answer.json()["access_token"], "url": airflow.url}


@pytest.fixture
def visitor(world: World, browser: Browser, cookie: dict[str, Any], pictures: Path) -> Iterator[Visitor]:
    """Somebody signed in at the bank."""
    with visiting(browser, world.bank, cookie, pictures) as visitor:
        yield visitor


@pytest.fixture
def shop_visitor(world: World, browser: Browser, shop_cookie: dict[str, Any], pictures: Path) -> Iterator[Visitor]:
    """Somebody signed in at the shop."""
    with visiting(browser, world.shop, shop_cookie, pictures) as visitor:
        yield visitor


@contextmanager
def visiting(browser: Browser, party: LocalParty, cookie: dict[str, Any], pictures: Path) -> Iterator[Visitor]:
    """Open a browser at a party; no page may have logged an error, broken the policy or asked another origin."""
    with browser.new_context(viewport=SIZE, accept_downloads=True) as context:
        context.add_cookies([cookie])
        visitor = Visitor(context.new_page(), party.airflow.url, pictures)
        yield visitor
        assert visitor.faults == []


@pytest.fixture
def peer_seen(seeded: Store) -> Store:
    """The seeded store, whose gateway has just seen the shop."""
    see_peer(seeded)
    return seeded
