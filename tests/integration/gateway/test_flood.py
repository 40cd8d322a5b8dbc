"""A peer at its worst, and strangers, against a gateway that others need."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import grpc
import pytest

from fedtasks import identity
from fedtasks.gateway import conversation, server
from fedtasks.gateway.control_stream import MAX_IN_FLIGHT
from fedtasks.link import status
from fedtasks.link.status import from_rpc_error
from fedtasks.wire.v1 import peer_pb2
from tests.support.callers import Caller, raw_tls
from tests.support.gateways import PIPELINE, Member, Pair, shared_config
from tests.support.hostile import refusals
from tests.support.runs import STEPS, wait_for


@pytest.fixture
def bank(pair: Pair) -> Member:
    """The bank's gateway alone; the shop is played by the test."""
    pair.bank.start()
    return pair.bank


@pytest.fixture
def shop(pair: Pair, bank: Member) -> Iterator[Caller]:
    with call(pair.shop, bank) as caller:
        yield caller


def call(member: Member, bank: Member, *, reads: bool = True) -> Caller:
    listen = str(bank.party.gateway.listen)
    return Caller(member.folder / "keys", bank.folder / "keys" / "authority.pem", listen, "bank", reads=reads)


def address(bank: Member) -> tuple[str, int]:
    host, _, port = str(bank.party.gateway.listen).rpartition(":")
    return host, int(port)


def test_name_of_two_megabytes_is_refused_at_once_and_the_conversation_goes_on(bank: Member, shop: Caller) -> None:
    start = peer_pb2.StartRun(pipeline="é" * 900_000, dag_id="x", partition="2026-11-21")
    numbers = [shop.begin(start_run=start) for _ in range(MAX_IN_FLIGHT)]
    assert {shop.end(number).failure.code for number in numbers} == {"MESSAGE_TOO_LARGE"}
    assert shop.ask(preflight=peer_pb2.Preflight()).preflight_report.checks
    with bank.store() as store:
        rows = [row for row in store.audit.list() if row.decision == "refused"]
    assert len(rows) == MAX_IN_FLIGHT
    assert all(len(str(row.detail)) < 500 for row in rows)


