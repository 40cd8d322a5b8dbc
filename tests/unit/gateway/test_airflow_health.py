"""Which parts of this party's own Airflow do not run: seen, told to whoever is concerned, and back again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from fedtasks.config import Airflow
from fedtasks.errors import AirflowUnreachable, PeerAirflowUnreachable
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.airflow_health import LOOK_EVERY_MS, AirflowHealth
from fedtasks.reports.airflow_parts import Silent, silent_now, silent_parts
from fedtasks.store import Store

HEARD = "2026-11-21T12:03:05.5+00:00"
HEARD_MS = 1795262585500


def healthy(**parts: object) -> dict[str, Any]:
    """Return an answer of Airflow 3.3 in which all runs but what is named."""
    found: dict[str, Any] = {"metadatabase": {"status": "healthy"}}
    for name in ("scheduler", "triggerer", "dag_processor"):
        found[name] = {"status": "healthy", f"latest_{name}_heartbeat": "2026-11-21T12:04:00+00:00"}
    for name, status in parts.items():
        found[name] = {"status": status, f"latest_{name}_heartbeat": HEARD if status else None}
    return found


@pytest.mark.parametrize(
    ("health", "silent"),
    [
        (healthy(), ()),
        (healthy(triggerer="unhealthy"), (Silent("triggerer", HEARD_MS),)),
        (healthy(triggerer=None), (Silent("triggerer", 0),)),
        (healthy(dag_processor="unhealthy"), (Silent("dag-processor", HEARD_MS),)),
        (healthy(dag_processor=None), ()),
        (
            healthy(scheduler="unhealthy", triggerer="unhealthy"),
            (Silent("scheduler", HEARD_MS), Silent("triggerer", HEARD_MS)),
        ),
        ({}, ()),
        (
            {"triggerer": "odd", "scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": "odd"}},
            (Silent("scheduler", 0),),
        ),
    ],
)
def test_answer_of_airflow_names_the_parts_that_do_not_run(health: dict[str, Any], silent: tuple[Silent, ...]) -> None:
    assert silent_parts(health) == silent


def test_sentence_names_the_party_the_part_and_since_when() -> None:
    assert Silent("triggerer", HEARD_MS).said("bank") == "bank's triggerer has not been heard of since 12:03:05 UTC"
    assert Silent("triggerer", 0).said("bank") == "bank's triggerer does not run"


class Looked:
    """One party's look at its Airflow, over a store."""

    def __init__(self, file: Path) -> None:
        self.store = Store.open(f"sqlite:///{file}")
        self.now_ms, self.looks = HEARD_MS, 0
        self.answer: dict[str, Any] | None = healthy()
        self.health = AirflowHealth()

    async def _answered(self) -> dict[str, Any]:
        self.looks += 1
        if self.answer is None:
            raise AirflowUnreachable("away")
        return self.answer

    def look(self, seconds: float = LOOK_EVERY_MS / 1000, *, at_once: bool = False) -> bool:
        self.now_ms += int(seconds * 1000)
        airflow = cast("AirflowApi", SimpleNamespace(health=self._answered))
        return asyncio.run(self.health.look(airflow, self.store, "bank", lambda: self.now_ms, at_once=at_once))


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path / "store.db")


def test_part_that_falls_silent_is_news_once_and_so_is_its_return(looked: Looked) -> None:
    assert not looked.look()
    looked.answer = healthy(triggerer="unhealthy")
    assert not looked.look(1)  # not yet time
    assert looked.looks == 1
    assert looked.look()
    assert silent_now(looked.store, "bank") == looked.health.silent == (Silent("triggerer", HEARD_MS),)
    assert not looked.look()
    looked.answer = healthy()
    assert looked.look(5)  # it is looked for more often until it is back
    assert silent_now(looked.store, "bank") == looked.health.silent == ()


def test_api_server_that_does_not_answer_is_a_part_too_since_the_first_time(looked: Looked) -> None:
    looked.answer = None
    assert not looked.look()  # it may only be busy
    since_ms = looked.now_ms
    assert looked.look(5)
    assert looked.health.silent == silent_now(looked.store, "bank") == (Silent("api-server", since_ms),)
    assert not looked.look()
    assert looked.health.is_startable  # whether it is there says the call that needs it
    looked.answer = healthy()
    assert looked.look()
    looked.answer = None
    assert not looked.look()
    assert looked.health.silent == ()


def test_gateway_that_starts_anew_corrects_what_the_one_before_has_written(looked: Looked) -> None:
    looked.answer = healthy(triggerer="unhealthy")
    looked.look()
    looked.health, looked.answer = AirflowHealth(), healthy()
    assert looked.look(0)
    assert silent_now(looked.store, "bank") == ()


@pytest.mark.parametrize(("part", "starts"), [("scheduler", False), ("triggerer", True), ("dag_processor", True)])
def test_peer_begins_nothing_where_no_task_would_start_and_is_not_told_why(
    looked: Looked, part: str, starts: bool
) -> None:
    looked.answer = healthy(**{part: "unhealthy"})
    looked.look()
    if starts:
        looked.health.require_startable()
        return
    with pytest.raises(PeerAirflowUnreachable) as refused:
        looked.health.require_startable()
    looked.answer = healthy()
    assert looked.look(0, at_once=True)  # before anything is refused, it is looked again
    looked.health.require_startable()
    assert part not in refused.value.public
    assert refused.value.retryable


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (httpx.Response(200, json=healthy()), healthy()),
        (httpx.Response(404), {}),
        (httpx.Response(200, text="<html>"), {}),
        (httpx.Response(503), None),
    ],
)
def test_health_is_asked_without_a_login(answer: httpx.Response, found: dict[str, Any] | None) -> None:
    def answered(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v2/monitor/health"
        assert "Authorization" not in request.headers
        return answer

    config = Airflow("http://a.example", "ada", Path("nowhere"))
    api = AirflowApi(config)
    api._client = httpx.AsyncClient(base_url=config.url, transport=httpx.MockTransport(answered))
    if found is None:
        with pytest.raises(AirflowUnreachable, match="503"):
            asyncio.run(api.health())
    else:
        assert asyncio.run(api.health()) == found
