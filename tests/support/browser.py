"""Somebody before a browser, at the pages of a party; and both parties behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Error, Page, Request

from fedtasks.laptop.party import LocalParty
from fedtasks.store import Store

PATIENCE_MS = 30_000
SERIOUS = ("serious", "critical")


@dataclass(frozen=True)
class World:
    """Both parties, and the ticket that the shop has granted."""

    bank: LocalParty
    shop: LocalParty
    ticket_id: str


@contextmanager
def open_store(party: LocalParty) -> Iterator[Store]:
    where = party.party().store
    with Store.open(where.url, where.password_file) as store:
        yield store


class Visitor:
    """Somebody at a party's pages, who notes whatever a page must not do."""

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

    def picture(self, name: str, *, whole: bool = False) -> None:
        """Take a picture of what is seen first, or of the whole page."""
        self.page.screenshot(path=self._pictures / f"{name}.png", full_page=whole)

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
