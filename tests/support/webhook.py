"""A webhook: a real HTTP server that keeps what is posted to it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class Webhook:
    """Answers every post with `status`, and keeps the bodies of those that it took."""

    def __init__(self, folder: Path) -> None:
        self.status = 204
        self.taken: list[dict[str, Any]] = []
        self.tried = 0
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.tried += 1
                if webhook.status == 204:
                    webhook.taken.append({"path": self.path, **body})
                self.send_response(webhook.status)
                self.send_header("Location", f"{webhook.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.file = folder / "webhook.url"
        self.file.write_text(f"{self.url}/hook?token=s3cret\n")
        self.file.chmod(0o600)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
