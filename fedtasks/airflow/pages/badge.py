"""The icon of the pages in Airflow's navigation, with the number of things that need whoever looks."""

from __future__ import annotations

import logging
import re
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.rights import Readable, User, sees_party
from fedtasks.errors import FedtasksError
from fedtasks.reports.party import KEY_DIGITS, overview

log = logging.getLogger(__name__)

COOKIE = "fedtasks_dismissed"
"""Where a browser keeps the keys of what its user has dismissed."""

MAX_DISMISSED = 100
"""So many of them count."""

_KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
_SPOT = (
    '<circle cx="17" cy="7" r="7" fill="#b42318" stroke="none"/>'
    '<text x="17" y="10.6" font-family="sans-serif" font-size="{size}" font-weight="700" text-anchor="middle" '
    'fill="#ffffff" stroke="none">{text}</text></svg>'
)


def badge_routes(own: OwnParty) -> APIRouter:
    """Return the route of the icon.

    Notes
    -----
    Airflow shows an icon beside each page's name, but no number: so the number is in the icon, as of when Airflow's own
    page was opened. Who may not see the party sees the plain icon.
    """
    routes = APIRouter()

    @routes.get("/badge.svg")
    def badge(request: Request, user: User, readable: Readable, dark: bool = False) -> Response:
        n_needs = 0
        if sees_party(user):
            try:
                found = overview(own.store, own.party, readable, own.now_ms(), user.get_name())
                dismissed = dismissed_by(request.cookies.get(COOKIE, ""))
                n_needs = sum(need["key"] not in dismissed for need in found["needs"])
            except FedtasksError as error:
                log.warning("the navigation shows no number: %s", error)
        return Response(icon(n_needs, dark=dark), media_type="image/svg+xml")

    return routes


def dismissed_by(cookie: str) -> set[str]:
    """Return the keys that a cookie holds, whatever it says."""
    return set(_KEY.findall(cookie)[:MAX_DISMISSED])


def icon(number: int, *, dark: bool) -> str:
    """Draw the icon; a number of 0 is not shown, and more than 9 are ``9+``."""
    name = "icon-dark.svg" if dark else "icon.svg"
    plain = files("fedtasks.airflow.pages").joinpath("static", name).read_text()
    if number <= 0:
        return plain
    text = str(number) if number <= 9 else "9+"
    return plain.rstrip().removesuffix("</svg>") + _SPOT.format(text=text, size=11 if number <= 9 else 9)
