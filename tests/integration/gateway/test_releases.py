"""A peer of another release, over mutual TLS: refused at its greeting, with both releases named wherever one looks."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from fedtasks import __version__
from fedtasks.doctor import party as doctor
from fedtasks.errors import VersionDiffers
from fedtasks.gateway.control_stream import PROTOCOL_MAX, PROTOCOL_MIN
from fedtasks.link.status import from_rpc_error
from fedtasks.reports.party import overview
from fedtasks.wire.v1 import peer_pb2, peer_pb2_grpc
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for

SPOKEN = f"{PROTOCOL_MIN} to {PROTOCOL_MAX}"
OLDER = peer_pb2.Greeting(version="0.1.0", protocol_min=PROTOCOL_MIN - 1, protocol_max=PROTOCOL_MIN - 1)
NEWER = peer_pb2.Greeting(version="9.0.0", protocol_min=PROTOCOL_MAX + 1, protocol_max=PROTOCOL_MAX + 2)

REFUSALS = {
    "older": (
        OLDER,
        f"bank {__version__} with protocol {SPOKEN}, shop 0.1.0 with protocol {PROTOCOL_MIN - 1}: shop must upgrade",
    ),
    "newer": (
        NEWER,
        f"bank {__version__} with protocol {SPOKEN}, "
        f"shop 9.0.0 with protocol {PROTOCOL_MAX + 1} to {PROTOCOL_MAX + 2}: bank must upgrade",
    ),
}
each_release = pytest.mark.parametrize(("greeting", "text"), REFUSALS.values(), ids=REFUSALS)


def keys(member: Member) -> tuple[bytes, bytes]:
    gateway = member.party.gateway
    return gateway.private_key.read_bytes(), gateway.certificate.read_bytes()


def dialled(dialler: Member, listener: Member) -> grpc.Channel:
    private_key, certificate = keys(dialler)
    authority = listener.party.gateway.authority.read_bytes()
    credentials = grpc.ssl_channel_credentials(authority, private_key, certificate)
    options = (("grpc.ssl_target_name_override", f"{listener.name}.fedtasks"),)
    return grpc.secure_channel(str(listener.party.gateway.listen), credentials, options)


def greet(dialler: Member, listener: Member, greeting: peer_pb2.Greeting) -> tuple[peer_pb2.Greeting, VersionDiffers]:
    """Dial as a gateway that greets so; returns what it is greeted with, and how its call ends."""
    with dialled(dialler, listener) as channel:
        hold = threading.Event()

        def requests() -> Iterator[peer_pb2.ControlRequest]:
            yield peer_pb2.ControlRequest(envelope=peer_pb2.Envelope(greeting=greeting))
            hold.wait(20)

        call = peer_pb2_grpc.PeerGatewayStub(channel).Control(requests(), timeout=20)
        try:
            theirs = next(call).envelope.greeting
            with pytest.raises(grpc.RpcError) as caught:
                next(call)
        finally:
            hold.set()
    error = from_rpc_error(caught.value)
    assert isinstance(error, VersionDiffers)
    return theirs, error


class Listener(peer_pb2_grpc.PeerGatewayServicer):
    """A gateway that greets so and then listens no further."""

    def __init__(self, greeting: peer_pb2.Greeting) -> None:
        self._greeting = greeting

    async def Control(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[peer_pb2.ControlResponse]:
        yield peer_pb2.ControlResponse(envelope=peer_pb2.Envelope(greeting=self._greeting))
        async for _request in requests:
            pass


@contextlib.contextmanager
def listening(member: Member, peer: Member, greeting: peer_pb2.Greeting) -> Iterator[None]:
    """Listen where a member's gateway would."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server()
        peer_pb2_grpc.add_PeerGatewayServicer_to_server(Listener(greeting), server)
        authority = peer.party.gateway.authority.read_bytes()
        credentials = grpc.ssl_server_credentials([keys(member)], authority, require_client_auth=True)
        server.add_secure_port(str(member.party.gateway.listen), credentials)
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def peer_row(member: Member, peer: str) -> dict[str, Any] | None:
    with member.store() as store:
        row = store.peers.get(peer)
    return dict(row.failure) if row and row.failure else None


def finding(member: Member, subject: str) -> doctor.Finding:
    return next(found for found in doctor.examine(member.folder / "party.yaml") if found.subject == subject)


