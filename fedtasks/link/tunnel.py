"""One half of a tunnel: frames over TLS from worker to worker, through gateways that only pass its bytes on.

Each half shows a certificate that it has made for its process alone and accepts the one certificate that the other half
offered inside of their session, which both gateways authenticate. So nobody between the two workers reads or changes a
frame, the gateways included, and whoever is not the other half gets no further than the handshake.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedtasks.errors import ProtocolViolated
from fedtasks.link.frames import MAX_FRAME

HANDSHAKE_S = 5.0
"""How long both halves may take to agree, once they are connected."""

MAX_SEALED = 256 << 30
"""Bytes that one key seals: with AES-GCM fewer than 2^24.5 records of 16 kB (RFC 8446, section 5.5)."""

_HEAD = 4
_READ = 256 << 10
_JOINED = 64 << 10
"""Frames up to this size are put together, each behind its length, before they are sealed; others are not copied."""
_SEALED = 128 << 10
"""So many bytes are sealed before they are sent: fewer than a cache holds, and the other half opens them meanwhile."""


@dataclass(frozen=True)
class Identity:
    """What a worker shows in its tunnels.

    Parameters
    ----------
    certificate
        X.509, DER.
    pem
        The same with its private key, which leaves this process's memory never.
    """

    certificate: bytes
    pem: bytes = field(repr=False)


@functools.cache
def own_identity() -> Identity:
    """Make the identity of this process, once; it is never written to a disk."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker in a tunnel")])
    # It counts because it was offered, and for as long as its process lives: no clock takes part in that.
    begin, end = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC), datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(
        certificate.public_bytes(serialization.Encoding.DER),
        certificate.public_bytes(serialization.Encoding.PEM) + private,
    )


def _context(identity: Identity, peer_certificate: bytes, *, is_server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if is_server:
        context.num_tickets = 0  # a tunnel is never taken up again
    context.load_verify_locations(cadata=peer_certificate)
    descriptor = os.memfd_create("tunnel", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, identity.pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


class Tunnel:
    """Carries frames over a connected socket; one thread may write while another reads.

    Parameters
    ----------
    connection
        Leads to the other half. It belongs to the tunnel from now on.
    identity
        What this half shows.
    peer_certificate
        The one certificate (DER) that is accepted of the other half.
    is_server
        Which part this half plays in the handshake; the other half plays the other.

    Notes
    -----
    Cost: a frame is copied once when it is sealed and once when it is opened; some 0.6 CPU seconds per GB for either.
    """

    def __init__(
        self, connection: socket.socket, identity: Identity, peer_certificate: bytes, *, is_server: bool
    ) -> None:
        self._connection = connection
        self._peer_certificate = peer_certificate
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = _context(identity, peer_certificate, is_server=is_server)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)
        # One connection of OpenSSL serves one thread at a time; what waits for the network waits outside of the lock.
        self._lock = threading.Lock()
        self._buffer = memoryview(bytearray(_READ))
        self._n_sealed = 0

    def shake_hands(self) -> None:
        """Agree with the other half.

        Raises
        ------
        OSError
            It is not there, or is somebody else (`ssl.SSLError`), or takes longer than `HANDSHAKE_S`.
        """
        deadline = time.monotonic() + HANDSHAKE_S
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send_sealed()
                self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
                self._receive()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._send_sealed()  # the alert
                raise
        self._send_sealed()
        if self._tls.getpeercert(binary_form=True) != self._peer_certificate:
            raise ssl.SSLError("the certificate is not the one that was offered")
        self._connection.settimeout(None)

    def write(self, *frames: bytes) -> None:
        """Send frames; blocks while the other half reads nothing. Raises `OSError` when the tunnel has ended."""
        self._n_sealed += sum(map(len, frames))
        if self._n_sealed > MAX_SEALED:
            raise OSError("its key has sealed as much as it may")
        small = bytearray()
        for frame in frames:
            small += len(frame).to_bytes(_HEAD, "big")
            if len(frame) <= _JOINED:
                small += frame
                continue
            whole = memoryview(frame)
            self._seal(small, whole[:_SEALED])
            for start in range(_SEALED, len(whole), _SEALED):
                self._seal(whole[start : start + _SEALED])
            small.clear()
        if small:
            self._seal(small)

    def _seal(self, *contents: bytearray | memoryview) -> None:
        with self._lock:
            for content in contents:
                self._tls.write(content)
            sealed = self._outgoing.read()
        self._connection.sendall(sealed)

    def frames(self, heard: Callable[[], object] = lambda: None) -> Iterator[memoryview]:
        """Yield the frames of the other half until the tunnel ends; each is good until the next one is asked for.

        Parameters
        ----------
        heard
            Called whenever bytes have come, be it less than a frame.

        Raises
        ------
        ProtocolViolated
            It sends what is no frame.
        OSError
            The tunnel broke.
        """
        head = memoryview(bytearray(_HEAD))
        body = memoryview(bytearray(_JOINED))
        while self._fill(head, heard):
            size = int.from_bytes(head, "big")
            if size > MAX_FRAME:
                raise ProtocolViolated(f"a frame of {size} bytes")
            if size > len(body):
                body = memoryview(bytearray(MAX_FRAME))  # once: memory that is new for each frame costs more than TLS
            if not self._fill(body[:size], heard):
                return
            yield body[:size]

    def close(self) -> None:
        """End the tunnel; who writes or reads finds it ended. May be called from any thread, and again."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the socket back, when nobody writes or reads any more."""
        self._connection.close()

    def _fill(self, view: memoryview, heard: Callable[[], object]) -> bool:
        """Read as many bytes as `view` has; False at the end."""
        n_read, size, read = 0, len(view), self._tls.read
        while True:
            try:
                with self._lock:
                    while n_read < size:
                        n_read += int(read(size - n_read, view[n_read:]))
                return True
            except ssl.SSLWantReadError:
                if not self._receive(at_end_ok=True):
                    return False
                heard()
            except ssl.SSLZeroReturnError:
                return False

    def _receive(self, *, at_end_ok: bool = False) -> bool:
        n_bytes = self._connection.recv_into(self._buffer)
        if not n_bytes:
            if at_end_ok:
                return False
            raise ConnectionResetError("the other half hung up")
        with self._lock:
            self._incoming.write(self._buffer[:n_bytes])
        return True

    def _send_sealed(self) -> None:
        if self._outgoing.pending:
            self._connection.sendall(self._outgoing.read())