def test_seventeenth_request_waits_unread_until_one_is_answered(
    bank: Member, shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from fedtasks.gateway.intake import Intake

    begun, gates = [], []

    async def hold(_: Intake, peer: str, __: object) -> peer_pb2.Envelope:
        begun.append(peer)
        gate = (asyncio.get_running_loop(), asyncio.Event())
        gates.append(gate)
        await gate[1].wait()
        return peer_pb2.Envelope(done=peer_pb2.Done())

    monkeypatch.setattr(Intake, "answer", hold)
    numbers = [shop.begin(preflight=peer_pb2.Preflight()) for _ in range(MAX_IN_FLIGHT + 5)]
    wait_for(lambda: len(begun) == MAX_IN_FLIGHT)
    with contextlib.suppress(Exception):
        shop._waiting[numbers[0]].get(timeout=0.3)
    assert len(begun) == MAX_IN_FLIGHT
    loop, gate = gates[0]
    loop.call_soon_threadsafe(gate.set)
    wait_for(lambda: len(begun) == MAX_IN_FLIGHT + 1)
    for loop, gate in gates[1:]:
        loop.call_soon_threadsafe(gate.set)
    wait_for(lambda: len(begun) == len(numbers))
    for loop, gate in gates:
        loop.call_soon_threadsafe(gate.set)
    assert all(shop.end(number).HasField("done") for number in numbers[1:])


def test_peer_that_reads_no_answers_ends_its_own_conversation(
    pair: Pair, bank: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "WRITE_S", 0.5)
    with call(pair.shop, bank, reads=False) as caller:
        for _ in range(5_000):
            caller.send(peer_pb2.Envelope(id=1, preflight=peer_pb2.Preflight(pipeline="train" * 6)))
        wait_for(lambda: not connected(bank))
    with call(pair.shop, bank) as caller:
        assert caller.ask(preflight=peer_pb2.Preflight()).HasField("preflight_report")


def connected(bank: Member) -> bool:
    with bank.client() as client:
        return bool(client.peers().peers[0].connected)


def test_flood_of_refusals_is_accounted_for_to_the_last_one(bank: Member, shop: Caller) -> None:
    n = 90
    start = peer_pb2.StartRun(ticket_id="t-none", pipeline=PIPELINE, dag_id=PIPELINE, steps=STEPS)
    start.partition, start.config_json = "2026-11-21", shared_config()
    numbers = [shop.begin(start_run=start) for _ in range(n)]
    assert {shop.end(number).failure.code for number in numbers} == {"TICKET_MISSING"}
    wait_for(lambda: refusals(bank) == n)
    with bank.store() as store:
        assert len([row for row in store.audit.list() if row.decision == "refused"]) < n
        store.audit.verify()


def test_session_of_a_run_that_there_is_not_is_refused_and_audited(bank: Member, shop: Caller) -> None:
    metadata = {status.RUN: "none.x.1", status.TASK: "t", status.SHARD: "0", status.ATTEMPT: "1"}
    with pytest.raises(grpc.RpcError) as caught:
        next(shop.open_session(metadata))
    assert from_rpc_error(caught.value).code == "RUN_UNKNOWN"
    for name in (status.RUN, status.SHARD):
        with pytest.raises(grpc.RpcError) as caught:
            next(shop.open_session({**metadata, name: "9" * 5_000}))
        assert from_rpc_error(caught.value).code == "PROTOCOL_VIOLATED"
    with bank.store() as store:
        rows = store.audit.list(action="session.open")
    assert [row.detail["code"] for row in rows] == ["RUN_UNKNOWN", "PROTOCOL_VIOLATED", "PROTOCOL_VIOLATED"]
    assert all(len(str(row.detail)) < 500 for row in rows)


# ---------------------------------------------------------------------------------------------------------- strangers
def test_handshakes_that_stay_half_open_are_ended_and_keep_no_peer_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 1_000)
    pair.bank.start()
    half_open = [socket.create_connection(address(pair.bank)) for _ in range(300)]
    try:
        began = time.monotonic()
        with call(pair.shop, pair.bank) as shop:
            assert shop.ask(preflight=peer_pb2.Preflight()).HasField("preflight_report")
        for one in half_open:
            one.settimeout(10)
            assert one.recv(1) == b""
        assert time.monotonic() - began < 8
    finally:
        for one in half_open:
            one.close()


def test_connection_on_which_nobody_calls_is_ended(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 1_000)
    monkeypatch.setattr(server, "IDLE_MS", 1_000)
    pair.bank.start()
    context = raw_tls(pair.shop.folder / "keys", pair.bank.folder / "keys" / "authority.pem")
    no_settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for said in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_settings):
        with context.wrap_socket(socket.create_connection(address(pair.bank)), server_hostname="bank") as connection:
            connection.settimeout(10)
            connection.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1 << 16):
                    pass


def test_stranger_with_a_certificate_of_a_known_authority_is_refused_and_audited(pair: Pair, bank: Member) -> None:
    folder = pair.shop.folder / "other"
    identity.create_identity(folder, "shop2")
    _reissue(folder, pair.shop.folder / "keys", "stranger")
    with pytest.raises(grpc.RpcError) as caught:
        Caller(folder, bank.folder / "keys" / "authority.pem", str(bank.party.gateway.listen), "bank")
    assert from_rpc_error(caught.value).code == "PEER_IDENTITY"
    with bank.store() as store:
        (row,) = store.audit.list(action="peer.connect")
    assert (row.actor, row.decision, row.detail["code"]) == ("a stranger", "refused", "PEER_IDENTITY")
    assert row.detail["address"].startswith("ipv4:127.0.0.1")


def _reissue(folder: object, authority: object, name: str) -> None:
    """Let an authority sign a certificate for another name."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    issuer = x509.load_pem_x509_certificate((authority / "authority.pem").read_bytes())  # type: ignore[operator]
    key = serialization.load_pem_private_key((authority / "authority.key").read_bytes(), None)  # type: ignore[operator]
    leaf = x509.load_pem_x509_certificate((folder / "gateway.pem").read_bytes())  # type: ignore[operator]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(leaf.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
    )
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (folder / "gateway.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))  # type: ignore[operator]
