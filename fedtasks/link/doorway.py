"""The way to this party's gateway, which is known to be its own before it is told the worker secret."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from fedtasks.config import SOCKET, Party, read_secret, split_address, tunnel_socket
from fedtasks.errors import ConfigError, GatewayUnreachable
from fedtasks.link.keepalive import KEEPALIVE
from fedtasks.private import PrivateFolder

OPTIONS = (
    *KEEPALIVE,
    # A gateway that restarts is found within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)

TUNNEL_BUFFER = 1 << 20
"""What may wait in a socket of a tunnel: a whole frame, else its two ends wake each other several times for each."""


@dataclass(frozen=True)
class WorkerSide:
    """Where this party's gateway serves its workers, and how they know that it is the gateway.

    Parameters
    ----------
    address
        ``unix:///path`` of a socket, or ``host:port``.
    secret
        The worker secret.
    owners
        Ids of the users to one of whom a socket's folder must belong.
    authority
        The certificate authority (PEM) that a gateway at ``host:port`` must be certified by.
    name
        The name that its certificate must say.
    """

    address: str
    secret: str = field(repr=False)
    owners: frozenset[int] = field(default_factory=lambda: frozenset({os.geteuid()}))
    authority: bytes = b""
    name: str = ""

    @classmethod
    def of(cls, party: Party) -> Self:
        """Read what party.yaml says.

        Raises
        ------
        ConfigError
            The secret's file is missing, empty, or readable by others; or the authority cannot be read.
        """
        gateway = party.gateway
        secret = read_secret(gateway.worker_secret_file)
        if gateway.socket is not None:
            # Who owns the secret's file knows it already.
            return cls(gateway.workers, secret, owners=frozenset({gateway.worker_secret_file.stat().st_uid}))
        try:
            authority = gateway.authority.read_bytes()
        except OSError as error:
            text = f"the authority that certifies the gateway cannot be read: {error.strerror}"
            raise ConfigError(text, where=str(gateway.authority)) from error
        return cls(gateway.workers, secret, authority=authority, name=f"{party.name}.fedtasks")


class Doorway:
    """Opens channels to a worker side.

    Parameters
    ----------
    side
        Where it is.
    library
        `grpc` or `grpc.aio`, whose channels are opened.

    Notes
    -----
    A channel over a socket leads through the folder that was checked, whatever its path comes to mean. One over TLS
    hands nothing to a server that is not certified by this party's authority under this party's name; a certificate
    that has been renewed will do.
    """

    def __init__(self, side: WorkerSide, library: Any = grpc) -> None:
        self._side = side
        self._library = library
        # One, unless the folder of the socket was made anew; the others may still have calls under way.
        self._ways: list[tuple[PrivateFolder | None, Any]] = []

    def channel(self) -> Any:
        """Return a channel to call over now; a folder that was made anew since is checked anew.

        Raises
        ------
        GatewayUnreachable
            There is no socket yet.
        NotPrivate
            The socket's folder is not this party's alone.
        """
        if self._side.address.startswith(SOCKET):
            self._find_folder(Path(self._side.address.removeprefix(SOCKET)))
        elif not self._ways:
            credentials = grpc.ssl_channel_credentials(root_certificates=self._side.authority)
            options = (*OPTIONS, ("grpc.ssl_target_name_override", self._side.name))
            self._ways.append((None, self._library.secure_channel(self._side.address, credentials, options=options)))
        return self._ways[-1][1]

    def _find_folder(self, socket: Path) -> None:
        try:
            folder = PrivateFolder(socket.parent, self._side.owners)
        except FileNotFoundError:
            if self._ways:
                return  # calls fail until a gateway makes the folder again
            raise GatewayUnreachable("its socket is not there", where=self._side.address) from None
        known = self._ways[-1][0] if self._ways else None
        if known is not None and known.identity == folder.identity:
            folder.close()
        else:
            # The place is named by the number of an open folder, which in time is that of another gateway's: a
            # connection that another client has made to the same text must not be taken over.
            options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
            channel = self._library.insecure_channel(f"unix:{folder.place(socket.name)}", options=options)
            self._ways.append((folder, channel))

    def connect_tunnel(self, port: int, timeout_s: float) -> socket.socket:
        """Connect to where the worker side takes connections for tunnels, beside the channel that was opened last.

        Parameters
        ----------
        port
            Where the gateway says that it takes them, unless its worker side is a socket.

        Raises
        ------
        OSError
            Nobody listens there.
        """
        folder = self._ways[-1][0]
        if folder is None:
            host, _ = split_address(self._side.address, "workers")
            connection = socket.create_connection((host, port), timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TUNNEL_BUFFER)
            connection.settimeout(timeout_s)
            connection.connect(folder.place(tunnel_socket(Path(self._side.address.removeprefix(SOCKET))).name))
        except OSError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Hang up; calls under way end."""
        while self._ways:
            folder, channel = self._ways.pop()
            channel.close()
            if folder is not None:
                folder.close()  # last: its number may mean something else from now on

    async def aclose(self) -> None:
        """Hang up, where channels are asynchronous."""
        while self._ways:
            folder, channel = self._ways.pop()
            await channel.close()
            if folder is not None:
                folder.close()
