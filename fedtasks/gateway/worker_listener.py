"""Where a gateway listens for its own workers: a socket in a private folder, or TLS with its certificate."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from fedtasks import private
from fedtasks.config import Gateway, tunnel_socket
from fedtasks.errors import ConfigError, PortInUse
from fedtasks.gateway.interceptors import SecretInterceptor, StatusInterceptor, raw_handler
from fedtasks.gateway.tunnels import Side, Tunnels, listen_at
from fedtasks.gateway.worker_service import WorkerService
from fedtasks.gateway.workers import Workers
from fedtasks.link.keepalive import ALWAYS
from fedtasks.wire.v1 import worker_pb2_grpc

FIELD = "gateway.workers"
HANDSHAKE_TIMEOUT_MS = 10_000
"""How long a caller may take to agree on TLS."""

_MESSAGES = (("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20))


@contextlib.asynccontextmanager
async def listen_for_workers(gateway: Gateway, service: WorkerService, tunnels: Tunnels) -> AsyncIterator[None]:
    """Answer this party's workers, and take their tunnels, while the context lasts.

    Raises
    ------
    PortInUse
        Somebody else listens there.
    ConfigError
        The secret cannot be used, or there can be no socket.
    NotPrivate
        The socket's folder is not this party's alone.
    """
    interceptors = (StatusInterceptor(shows_detail=True), SecretInterceptor(Workers(gateway).require))
    options = (
        *ALWAYS,
        *_MESSAGES,
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    )
    server = grpc.aio.server(interceptors=interceptors, options=options)
    worker_pb2_grpc.add_WorkerGatewayServicer_to_server(service, server)
    server.add_generic_rpc_handlers((raw_handler("fedtasks.v1.WorkerGateway", Session=service.session),))
    with _bound(server, gateway) as listener:
        async with tunnels.taking(Side.WORKER, listener):
            await server.start()
            try:
                yield
            finally:
                await server.stop(grace=0.5)


@contextlib.contextmanager
def _bound(server: Any, gateway: Gateway) -> Iterator[socket.socket | None]:
    """Give the server its address; yields what listens for tunnels beside it."""
    if gateway.socket is not None:
        with _bound_to_socket(server, gateway.socket) as listener:
            yield listener
        return
    key, certificate = gateway.private_key.read_bytes(), gateway.certificate.read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    bind(lambda: server.add_secure_port(gateway.workers, credentials), gateway.workers, FIELD)
    yield bind_tunnels(gateway.worker_tunnels_at, "gateway.worker_tunnels")


@contextlib.contextmanager
def _bound_to_socket(server: Any, path: Path) -> Iterator[socket.socket]:
    """Hold the lock beside the socket: a killed gateway leaves its socket behind, but no lock."""
    where = f"party.yaml: {FIELD}"
    private.make_folder(path.parent)
    with private.PrivateFolder(path.parent, {os.geteuid()}) as folder, contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder.locked(f".{path.name}.lock"))
        except BlockingIOError:
            raise PortInUse(f"another gateway serves `{path}`", where=where) from None
        place = folder.place(path.name)
        _try_socket(Path(place), path, where)
        bind(lambda: server.add_insecure_port(f"unix:{place}"), str(path), FIELD)
        with socket.socket(socket.AF_UNIX) as listener:
            tunnel_place = Path(folder.place(tunnel_socket(path).name))
            tunnel_place.unlink(missing_ok=True)
            listener.bind(str(tunnel_place))
            listener.listen(64)
            yield listener
            tunnel_place.unlink(missing_ok=True)


def bind_tunnels(where: tuple[str, int] | None, field: str) -> socket.socket | None:
    """Listen for tunnels where the configuration says; raise `PortInUse` naming the field of party.yaml."""
    if where is None:
        return None
    try:
        return listen_at(*where)
    except OSError as error:
        text = f"`{where[0]}:{where[1]}` cannot be bound: {error.strerror}"
        raise PortInUse(text, where=f"party.yaml: {field}") from error


def _try_socket(place: Path, path: Path, where: str) -> None:
    """Say why there can be no socket, which gRPC does not; what a killed gateway left is removed."""
    try:
        place.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(place))
        place.unlink()
    except OSError as error:
        text = f"there can be no socket `{path}`: {error.strerror}; name a folder on a local disk"
        raise ConfigError(text, where=where) from error


def bind(bind_port: Callable[[], int], address: str, field: str) -> None:
    """Bind a listener's address; raise `PortInUse` naming the field of party.yaml."""
    try:
        port = bind_port()
    except RuntimeError as error:
        raise PortInUse(f"`{address}` cannot be bound", where=f"party.yaml: {field}") from error
    if port == 0:
        raise PortInUse(f"`{address}` cannot be bound", where=f"party.yaml: {field}")
