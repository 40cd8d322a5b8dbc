"""Who listens where this party's gateway should be is not told the worker secret."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedtasks import identity
from fedtasks.errors import FedtasksError, GatewayUnreachable, NotPrivate
from fedtasks.laptop.ports import free_ports
from fedtasks.link import status
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.private import PrivateFolder
from fedtasks.wire.v1 import worker_pb2, worker_pb2_grpc
from tests.support.other_user import NOBODY, needs_root

SECRET = "a secret for tests"


class Listener(worker_pb2_grpc.WorkerGatewayServicer):
    """Answers calls, and keeps what secrets it was told."""

    def __init__(self, bind: Callable[[Any], None]) -> None:
        self.told: list[str] = []
        self._bind = bind
        self.start()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        worker_pb2_grpc.add_WorkerGatewayServicer_to_server(self, self._server)
        self._bind(self._server)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait(10)

    def ListPeers(self, _: Any, context: Any) -> Any:
        self.told.append(dict(context.invocation_metadata())[status.SECRET])
        return worker_pb2.ListPeersResponse(party="bank")


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[Any], None]], Listener]]:
    listeners: list[Listener] = []

    def start(bind: Callable[[Any], None]) -> Listener:
        listeners.append(Listener(bind))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.stop()


def at_socket(path: Path) -> Callable[[Any], None]:
    return lambda server: server.add_insecure_port(f"unix:{path}")


def at_port(port: int, keys: Path) -> Callable[[Any], None]:
    def bind(server: Any) -> None:
        pair = (keys / "gateway.key").read_bytes(), (keys / "gateway.pem").read_bytes()
        server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))

    return bind


def ask(side: WorkerSide, patience_s: float = 0.3) -> FedtasksError | None:
    with GatewayClient(side, patience_s=patience_s) as client:
        try:
            client.peers()
        except FedtasksError as error:
            return error
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def side(folder: Path) -> WorkerSide:
    return WorkerSide(f"unix://{folder}/workers.sock", SECRET)


# ------------------------------------------------------------------------------------------------------------ sockets
def test_gateway_in_a_private_folder_is_told(listen: Any, folder: Path, side: WorkerSide) -> None:
    gateway = listen(at_socket(folder / "workers.sock"))
    assert ask(side) is None
    assert gateway.told == [SECRET]


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770, 0o711])
def test_listener_in_a_folder_that_is_open_to_others_is_not_told(
    listen: Any, folder: Path, side: WorkerSide, mode: int
) -> None:
    squatter = listen(at_socket(folder / "workers.sock"))
    folder.chmod(mode)
    error = ask(side)
    assert isinstance(error, NotPrivate)
    assert (f"{mode:o}" in error.detail, error.where, squatter.told) == (True, str(folder), [])


@needs_root
def test_listener_in_a_folder_of_another_user_is_not_told(listen: Any, folder: Path, side: WorkerSide) -> None:
    squatter = listen(at_socket(folder / "workers.sock"))
    os.chown(folder, NOBODY, NOBODY)
    assert isinstance(ask(side), NotPrivate)
    assert squatter.told == []


def test_listener_that_takes_the_folder_s_name_meanwhile_is_not_told(
    listen: Any, folder: Path, side: WorkerSide
) -> None:
    gateway = listen(at_socket(folder / "workers.sock"))
    with GatewayClient(side, patience_s=0.3) as client:
        client.peers()
        gateway.stop()
        folder.rename(folder.with_name("moved"))
        folder.mkdir(mode=0o755)
        squatter = listen(at_socket(folder / "workers.sock"))
        with pytest.raises(NotPrivate):
            client.peers()
    assert squatter.told == []


def test_client_goes_on_when_the_folder_is_made_anew(listen: Any, folder: Path, side: WorkerSide) -> None:
    gateway = listen(at_socket(folder / "workers.sock"))
    with GatewayClient(side, patience_s=20) as client:
        client.peers()
        gateway.stop()
        shutil.rmtree(folder)

        def again() -> None:
            folder.mkdir(mode=0o700)
            gateway.start()

        timer = threading.Timer(0.3, again)
        timer.start()
        assert client.peers().party == "bank"
        timer.join()


def test_place_that_has_come_to_mean_another_gateway_s_folder_is_connected_to_anew(
    listen: Any, folder: Path, side: WorkerSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_folder, place = tmp_path / "other", tmp_path / "place"
    other_folder.mkdir(mode=0o700)
    gateway, other = (listen(at_socket(each / "workers.sock")) for each in (folder, other_folder))
    # As the number of a folder that was closed is soon that of the next one's.
    monkeypatch.setattr(PrivateFolder, "place", lambda _, name: f"{place}/{name}")
    place.symlink_to(folder)
    with GatewayClient(side, patience_s=0.3) as client:
        client.peers()
        place.unlink()
        place.symlink_to(other_folder)
        assert ask(WorkerSide(f"unix://{other_folder}/workers.sock", "another secret")) is None
    assert (gateway.told, other.told) == ([SECRET], ["another secret"])


def test_deep_folder_is_no_obstacle(listen: Any, tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 25) / ("deeper" * 20)
    folder.mkdir(parents=True, mode=0o700)
    descriptor = os.open(folder, os.O_PATH)
    listen(at_socket(Path(f"/proc/self/fd/{descriptor}/workers.sock")))
    assert ask(WorkerSide(f"unix://{folder}/workers.sock", SECRET)) is None
    os.close(descriptor)


# ---------------------------------------------------------------------------------------------------------------- TLS
@pytest.fixture
def keys(tmp_path: Path) -> Path:
    identity.create_identity(tmp_path / "keys", "bank")
    return tmp_path / "keys"


def over_tls(port: int, keys: Path, name: str = "bank.fedtasks") -> WorkerSide:
    authority = (keys / "authority.pem").read_bytes()
    return WorkerSide(f"127.0.0.1:{port}", SECRET, authority=authority, name=name)


def test_gateway_with_this_party_s_certificate_is_told_also_when_it_is_renewed(listen: Any, keys: Path) -> None:
    (port,) = free_ports(1)
    gateway = listen(at_port(port, keys))
    with GatewayClient(over_tls(port, keys), patience_s=20) as client:
        client.peers()
        gateway.stop()
        identity.renew_certificate(keys, "bank")
        gateway.start()
        assert client.peers().party == "bank"
    assert gateway.told == [SECRET, SECRET]


def test_listener_with_another_authority_s_certificate_is_not_told(listen: Any, keys: Path, tmp_path: Path) -> None:
    identity.create_identity(tmp_path / "squatter", "bank")
    (port,) = free_ports(1)
    squatter = listen(at_port(port, tmp_path / "squatter"))
    error = ask(over_tls(port, keys))
    assert isinstance(error, GatewayUnreachable)
    assert (error.detail.endswith("it was told nothing"), error.where) == (True, f"127.0.0.1:{port}")
    assert squatter.told == []


def test_listener_with_a_certificate_of_another_name_is_not_told(listen: Any, keys: Path) -> None:
    (port,) = free_ports(1)
    other = listen(at_port(port, keys))
    assert isinstance(ask(over_tls(port, keys, "shop.fedtasks")), GatewayUnreachable)
    assert other.told == []


def test_listener_without_tls_reads_no_secret(keys: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = bytearray()

        def hear() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    # As an HTTP/2 server without TLS would begin: with its settings.
                    caller.sendall(b"\0\0\0\4\0\0\0\0\0")
                    caller.settimeout(0.3)
                    try:
                        while chunk := caller.recv(65536):
                            heard.extend(chunk)
                    except OSError:
                        continue

        thread = threading.Thread(target=hear, daemon=True)
        thread.start()
        assert isinstance(ask(over_tls(server.getsockname()[1], keys)), GatewayUnreachable)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert heard
    assert SECRET.encode() not in heard
