"""A browser before the Airflows of a bank and a shop; what every page must keep to is checked for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

from fedtasks.config import read_secret
from fedtasks.laptop.demo import grant, introduce, prepare, start, stop
from fedtasks.laptop.party import LocalParty
from fedtasks.store import Store
from tests.ui.seed import see_peer, seed

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZE = {"width": 1000, "height": 760}
PATIENCE_MS = 30_000
SERIOUS = ("serious", "critical")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="folder for pictures of the pages; by default they are thrown away")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ui)


@dataclass(frozen=True)
class World:
    """Both parties, and the ticket that the shop has granted."""

    bank: LocalParty
    shop: LocalParty
    ticket_id: str


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both parties up, and the ticket accepted."""
    parties = bank, shop = prepare(tmp_path_factory.mktemp("parties") / "two")
    introduce(bank, shop)
    try:
        start(parties)
        yield World(bank, shop, grant(bank, shop))
    finally:
        stop(parties)


@pytest.fixture(scope="session")
def seeded(world: World) -> Iterator[Store]:
    """The bank's store with a run in every state; its gateway is down, so that none of them moves."""
    world.bank.stop_gateway()
    with open_store(world.bank) as store:
        seed(store, world.ticket_id)
        yield store


@contextmanager
def open_store(party: LocalParty) -> Iterator[Store]:
    where = party.party().store
    with Store.open(where.url, where.password_file) as store:
        yield store


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


class Visitor:
    """Somebody at the bank's pages, who notes whatever a page must not do."""

    def __init__(self, page: Page, root: str, pictures: Path) -> None:
        self.page = page
        self.root = root
        self.faults: list[str] = []
        self._pictures = pictures
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note_console)
        page.on("pageerror", self._note_error)
        page.on("request", self._note_request)
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))

    def open(self, page: str, **query: str) -> Page:
        """Open a page by itself, as Airflow's frame would."""
        name, _, tab = page.partition("#")
        self.page.goto(str(httpx.URL(f"{self.root}/fedtasks/{name}", params=query)) + (f"#{tab}" if tab else ""))
        self.page.locator(".loading").wait_for(state="detached")
        return self.page

    def picture(self, name: str) -> None:
        """Take a picture of what is seen first."""
        self.page.screenshot(path=self._pictures / f"{name}.png")

    def require_accessible(self) -> None:
        """Check that axe-core finds nothing serious."""
        found = Axe().run(self.page).response["violations"]
        serious = [
            (each["id"], [node["html"] for node in each["nodes"]]) for each in found if each["impact"] in SERIOUS
        ]
        assert serious == []

    def _note_console(self, message: ConsoleMessage) -> None:
        # A violation of the policy is an error too. Airflow's own pages around ours may say what they like.
        if message.type == "error" and "/fedtasks/" in message.location["url"] + message.text:
            self.faults.append(f"console: {message.text}")

    def _note_error(self, error: Error) -> None:
        if "/fedtasks/" in (error.stack or ""):
            self.faults.append(f"error: {error}")

    def _note_request(self, request: Request) -> None:
        ours = not request.is_navigation_request() and "/fedtasks/" in request.frame.url
        if ours and not request.url.startswith((self.root, "blob:", "data:")):
            self.faults.append(f"request: {request.url}")


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = request.config.getoption("--pictures", None) or tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cookie(world: World) -> dict[str, Any]:
    """What the browser of somebody who is signed in at the bank holds."""
    airflow = world.bank.airflow
    login = {"username": airflow.user, "password": read_secret(airflow.password_file)}
    answer = httpx.post(f"{airflow.url}/auth/token", json=login, trust_env=False).raise_for_status()
    return {"name": "_token", "value": answer.json()["access_token"], "url": airflow.url}


@pytest.fixture
def visitor(world: World, browser: Browser, cookie: dict[str, Any], pictures: Path) -> Iterator[Visitor]:
    """Somebody signed in; no page may have logged an error, broken the policy or asked another origin."""
    with browser.new_context(viewport=SIZE, accept_downloads=True) as context:
        context.add_cookies([cookie])
        visitor = Visitor(context.new_page(), world.bank.airflow.url, pictures)
        yield visitor
        assert visitor.faults == []


@pytest.fixture
def peer_seen(seeded: Store) -> Store:
    """The seeded store, whose gateway has just seen the shop."""
    see_peer(seeded)
    return seeded
