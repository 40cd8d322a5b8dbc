"""What the API answers with: JSON that can always be written, whatever the store holds."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute


class PlainJSON(JSONResponse):
    """JSON where half of a surrogate pair, which no encoding can carry, is a question mark, and no number is null."""

    def render(self, content: Any) -> bytes:
        """Return the answer's bytes."""
        try:
            text = _json(content)
        except ValueError:
            text = _json(_finite(content))
        return text.encode("utf-8", "replace")


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value: object) -> object:
    """Return plain values in which None stands for what is no number."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class PlainRoute(APIRoute):
    """A route that answers what its function returns, as `PlainJSON`.

    Parameters
    ----------
    path, endpoint
        The route's path and function, which returns plain values.
    **options
        As for every route.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        @functools.wraps(endpoint)
        def answer(*args: Any, **kwargs: Any) -> Response:
            found = endpoint(*args, **kwargs)
            # A route that an application takes over is made once more of its own function.
            return found if isinstance(found, Response) else PlainJSON(found)

        super().__init__(path, answer, **{**options, "response_model": None})
