"""A server of S3 on loopback that keeps objects in memory, one request after another, and fails as a test tells it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from fedtasks.config import S3
from fedtasks.config.s3 import reach
from fedtasks.data.storage import filesystem

BUCKET = "fedtasks-tests"
Started = Callable[..., Any]


class S3Server:
    """Starts on entry with an empty bucket, and stops on exit; a context manager.

    Parameters
    ----------
    folder
        For the file with the credentials.

    Attributes
    ----------
    settings
        As in section ``s3``; this process reaches the bucket so.
    faults
        What happens to the next requests of a method, such as ``PUT``: a status to answer with, and whether what was
        asked is done nevertheless.
    asked
        Method and path of each request.
    """

    settings: S3

    def __init__(self, folder: Path) -> None:
        self._file = folder / "s3.credentials"
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.faults: dict[str, deque[tuple[int, bool]]] = {}
        self.asked: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._file.touch(mode=0o600)
        self._file.write_text("[default]\naws_access_key_id = key-of-tests\naws_secret_access_key = secret-of-tests\n")
        self.settings = S3(f"http://127.0.0.1:{self._server.server_port}", "eu-central-1", self._file)
        reach([f"s3://{BUCKET}"], self.settings)
        httpx.post(f"{self.settings.endpoint}/moto-api/reset").raise_for_status()  # what another server kept
        fs, _ = filesystem(f"s3://{BUCKET}/")
        fs.call_s3("create_bucket", Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, method: str, *statuses: int, is_done: bool = False) -> None:
        """Let the next answers to a method be failures."""
        self.faults.setdefault(method, deque()).extend((status, is_done) for status in statuses)

    def _answer(self, environ: dict[str, Any], start: Started) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        self.asked.append((method, environ["PATH_INFO"]))
        with self._lock:
            waiting = self.faults.get(method)
            status, is_done = waiting.popleft() if waiting else (0, True)
            if not is_done:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            found = list(self._application(environ, start if not status else _nowhere)) if is_done else []
        if not status:
            return found
        start(f"{status} Fault", [("Content-Type", "text/html"), ("Connection", "close")])
        return [b"" if method == "HEAD" else b"<html>a proxy's page</html>"]


def _nowhere(*_: Any) -> None:
    """Take an answer that is lost."""


class _Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing."""
