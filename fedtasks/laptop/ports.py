"""Ports on this machine's loopback addresses."""

from __future__ import annotations

import random
import socket

from fedtasks.errors import PortInUse

_RANGE = range(20_000, 32_000)
"""Below the ports of outgoing connections, which could take one between its choice and its use."""


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return different ports of `host` that nobody listens on now."""
    found: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if len(found) == count:
            break
        try:
            require_free(host, port)
        except PortInUse:
            continue
        found.append(port)
    return found


def require_free(host: str, port: int) -> None:
    """Check that a port can be listened on.

    Raises
    ------
    PortInUse
        Somebody does already.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise PortInUse(f"{host}:{port} cannot be used: {error.strerror}", where=f"{host}:{port}") from error
