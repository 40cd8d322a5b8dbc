"""The wire of benchmarks: how long bytes are under way, and how many can be."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy, Wire

DELAY_S, BYTES_PER_S = 0.05, 1_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a connection over a wire: who dialled, and who answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(f"127.0.0.1:{listener.getsockname()[1]}", wire=Wire(DELAY_S, BYTES_PER_S))
        host, _, port = proxy.address.rpartition(":")
        with socket.create_connection((host, int(port))) as near:
            far, _ = listener.accept()
            with far:
                yield near, far
        proxy.close()


def taken_s(source: socket.socket, sink: socket.socket, n_bytes: int) -> float:
    """Return after how many seconds so many bytes have arrived."""
    begun = time.monotonic()
    sending = threading.Thread(target=source.sendall, args=(bytes(n_bytes),))
    sending.start()
    left = n_bytes
    while left:
        left -= len(sink.recv(left))
    sending.join()
    return time.monotonic() - begun


@pytest.mark.parametrize("n_bytes", [1, 200_000])
def test_bytes_take_the_delay_and_their_time_at_the_rate_in_either_direction(
    ends: tuple[socket.socket, socket.socket], n_bytes: int
) -> None:
    expected_s = DELAY_S + n_bytes / BYTES_PER_S
    for source, sink in (ends, ends[::-1]):
        assert expected_s <= taken_s(source, sink, n_bytes) < expected_s + 1


def test_pieces_are_under_way_together_so_that_the_delay_is_paid_once(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ends
    begun = time.monotonic()
    for _ in range(20):
        near.sendall(b"x")
        time.sleep(0.005)
    received = b""
    while len(received) < 20:
        received += far.recv(20)
    assert time.monotonic() - begun < 20 * DELAY_S


def test_end_of_a_connection_arrives_behind_its_bytes(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    near.sendall(b"last")
    near.close()
    received = b""
    while piece := far.recv(100):
        received += piece
    assert received == b"last"
