"""A small WebHDFS on loopback that keeps files in memory, and misbehaves as a test tells it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_PREFIX = "/webhdfs/v1"


@dataclass(frozen=True)
class Fault:
    """What a server does instead of answering.

    Parameters
    ----------
    what
        ``silent``: it accepts and says nothing; ``reset``: it breaks the connection; ``half``: it does so in the middle
        of the content; ``stall``: it falls silent there; ``lost``: it does what was asked and breaks the connection
        then; ``status``: it answers that.
    status, exception
        For ``status``; without an exception the answer is HTML, as of a proxy.
    """

    what: str
    status: int = 0
    exception: str = ""


@dataclass
class FakeHdfs:
    """What is in the file system, and how its servers will misbehave: the next fault of an operation comes first."""

    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/"})
    asked: list[tuple[str, str]] = field(default_factory=list)
    uri: str = ""
    data_port: int = 0

    def __post_init__(self) -> None:
        self.faults: dict[tuple[str, str], deque[Fault]] = {}
        self.lock = threading.RLock()
        self.closing = threading.Event()

    def fail(self, side: str, op: str, *faults: Fault) -> None:
        """Let the next answers of ``name`` or ``data`` to `op` be faults."""
        self.faults.setdefault((side, op), deque()).extend(faults)

    def put(self, path: str, content: bytes) -> None:
        """Have a file, and the folders that it is in."""
        with self.lock:
            self.files[path] = content
            while path := path.rpartition("/")[0]:
                self.folders.add(path)

    def count(self, side: str, op: str) -> int:
        """How often a server has been asked."""
        return self.asked.count((side, op))


@contextmanager
def fake_hdfs() -> Iterator[FakeHdfs]:
    """Serve an empty file system until the end of the block."""
    hdfs = FakeHdfs()
    servers = {side: ThreadingHTTPServer(("127.0.0.1", 0), _handler(hdfs, side)) for side in ("name", "data")}
    ports = {side: server.server_address[1] for side, server in servers.items()}
    hdfs.data_port = ports["data"]
    hdfs.uri = f"webhdfs://bank@127.0.0.1:{ports['name']}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers.values()]
    for thread in threads:
        thread.start()
    try:
        yield hdfs
    finally:
        hdfs.closing.set()
        for server in servers.values():
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _handler(hdfs: FakeHdfs, side: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            path, op = unquote(url.path)[len(_PREFIX) :] or "/", asked["op"]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with hdfs.lock:
                hdfs.asked.append((side, op))
                waiting = hdfs.faults.get((side, op))
                fault = waiting.popleft() if waiting else None
            if fault is None or fault.what in ("half", "stall", "lost"):
                self._serve(path, op, asked, body, fault)
            elif fault.what == "silent":
                hdfs.closing.wait()
                self.close_connection = True
            elif fault.what == "reset":
                self._reset()
            elif fault.exception:
                self._refuse(fault.status, fault.exception, "as the test says")
            else:
                self._answer(b"<html>bad day</html>", fault.status)

        do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

        def _serve(self, path: str, op: str, asked: dict[str, str], body: bytes, fault: Fault | None) -> None:
            if op in ("OPEN", "CREATE", "APPEND") and side == "name":
                if op == "OPEN" and path not in hdfs.files:
                    self._refuse(404, "FileNotFoundException", f"File {path} not found.")
                    return
                self.send_response(307)
                place = f"http://127.0.0.1:{hdfs.data_port}{self.path}&namenoderpcaddress=127.0.0.1:1"
                self.send_header("Location", place)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            with hdfs.lock:
                status, content = _do(hdfs, path, op, asked, body)
            if fault and fault.what == "lost":
                self._reset()
                return
            if status != 200:
                self._refuse(status, "FileNotFoundException", content.decode())
                return
            self._answer(content, cut=fault.what if fault else "")

        def _refuse(self, status: int, exception: str, message: str) -> None:
            self._answer(json.dumps({"RemoteException": {"exception": exception, "message": message}}).encode(), status)

        def _answer(self, content: bytes, status: int = 200, *, cut: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.wfile.flush()
                if cut == "stall":
                    hdfs.closing.wait()
                self.close_connection = True

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    return Handler


def _do(hdfs: FakeHdfs, path: str, op: str, asked: dict[str, str], body: bytes) -> tuple[int, bytes]:
    missing = 404, f"File {path} does not exist.".encode()
    match op:
        case "OPEN":
            if path not in hdfs.files:
                return missing
            first = int(asked.get("offset", 0))
            length = int(asked.get("length", len(hdfs.files[path])))
            return 200, hdfs.files[path][first : first + length]
        case "GETFILESTATUS":
            found = _status(hdfs, path)
            return (200, _json(FileStatus=found)) if found else missing
        case "LISTSTATUS":
            if path not in hdfs.folders:
                return missing
            below = path.rstrip("/") + "/"
            names = {
                each[len(below) :].partition("/")[0]
                for each in (*hdfs.files, *hdfs.folders)
                if below in each[: len(below)]
            }
            found = [_status(hdfs, below + name) | {"pathSuffix": name} for name in sorted(names - {""})]
            return 200, _json(FileStatuses={"FileStatus": found})
        case "CREATE" | "APPEND":
            hdfs.put(path, body if op == "CREATE" else hdfs.files[path] + body)
            return 200, b""
        case "MKDIRS":
            hdfs.put(f"{path}/x", b"")
            del hdfs.files[f"{path}/x"]
            return 200, _json(boolean=True)
        case "SETPERMISSION":
            return 200, b""
        case "DELETE":
            gone = [each for each in hdfs.files if each == path or each.startswith(f"{path}/")]
            for each in gone:
                del hdfs.files[each]
            hdfs.folders -= {each for each in hdfs.folders if each == path or each.startswith(f"{path}/")}
            return 200, _json(boolean=bool(gone))
        case "RENAME":
            target, replaces = asked["destination"], asked.get("renameoptions") == "OVERWRITE"
            if path not in hdfs.files:
                return missing if replaces else (200, _json(boolean=False))
            if target in hdfs.files and not replaces:
                return 200, _json(boolean=False)
            hdfs.put(target, hdfs.files.pop(path))
            return 200, _json(boolean=True)
    raise AssertionError(op)


def _status(hdfs: FakeHdfs, path: str) -> dict[str, Any]:
    if path in hdfs.files:
        return {"type": "FILE", "length": len(hdfs.files[path]), "pathSuffix": "", "modificationTime": 1}
    is_folder = path.rstrip("/") in hdfs.folders or path == "/"
    return {"type": "DIRECTORY", "length": 0, "pathSuffix": "", "modificationTime": 1} if is_folder else {}


def _json(**content: Any) -> bytes:
    return json.dumps(content).encode()
