"""The way between two real gateways, measured from either side, and what a hostile peer cannot make of it."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import pytest

from fedtasks.checks import Verdict
from fedtasks.doctor.network import examine_network, network_findings
from fedtasks.errors import CallsExceeded, PeerUnknown, PeerUnreachable, VersionDiffers
from fedtasks.gateway import control_stream, probe_driver, probes
from fedtasks.gateway.probes import ROLE
from fedtasks.identity import trusted_authority
from fedtasks.laptop.ports import free_ports
from fedtasks.wire.v1 import peer_pb2, worker_pb2
from tests.support.gateways import Member, Pair, make_members, set_address
from tests.support.proxy import Proxy, Wire
from tests.support.runs import wait_for


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let probes follow each other, and answers be awaited for a moment."""
    monkeypatch.setattr(probes, "EVERY_MS", 0)
    monkeypatch.setattr(probe_driver, "ANSWER_S", 2.0)
    monkeypatch.setattr(probe_driver, "PACE_S", 0.01)


def measure(member: Member, peer: str, idle_s: int = 0) -> worker_pb2.ProbeNetworkResponse:
    with member.client() as client:
        wait_for(lambda: client.peers().peers[0].connected)
        return client.probe_network(peer, idle_s)


@pytest.mark.parametrize("by", ["shop", "bank"])
def test_way_is_measured_in_both_directions_whoever_has_dialled(running: Pair, by: str) -> None:
    member, peer = (running.shop, "bank") if by == "shop" else (running.bank, "shop")
    found = measure(member, peer, 1)
    assert (found.dialled, found.broken_at, found.cut, found.idle_s) == (by == "shop", "", False, 1)
    assert 0 < found.rtt_ms <= found.worst_rtt_ms < 1000
    assert (found.largest_out, found.largest_back) == (1 << 20, 1 << 20)
    assert min(found.out_per_s, found.back_per_s) > 1e6
    findings = list(network_findings(found, by, peer))
    assert {each.subject for each in findings} >= {"round trip", f"bandwidth {by} → {peer}", "silence"}
    assert not [each for each in findings if each.verdict is Verdict.WRONG]
    with running.bank.store() as store:
        assert not [row for row in store.audit.list() if "probe" in row.action]


def test_far_and_slow_line_is_told_with_what_mends_it(tmp_path: Any) -> None:
    bank, shop, listen = make_members(tmp_path)
    proxy = Proxy(listen, wire=Wire(delay_s=0.1, bytes_per_s=1e6))
    set_address(shop, proxy.address)
    with contextlib.ExitStack() as stack:
        for each in (proxy, bank, shop):
            stack.callback(each.close)
        bank.start()
        shop.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probe_driver, "ANSWER_S", 20.0)
            patch.setattr(probe_driver, "BULK_S", 0.5)
            patch.setattr(probe_driver, "ROUNDS", 5)
            patch.setattr(probe_driver, "SIZES", (64 << 10,))
            patch.setattr(probe_driver, "LARGEST", 256 << 10)
            found = measure(shop, "bank")
    assert 200 <= found.rtt_ms < 400
    assert 3e5 < found.out_per_s < 1.2e6
    warned = {each.subject for each in network_findings(found, "shop", "bank") if each.verdict is Verdict.WARNING}
    assert {"round trip", "bandwidth shop → bank"} <= warned


def test_what_cuts_a_silent_stream_or_holds_it_is_found(running: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = probes._answer_all

    async def cut(stream: Any) -> None:
        """Answer as a proxy lets it that hangs up on whoever is silent."""
        read = stream.read

        class Impatient:
            write = stream.write

            async def read(self) -> Any:
                import asyncio

                try:
                    return await asyncio.wait_for(read(), 0.5)
                except TimeoutError:
                    return grpc.aio.EOF

        await answer(Impatient())

    monkeypatch.setattr(probes, "_answer_all", cut)
    found = measure(running.shop, "bank", 5)
    assert found.cut
    assert 0.4 < found.idle_s < 4
    (silence,) = [each for each in network_findings(found, "shop", "bank") if each.subject == "silence"]
    assert (silence.verdict, "proxy_timeout" in silence.remedy) == (Verdict.WARNING, True)

    async def swallow(stream: Any) -> None:
        while await stream.read() is not grpc.aio.EOF:
            pass

    monkeypatch.setattr(probes, "_answer_all", swallow)
    found = measure(running.bank, "shop")
    assert found.broken_at == "round trips"
    assert [each for each in network_findings(found, "bank", "shop") if each.verdict is Verdict.WRONG]


def test_peer_is_measured_seldom_one_at_a_time_and_never_a_stranger(
    running: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(running.shop, "bank")
    monkeypatch.setattr(probes, "EVERY_MS", 60_000)
    with running.bank.client() as bank:
        bank.probe_network("shop", 0)
        with pytest.raises(CallsExceeded):
            bank.probe_network("shop", 0)
        with pytest.raises(PeerUnknown):
            bank.probe_network("nobody", 0)
        running.shop.stop()
        wait_for(lambda: not bank.peers().peers[0].connected)
        monkeypatch.setattr(probes, "OPENED_S", 0.2)
        with pytest.raises(PeerUnreachable):
            bank.probe_network("shop", 0)
    found = list(examine_network(running.bank.folder / "party.yaml", "nobody", 0))
    assert [each.verdict for each in found] == [Verdict.WRONG]


def test_release_that_knows_no_probes_is_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_stream, "PROTOCOL_MAX", 4)
    pair.bank.start()
    pair.shop.start()
    with pair.shop.client() as shop:
        wait_for(lambda: shop.peers().peers[0].connected)
        with pytest.raises(VersionDiffers, match="does not measure"):
            shop.probe_network("bank", 0)


def calls(pair: Pair, role: str, *frames: bytes) -> list[bytes]:
    """Open the stream as the shop, send frames, and return what comes back."""
    gateway = pair.shop.party.gateway
    credentials = grpc.ssl_channel_credentials(
        trusted_authority(pair.shop.party.peers[0].authority),
        gateway.private_key.read_bytes(),
        gateway.certificate.read_bytes(),
    )
    options = (("grpc.ssl_target_name_override", "bank.fedtasks"), *control_stream.MESSAGES)
    with grpc.secure_channel(pair.proxy.address, credentials, options) as channel:
        method = channel.stream_stream("/fedtasks.v1.PeerGateway/Probe")
        return list(method(iter(frames), metadata=((ROLE, role),), timeout=20))


@pytest.mark.parametrize(
    ("role", "frames"),
    [
        ("answers", [b""]),
        ("", [b""]),
        ("drives", [b"\xff\xff"]),
        ("drives", [peer_pb2.ProbeFrame(answer_bytes=(1 << 20) + 1).SerializeToString()]),
        ("drives", [peer_pb2.ProbeFrame(padding=b"x" * ((1 << 20) + 1)).SerializeToString()]),
        ("drives", [peer_pb2.ProbeFrame(answer_bytes=1 << 20).SerializeToString()] * 33),
        ("drives", [b""] * (probes.MAX_FRAMES + 1)),
    ],
    ids=["unasked", "no role", "garbage", "large answer", "large question", "many bytes", "many messages"],
)
def test_hostile_peer_makes_no_lever_of_a_probe(pair: Pair, role: str, frames: list[bytes]) -> None:
    pair.bank.start()
    with pytest.raises(grpc.RpcError) as raised:
        calls(pair, role, *frames)
    assert raised.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert free_ports(1)
    assert calls(pair, "drives", b"") != []
