"""The server of the pages: shells, their files, and the API, under one policy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedtasks.airflow.pages.answers import PlainJSON
from fedtasks.airflow.pages.badge import badge_routes
from fedtasks.airflow.pages.changes import change_routes
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.reads import read_routes
from fedtasks.errors import (
    ConfigError,
    DataMissing,
    FedtasksError,
    GatewayUnreachable,
    MachineError,
    NotAllowed,
    NotSignedIn,
    PeerUnknown,
    RequestInvalid,
    RunUnknown,
    TicketMissing,
)

SHELLS = ("federation", "federated", "progress", "compare")

_POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_STATUS: Mapping[type[FedtasksError], int] = {
    NotSignedIn: 401,
    NotAllowed: 403,
    RequestInvalid: 400,
    ConfigError: 400,
    RunUnknown: 404,
    TicketMissing: 404,
    PeerUnknown: 404,
    DataMissing: 404,
    GatewayUnreachable: 503,
    MachineError: 503,
}
"""What each error is to a tool that knows HTTP only; any other is a conflict with how things are."""


def create_app() -> ASGIApp:
    """Make the pages' server; nothing of the party is read before somebody asks."""
    app = FastAPI(title="fedtasks", openapi_url=None, docs_url=None, redoc_url=None)
    own = OwnParty()
    app.include_router(read_routes(own), prefix="/api")
    app.include_router(change_routes(own), prefix="/api")
    app.include_router(badge_routes(own), prefix="/api")
    _add_files(app)
    app.add_exception_handler(FedtasksError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_by_airflow)
    app.add_exception_handler(RequestValidationError, _refuse_malformed)
    return UnderPolicy(app)


class UnderPolicy:
    """Puts the policy on every response, errors too.

    Parameters
    ----------
    app
        What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_POLICY)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_policy)


# ------------------------------------------------------------------------------------------------------------- files
@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str

    def answer(self, request: Request) -> Response:
        """Answer with the file, or say that the browser's copy is still good."""
        etag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match", "").removeprefix("W/") == etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def _add_files(app: FastAPI) -> None:
    """Serve the package's own files and no other: a name is looked up, never joined to a path."""
    found = _files()

    @app.get("/static/{name:path}")
    def static(name: str, request: Request) -> Response:
        file = found.get(name)
        if file is None or name.endswith(".html"):
            raise HTTPException(404)
        return file.answer(request)

    @app.get("/{page}")
    def shell(page: str, request: Request) -> Response:
        if page not in SHELLS or f"{page}.html" not in found:
            raise HTTPException(404)
        return found[f"{page}.html"].answer(request)


def _files() -> dict[str, _File]:
    found: dict[str, _File] = {}
    folders = [("", files("fedtasks.airflow.pages").joinpath("static"))]
    for prefix, folder in folders:
        for entry in folder.iterdir():
            suffix = f".{entry.name.rpartition('.')[2]}"
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            elif suffix in _TYPES:
                found[f"{prefix}{entry.name}"] = _File(entry.read_bytes(), _TYPES[suffix])
    return found


# ------------------------------------------------------------------------------------------------------------ errors
def _refuse(_: Request, error: Any) -> JSONResponse:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 409)
    text = error.detail or error.public
    # What a person has filled in is named, where the text alone does not.
    where = error.where or error.fields.get("field", "")
    told = f"{text} [{where}]" if where else text
    return PlainJSON({"code": error.code, "text": told, "remedy": error.advice()}, status_code=status)


def _refuse_by_airflow(request: Request, error: Any) -> JSONResponse:
    """Say what Airflow's own checks refuse in the words of the registry."""
    kinds: dict[int, type[FedtasksError]] = {401: NotSignedIn, 403: NotAllowed}
    refused = kinds.get(error.status_code, RequestInvalid)()
    answer = _refuse(request, refused)
    answer.status_code = error.status_code
    return answer


def _refuse_malformed(request: Request, error: Any) -> JSONResponse:
    places = sorted({".".join(map(str, found["loc"])) for found in error.errors()})
    return _refuse(request, RequestInvalid(f"missing or wrong: {', '.join(places)}"))
