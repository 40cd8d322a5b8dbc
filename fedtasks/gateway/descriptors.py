"""How many connections and files this process may have open: each connection of a stranger takes one."""

from __future__ import annotations

import contextlib
import resource

ENOUGH = 4096
"""With fewer, whoever opens connections without end soon holds all that strangers may have."""

MAX_TUNNELS = 128
"""So many sessions may go through tunnels at once; others stay on gRPC."""

_OF_A_TUNNEL = 6
"""Two connections, and a pipe for each direction."""

_OWN = 256 + MAX_TUNNELS * _OF_A_TUNNEL
"""What is kept for store, Airflow, workers, files and tunnels."""


def raise_descriptor_limit() -> int:
    """Raise this process's limit as far as it may by itself; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return descriptor_limit()


def descriptor_limit(*, hard: bool = False) -> int:
    """Return how many descriptors this process may have open; with `hard`, how far it may raise that by itself."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1 if hard else 0]
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def max_connections(limit: int) -> int:
    """Return how many connections from outside may stand at once, so that the rest of the gateway has what it needs."""
    return max(limit - _OWN, limit // 2)
