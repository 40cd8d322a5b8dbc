"""Where a gateway serves its workers: one gateway at a time, in a folder of its own, or over TLS."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from fedtasks import errors, identity
from fedtasks.laptop.ports import free_ports
from fedtasks.link import status
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.wire.v1 import worker_pb2, worker_pb2_grpc
from tests.support.gateways import Member, Pair, make_members
from tests.support.other_user import NOBODY, needs_root


def serve_workers_at(member: Member, address: str) -> None:
    file = member.folder / "party.yaml"
    file.write_text(file.read_text().replace("gateway:\n", f"gateway:\n  workers: {address}\n"))


def answers(member: Member) -> str:
    with member.client() as client:
        return client.peers().party


def test_socket_lies_in_a_private_folder_and_goes_with_the_gateway(pair: Pair) -> None:
    folder = pair.bank.folder / "run"
    pair.bank.start()
    assert answers(pair.bank) == "bank"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_ISSOCK((folder / "workers.sock").stat().st_mode)
    pair.bank.stop()
    assert not (folder / "workers.sock").exists()


def test_socket_that_a_killed_gateway_left_is_replaced(pair: Pair) -> None:
    (pair.bank.folder / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(pair.bank.folder / "run" / "workers.sock"))
    pair.bank.start()
    assert answers(pair.bank) == "bank"


@pytest.mark.parametrize("address", ["run/workers.sock", "127.0.0.1:PORT"])
def test_second_gateway_of_a_party_is_refused_and_the_first_goes_on(pair: Pair, address: str) -> None:
    serve_workers_at(pair.bank, address.replace("PORT", str(free_ports(1)[0])))
    pair.bank.start()
    folder = pair.bank.folder.with_name("bank-2")  # with a store of its own
    shutil.copytree(pair.bank.folder, folder, ignore=shutil.ignore_patterns("run", "store.db*", "store-of-*"))
    file = folder / "party.yaml"
    file.write_text(file.read_text().replace("run/workers.sock", pair.bank.party.gateway.workers))
    second = Member("bank", folder, pair.bank.airflow)
    with pytest.raises(errors.PortInUse, match=r"gateway\.workers"):
        second.start()
    assert answers(pair.bank) == "bank"


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o770])
def test_folder_that_is_open_to_others_is_refused_with_the_remedy(pair: Pair, mode: int) -> None:
    folder = pair.bank.folder / "run"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(errors.NotPrivate, match=rf"mode {mode:o}\); run `chmod -R go= {folder}`"):
        pair.bank.start()
    folder.chmod(0o700)
    pair.bank.start()
    assert answers(pair.bank) == "bank"


@needs_root
def test_folder_of_another_user_is_refused(pair: Pair) -> None:
    folder = pair.bank.folder / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(errors.NotPrivate, match=f"belongs to user {NOBODY}"):
        pair.bank.start()


def test_place_where_there_can_be_no_socket_says_so(pair: Pair) -> None:
    (pair.bank.folder / "run" / "workers.sock").mkdir(parents=True, mode=0o700)
    (pair.bank.folder / "run").chmod(0o700)
    with pytest.raises(errors.ConfigError, match=r"there can be no socket .* name a folder on a local disk"):
        pair.bank.start()


def test_party_in_a_deep_folder_needs_no_short_path(tmp_path: Path) -> None:
    bank, shop, _ = make_members(tmp_path / ("deep" * 30))
    try:
        bank.start()
        assert answers(bank) == "bank"
    finally:
        bank.close()
        shop.close()


def test_worker_elsewhere_is_served_over_tls_and_goes_on_when_the_certificate_is_renewed(pair: Pair) -> None:
    serve_workers_at(pair.bank, f"127.0.0.1:{free_ports(1)[0]}")
    pair.bank.start()
    with pair.bank.client() as client:
        assert client.peers().party == "bank"
        pair.bank.stop()
        identity.renew_certificate(pair.bank.folder / "keys", "bank")
        pair.bank.start()
        assert client.peers().party == "bank"


def test_worker_without_tls_is_not_answered_even_on_loopback(pair: Pair) -> None:
    (port,) = free_ports(1)
    serve_workers_at(pair.bank, f"127.0.0.1:{port}")
    pair.bank.start()
    secret = (pair.bank.folder / "keys" / "worker.secret").read_text()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = worker_pb2_grpc.WorkerGatewayStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListPeers(worker_pb2.ListPeersRequest(), metadata=((status.SECRET, secret),), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_worker_over_tls_needs_the_secret_too(pair: Pair) -> None:
    serve_workers_at(pair.bank, f"127.0.0.1:{free_ports(1)[0]}")
    pair.bank.start()
    guessing = replace(WorkerSide.of(pair.bank.party), secret="another")
    with GatewayClient(guessing) as client, pytest.raises(errors.SecretRejected):
        client.peers()
