from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from fedtasks.errors import ProtocolViolated
from fedtasks.link import tunnel
from fedtasks.link.frames import MAX_FRAME
from fedtasks.link.tunnel import Identity, Tunnel, own_identity


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def another_identity() -> Identity:
    return own_identity.__wrapped__()


def shake(
    sockets: tuple[socket.socket, socket.socket], accepted: tuple[bytes, bytes] | None = None
) -> tuple[Any, Any, list[Exception | None]]:
    """Let two halves shake hands: what each shows is its own, what each accepts is `accepted`."""
    identities = own_identity(), another_identity()
    expected = accepted or (identities[1].certificate, identities[0].certificate)
    halves = [Tunnel(sockets[n], identities[n], expected[n], is_server=n == 1) for n in (0, 1)]
    ends: list[Exception | None] = [None, None]

    def run(number: int) -> None:
        try:
            halves[number].shake_hands()
        except OSError as error:
            ends[number] = error
            halves[number].close()

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return *halves, ends


def test_frames_of_every_size_arrive_in_order_both_ways(sockets: tuple[socket.socket, socket.socket]) -> None:
    a, b, ends = shake(sockets)
    assert ends == [None, None]
    sent = [bytes([n % 251]) * size for n, size in enumerate((0, 1, 65_536, 65_537, MAX_FRAME, 3))]

    def write(half: Tunnel) -> None:
        for frame in sent:
            half.write(frame)
        half.write(*sent)

    writers = [threading.Thread(target=write, args=(half,)) for half in (a, b)]
    for writer in writers:
        writer.start()
    for half in (a, b):
        frames = half.frames()
        assert [bytes(next(frames)) for _ in 2 * sent] == 2 * sent
    for writer in writers:
        writer.join(20)


class Counted(socket.socket):
    """Notes how many bytes are handed to it at a time."""

    sizes: ClassVar[list[int]] = []

    def sendall(self, content: Any, flags: int = 0) -> None:
        self.sizes.append(len(content))
        super().sendall(content, flags)


def test_large_frame_is_sent_as_it_is_sealed(sockets: tuple[socket.socket, socket.socket]) -> None:
    with Counted(fileno=sockets[0].detach()) as counted:
        a, b, ends = shake((counted, sockets[1]))
        assert ends == [None, None]
        counted.sizes.clear()
        frame = bytes(MAX_FRAME)
        writer = threading.Thread(target=a.write, args=(frame,))
        writer.start()
        assert bytes(next(b.frames())) == frame
        writer.join(20)
        assert len(counted.sizes) > 4
        assert max(counted.sizes) < MAX_FRAME / 4


def test_only_the_certificate_that_was_offered_is_accepted(sockets: tuple[socket.socket, socket.socket]) -> None:
    theirs = another_identity().certificate

    _, b, ends = shake(sockets, (theirs, own_identity().certificate))

    # TLS lets a client finish before the server has judged it: such a half finds the tunnel ended as soon as it reads.
    assert isinstance(ends[0], ssl.SSLError)
    assert isinstance(ends[1], OSError) or list(b.frames()) == []


def test_server_that_rejects_the_client_ends_the_tunnel_before_the_first_frame(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    identities = own_identity(), another_identity()
    theirs = another_identity().certificate
    client = Tunnel(sockets[0], identities[0], identities[1].certificate, is_server=False)
    server = Tunnel(sockets[1], identities[1], theirs, is_server=True)

    def serve() -> None:
        with pytest.raises(ssl.SSLError):
            server.shake_hands()
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client.shake_hands()
    with pytest.raises(OSError):  # noqa: PT011 - an alert, or the end, whichever comes first
        raise next(client.frames(), ConnectionResetError())  # type: ignore[misc]
    thread.join(20)


def test_older_tls_is_refused(sockets: tuple[socket.socket, socket.socket]) -> None:
    identity = own_identity()
    half = Tunnel(sockets[1], identity, identity.certificate, is_server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def call() -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(sockets[0])

    caller = threading.Thread(target=call)
    caller.start()
    with pytest.raises(ssl.SSLError):
        half.shake_hands()
    half.close()
    caller.join(20)


def test_other_half_that_says_nothing_is_given_up(
    sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "HANDSHAKE_S", 0.05)
    identity = own_identity()

    with pytest.raises(TimeoutError):
        Tunnel(sockets[0], identity, identity.certificate, is_server=False).shake_hands()


def test_frame_beyond_the_bound_is_refused_before_it_is_read(sockets: tuple[socket.socket, socket.socket]) -> None:
    a, b, _ = shake(sockets)
    a._tls.write((MAX_FRAME + 1).to_bytes(4, "big"))
    a._send_sealed()

    with pytest.raises(ProtocolViolated, match=f"a frame of {MAX_FRAME + 1} bytes"):
        next(b.frames())


def test_bytes_that_were_changed_on_the_way_end_the_tunnel(sockets: tuple[socket.socket, socket.socket]) -> None:
    a, b, _ = shake(sockets)
    a.write(b"frame")
    sealed = bytearray(sockets[1].recv(1000))
    sealed[-1] ^= 1
    onward, end = socket.socketpair()
    with onward, end:
        b._connection = end
        onward.sendall(sealed)
        with pytest.raises(ssl.SSLError):
            next(b.frames())


def test_end_in_the_middle_of_a_frame_yields_nothing(sockets: tuple[socket.socket, socket.socket]) -> None:
    a, b, _ = shake(sockets)
    a._tls.write((100).to_bytes(4, "big") + b"only a part")
    a._send_sealed()
    a.close()

    assert list(b.frames()) == []


def test_key_that_has_sealed_enough_ends_its_tunnel(
    sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _, _ = shake(sockets)
    monkeypatch.setattr(tunnel, "MAX_SEALED", 10)
    a.write(b"12345")

    with pytest.raises(OSError, match="sealed as much as it may"):
        a.write(b"123456")


def test_private_key_is_in_no_file_and_in_no_text() -> None:
    identity = own_identity()

    assert b"PRIVATE KEY" in identity.pem
    assert "PRIVATE" not in repr(identity)
    assert own_identity() is identity
