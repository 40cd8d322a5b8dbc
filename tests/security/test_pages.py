"""Garbage for the pages' API, from somebody who is signed in: none crashes it, none changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import tests.support.airflow_application  # noqa: F401 - gives Airflow a home of its own before it is imported
from fedtasks.airflow.pages.changes import change_routes
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.reads import read_routes
from tests.support.airflow_application import airflow_application
from tests.support.gateways import PIPELINE
from tests.support.hostile import TALLY, Outcome
from tests.support.pages import House, open_house

READS = [route.path for route in read_routes(OwnParty()).routes]
CHANGES = [route.path for route in change_routes(OwnParty()).routes]
TEXTS = {
    "empty": "",
    "escapes": "\x1b[2J\x00",
    "markup": "<script>alert(1)</script>",
    "upwards": "../../../etc/passwd",
    "quotes": "' OR 1=1 --",
    "long": "x" * 7000,
    "bidi": "a\u202eb",
    "template": "{{ 7 * 7 }}${jndi:ldap://x}",
}
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "deep": b"[" * 50_000,
    "surrogate": b'{"run_id": "\\ud800", "reason": "\\ud800"}',
    "nan": b'{"version": NaN}',
    "no utf-8": b"\xff\xfe",
    "list": b"[1, 2]",
    "large": b'{"reason": "' + b"x" * (2 << 20) + b'"}',
    "unknown fields": b'{"__proto__": {}, "constructor": 1}',
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("pages")
    with airflow_application(folder, PIPELINE) as app, open_house(app, folder / "house") as opened:
        yield opened


def judge(answer: Any) -> str:
    """Count what became of a request; returns what is wrong with the answer, or nothing."""
    if answer.status_code >= 500:
        TALLY.add(Outcome.CRASHED)
        return f"{answer.status_code}: {answer.text[:200]}"
    TALLY.add(Outcome.REFUSED if answer.status_code >= 400 else Outcome.TAKEN)
    if "<script>" in answer.text and not answer.headers["content-type"].startswith("application/json"):
        return "markup came back as markup"
    return ""


@pytest.mark.parametrize("path", READS)
def test_read_of_garbage_is_answered_without_a_crash(house: House, path: str) -> None:
    wrong = {}
    for name, text in TEXTS.items():
        asked = {"dag_id": text, "dag_run_id": text, "task_id": text, "map_index": text, "before": text, "limit": text}
        if found := judge(house.get(f"api{path}", **asked)):
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize("path", CHANGES)
def test_change_by_garbage_is_refused(house: House, path: str) -> None:
    wrong = {}
    headers = {**house.headers("ada"), "X-Fedtasks": "1", "Content-Type": "application/json"}
    for name, body in BODIES.items():
        house.client.cookies.clear()
        answer = house.client.post(f"/fedtasks/api{path}", content=body, headers=headers)
        if found := judge(answer) or ("" if answer.status_code >= 400 else "taken"):
            wrong[name] = found
    assert wrong == {}


def test_file_outside_the_pages_is_not_served(house: House) -> None:
    wrong = {}
    upwards = ("../party.yaml", "..%2f..%2fparty.yaml", "static/../../plugin.py", "static/%2e%2e/plugin.py", "\\..\\x")
    for path in upwards:
        answer = house.get(path)
        found = judge(answer)
        if found or "party" in answer.text[:20]:
            wrong[path] = found or answer.text[:80]
    assert wrong == {}
