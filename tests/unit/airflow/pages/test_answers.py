"""What the API of the pages can write."""

from __future__ import annotations

import inspect
import json
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from fedtasks.airflow.pages.answers import PlainRoute


def test_answer_is_written_whatever_the_store_holds() -> None:
    routes = APIRouter(route_class=PlainRoute)

    @routes.get("/poison")
    def poison(limit: int = 1) -> dict[str, Any]:
        return {
            "text": "a\ud800\x1b",
            "number": 10**4000 + limit,
            "none": [{"rate": float("nan")}, (float("inf"), 0.5)],
        }

    (route,) = routes.routes
    assert isinstance(route, APIRoute)
    assert inspect.signature(route.endpoint) == inspect.signature(poison)
    answer = json.loads(route.endpoint(limit=2).body)
    assert answer == {"text": "a?\x1b", "number": 10**4000 + 2, "none": [{"rate": None}, [None, 0.5]]}
