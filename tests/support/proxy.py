"""A TCP proxy that a test can cut, hold, slow down and mend."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass

_LOOK_S = 0.05
_PIECE = 8 << 10
"""Bytes that a wire carries at once: a whole read would be late by the time of all its bytes."""


@dataclass(frozen=True)
class Wire:
    """A long line, for each direction: pieces follow one another at its rate, and each is under way for its delay.

    Parameters
    ----------
    delay_s
        One way.
    bytes_per_s
        Of each direction, for all connections together.
    buffer_bytes
        What the line takes before it stops reading.
    """

    delay_s: float
    bytes_per_s: float
    buffer_bytes: int = 4 << 20


class Proxy:
    """Passes connections on to `target` (host:port) from `address`, until told otherwise.

    Of several targets each takes its turn; one that refuses a connection is passed over. With a `Wire` it can be cut
    and mended, but is neither held nor slowed down beyond that.
    """

    def __init__(self, *targets: str, wire: Wire | None = None) -> None:
        self._wire = wire
        self._targets = [(target.rpartition(":")[0], int(target.rpartition(":")[2])) for target in targets]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._refusing = False
        self._free_at = {"out": 0.0, "back": 0.0}
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
            server = self._dial()
            if server is None:
                client.close()
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            pump = self._pump if self._wire is None else self._pump_slowly
            for direction, source, sink in (("out", client, server), ("back", server, client)):
                threading.Thread(target=pump, args=(direction, source, sink), daemon=True).start()

    def _dial(self) -> socket.socket | None:
        for _ in self._targets:
            self._targets.append(self._targets.pop(0))
            with contextlib.suppress(OSError):
                return socket.create_connection(self._targets[-1], timeout=5)
        return None

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
        except (OSError, ValueError):  # the other direction's thread has closed it, maybe within a call
            pass
        finally:
            self._end(source, sink)

    def _end(self, *connections: socket.socket) -> None:
        for one in connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(one)
            one.close()

    def _pump_slowly(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        """Carry pieces as the wire does: several are under way at a time."""
        assert self._wire is not None
        wire = self._wire
        under_way: queue.Queue[tuple[float, bytes]] = queue.Queue(max(wire.buffer_bytes // _PIECE, 1))
        carrier = threading.Thread(target=self._deliver, args=(under_way, source, sink), daemon=True)
        carrier.start()
        due = 0.0
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                self.bytes += len(piece)
                with self._lock:
                    self._free_at[direction] = max(self._free_at[direction], time.monotonic())
                    self._free_at[direction] += len(piece) / wire.bytes_per_s
                    due = self._free_at[direction] + wire.delay_s
                under_way.put((due, piece))
        under_way.put((due, b""))
        carrier.join()

    def _deliver(self, under_way: queue.Queue[tuple[float, bytes]], source: socket.socket, sink: socket.socket) -> None:
        is_open = True
        while True:
            due, piece = under_way.get()
            if not piece:
                break
            if is_open:
                time.sleep(max(due - time.monotonic(), 0.0))
                try:
                    sink.sendall(piece)
                except OSError:
                    is_open = False  # what is still read is thrown away, so that the reading thread ends
        self._end(source, sink)

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
