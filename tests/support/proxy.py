"""A TCP proxy that a test can cut, hold, slow down and mend."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time

_LOOK_S = 0.05


class Proxy:
    """Passes connections on to `target` (host:port) from `address`, until told otherwise."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._refusing = False
        self._held: frozenset[str] = frozenset()
        self.bytes = 0
        self.delay_s = 0.0
        """How long each piece is on its way; a wire that is slow besides, since pieces follow one another."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        with self._lock:
            self._refusing = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def hold(self, *directions: str) -> None:
        """Take and acknowledge what comes, the end of a connection too, and pass nothing on.

        Parameters
        ----------
        *directions
            ``out`` is what whoever dialled sends, ``back`` what it is sent; by default both are held.
        """
        self._held = frozenset(directions or ("out", "back"))

    def mend(self) -> None:
        """Accept connections again, and pass on at once what was held and what comes."""
        with self._lock:
            self._refusing = False
        self._held = frozenset()
        self.delay_s = 0.0

    def close(self) -> None:
        """End for good."""
        self.mend()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._refusing:
                    client.close()
                    continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            for direction, source, sink in (("out", client, server), ("back", server, client)):
                threading.Thread(target=self._pump, args=(direction, source, sink), daemon=True).start()

    def _pump(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(1 << 16):
                self.bytes += len(chunk)
                if direction in self._held:
                    chunk += self._swallow(direction, source)
                if self.delay_s:
                    time.sleep(self.delay_s)
                sink.sendall(chunk)
            self._swallow(direction, source)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                with self._lock:
                    self._open.discard(one)
                one.close()

    def _swallow(self, direction: str, source: socket.socket) -> bytes:
        """Read on while a direction is held; returns what came meanwhile."""
        held, is_open = bytearray(), True
        while direction in self._held:
            if not is_open:
                time.sleep(_LOOK_S)
                continue
            if not select.select([source], [], [], _LOOK_S)[0]:
                continue
            try:
                chunk = source.recv(1 << 16)
            except OSError:
                chunk = b""
            held += chunk
            is_open = bool(chunk)
        return bytes(held)