@each_release
def test_peer_of_another_release_that_dials_is_refused_at_once_and_told_why(
    pair: Pair, greeting: peer_pb2.Greeting, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair.bank.start()
    theirs, error = greet(pair.shop, pair.bank, greeting)
    assert (theirs.party, theirs.version, theirs.protocol_min, theirs.protocol_max) == (
        "bank",
        __version__,
        PROTOCOL_MIN,
        PROTOCOL_MAX,
    )
    releases, _, who = text.partition(": ")
    assert error.fields == {"releases": releases, "upgrade": who.removesuffix(" must upgrade")}
    assert f"no connection with shop: VERSION_DIFFERS: {text}" in caplog.text


@pytest.mark.parametrize(("greeting", "behind"), [(OLDER, "bank"), (NEWER, "shop")], ids=REFUSALS)
def test_gateway_that_dials_a_peer_of_another_release_says_so_in_its_log(
    pair: Pair, greeting: peer_pb2.Greeting, behind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(pair.bank, pair.shop, greeting):
        pair.shop.start()
        wait_for(lambda: "no connection with bank: VERSION_DIFFERS" in caplog.text)
        pair.shop.stop()
    assert f"shop {__version__} with protocol {SPOKEN}, bank {greeting.version} with protocol" in caplog.text
    assert f"{behind} must upgrade" in caplog.text


def test_peer_of_an_older_release_is_named_by_page_doctor_preflight_and_refusal(pair: Pair) -> None:
    _, text = REFUSALS["older"]
    pair.bank.start()
    grant_ticket(pair.shop, pair.bank)
    greet(pair.shop, pair.bank, OLDER)
    wait_for(lambda: (peer_row(pair.bank, "shop") or {}).get("code") == "VERSION_DIFFERS")
    assert (peer_row(pair.bank, "shop") or {})["text"] == text
    with pair.bank.store() as store:
        (need,) = [
            need for need in overview(store, pair.bank.party, {PIPELINE}, 0)["needs"] if need["kind"] == "peer_down"
        ]
    assert text in need["text"]
    assert need["remedy"] == VersionDiffers.remedy
    found = finding(pair.bank, "peer shop")
    assert found.verdict is doctor.Verdict.WRONG
    assert text in found.text
    assert found.remedy == VersionDiffers.remedy
    with pair.bank.client() as bank:
        (status,) = bank.peers().peers
        assert (status.connected, status.version, status.failure.text) == (False, "0.1.0", text)
        (check,) = [check for check in bank.preflight("shop", PIPELINE) if check.name == "connection"]
        assert (check.ok, check.code, check.text) == (False, "VERSION_DIFFERS", text)
        with pytest.raises(VersionDiffers, match="shop must upgrade"):
            open_run(bank)


@pytest.mark.parametrize(
    ("first", "last", "asks_for_clocks"),
    [
        (PROTOCOL_MIN - 1, PROTOCOL_MIN, False),
        (PROTOCOL_MIN, PROTOCOL_MAX, True),
        (PROTOCOL_MAX, PROTOCOL_MAX + 5, True),
    ],
    ids=["older", "same", "newer"],
)
def test_peer_of_a_neighbouring_release_is_spoken_with_in_the_highest_version_that_both_have(
    pair: Pair, first: int, last: int, asks_for_clocks: bool
) -> None:
    pair.bank.start()
    said: queue.Queue[Any] = queue.Queue()
    said.put(peer_pb2.Envelope(greeting=peer_pb2.Greeting(version="1", protocol_min=first, protocol_max=last)))
    said.put(peer_pb2.Envelope(id=7, preflight=peer_pb2.Preflight()))
    with dialled(pair.shop, pair.bank) as channel:
        requests = (peer_pb2.ControlRequest(envelope=each) for each in iter(said.get, None))
        call = peer_pb2_grpc.PeerGatewayStub(channel).Control(requests, timeout=20)
        assert next(call).envelope.WhichOneof("body") == "greeting"
        heard = {}
        while len(heard) < 1 + asks_for_clocks:
            envelope = next(call).envelope
            heard[envelope.WhichOneof("body")] = envelope.reply_to
        said.put(None)
    assert heard == {"preflight_report": 7, **({"clock": 0} if asks_for_clocks else {})}


def test_peer_that_has_upgraded_connects_without_anybodys_doing(pair: Pair) -> None:
    pair.bank.start()
    greet(pair.shop, pair.bank, OLDER)
    pair.shop.start()
    with pair.bank.client() as bank:
        wait_for(lambda: bank.peers().peers[0].connected)
        assert bank.peers().peers[0].failure.code == ""
