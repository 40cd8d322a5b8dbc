from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedtasks import __version__
from fedtasks.errors import (
    DeadlinePassed,
    FedtasksError,
    GatewayUnreachable,
    LinkLost,
    PeerFailed,
    PeerRestarted,
    PeerUnreachable,
    ProtocolViolated,
    RunCancelled,
    SecretRejected,
    StoreUnavailable,
    TicketRevoked,
    VersionDiffers,
)
from fedtasks.link import conversation, frames, session
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import session_pb2
from tests.support.links import both, open_half, relayed_pair
from tests.support.relay import SECRET, Relay
from tests.support.runs import wait_for

MIB = 1 << 20


@pytest.fixture(params=["grpc", "tunnel"])
def relay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """What joins links, over gRPC alone or in tunnels from the first message on."""
    monkeypatch.setattr(session, "BUSY_BYTES", 0)
    with Relay(has_tunnels=request.param == "tunnel") as relay:
        yield relay


@pytest.fixture
def client(relay: Relay) -> Iterator[GatewayClient]:
    with GatewayClient(relay.side) as client:
        yield client


def test_link_says_how_its_frames_go(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BUSY_BYTES", 1)
    with relayed_pair(relay) as (a, b):
        assert (a.path, b.path) == ("gRPC", "gRPC")
        both(lambda: a.send("x", b"rows"), lambda: b.receive("x"))
        if relay.has_tunnels:
            wait_for(lambda: a.path == b.path == "tunnel")
        else:
            assert (a.path, b.path) == ("gRPC", "gRPC")


@pytest.mark.parametrize("relay", ["tunnel"], indirect=True)
def test_link_whose_tunnel_fails_says_why(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> socket.socket:
        raise ConnectionRefusedError("nobody listens there")

    monkeypatch.setattr(GatewayClient, "connect_tunnel", refuse)
    with relayed_pair(relay) as (a, b):
        wait_for(lambda: a.path == b.path == "gRPC: nobody listens there")


def test_gateway_that_restarts_in_the_middle_of_a_transfer_loses_nothing(relay: Relay) -> None:
    array = np.random.default_rng(1).integers(0, 256, size=24 * MIB, dtype=np.uint8)
    with relayed_pair(relay, window=2 * MIB) as (a, b):

        def receive() -> Any:
            first = b.receive("x")
            for _ in range(2):
                relay.stop()
                relay.start()
            return first, b.receive("x")

        def send() -> None:
            a.send("x", array)
            a.send("x", array[::-1])

        _, (first, second) = both(send, receive)

    np.testing.assert_array_equal(first, array)
    np.testing.assert_array_equal(second, array[::-1])
    assert relay.sessions > 1


def test_two_links_at_once_keep_their_shards_apart(client: GatewayClient) -> None:
    def half(name: str, shard: int) -> bytes:
        with open_half(client, name, shard=shard) as link:
            link.send("x", f"{name}{shard}".encode() * 100_000)
            got = link.receive("x")
            assert isinstance(got, bytes)
            return got[:2]

    results: dict[int, tuple[bytes, bytes]] = {}

    def run(shard: int) -> None:
        results[shard] = both(lambda: half("a", shard), lambda: half("b", shard))

    both(lambda: run(0), lambda: run(1))

    assert results == {0: (b"b0", b"a0"), 1: (b"b1", b"a1")}


@pytest.mark.parametrize("error", [RunCancelled("text"), TicketRevoked("text"), PeerFailed("text")])
def test_refusal_of_the_gateway_reaches_the_caller(relay: Relay, client: GatewayClient, error: FedtasksError) -> None:
    relay.refusal = error

    with pytest.raises(type(error)) as caught:
        open_half(client, "a")
    assert caught.value.code == error.code


def test_refusal_in_the_middle_reaches_who_waits_on_both_sides(relay: Relay) -> None:
    with relayed_pair(relay) as (a, b):

        def wait(link: Any) -> None:
            with pytest.raises(RunCancelled):
                link.receive("x")

        def refuse() -> None:
            relay.refusal = RunCancelled()
            relay.cut()

        both(lambda: both(lambda: wait(a), lambda: wait(b)), refuse)
        with pytest.raises(RunCancelled):
            a.send("x", b"")
        with pytest.raises(RunCancelled):
            a.close()


def test_wrong_secret_is_refused(relay: Relay) -> None:
    with GatewayClient(replace(relay.side, secret="another")) as client, pytest.raises(SecretRejected):
        open_half(client, "a")


def test_other_half_that_never_comes_is_named_after_the_deadline(client: GatewayClient) -> None:
    with pytest.raises(DeadlinePassed, match=r"b did not come within 0\.2 s"):
        open_half(client, "a", connect_timeout_s=0.2)


def test_gateway_that_is_not_there_is_named_after_the_deadline(relay: Relay, client: GatewayClient) -> None:
    relay.stop()

    with pytest.raises(GatewayUnreachable):
        open_half(client, "a", connect_timeout_s=0.2)


@pytest.mark.parametrize("error", [PeerUnreachable, StoreUnavailable])
def test_unreachable_peer_or_store_is_waited_for_and_then_named(
    relay: Relay, client: GatewayClient, error: type[FedtasksError]
) -> None:
    relay.refusal = error()
    with pytest.raises(error):
        open_half(client, "a", connect_timeout_s=0.2)

    def mend() -> None:
        relay.refusal = None

    timer = threading.Timer(0.3, mend)
    timer.start()
    with relayed_pair(relay) as (a, b):
        a.send("x", b"1")
        assert b.receive("x") == b"1"
    timer.join()


def test_link_that_cannot_be_resumed_in_time_is_lost(relay: Relay) -> None:
    with relayed_pair(relay, resume_timeout_s=0.3) as (a, b):
        relay.stop()

        with pytest.raises(LinkLost, match=r"b could not be reached again within 0\.3 s") as caught:
            a.receive("x")
        assert caught.value.fields == {"away": "the gateway of this party"}
        with pytest.raises(LinkLost):
            b.receive("x")
        relay.start()


def test_link_that_is_lost_names_the_gateways_between_which_nothing_goes(relay: Relay) -> None:
    with relayed_pair(relay, resume_timeout_s=0.5, party="c") as (a, _):
        relay.refusal = PeerUnreachable()
        relay.cut()
        with pytest.raises(LinkLost) as caught:
            a.receive("x")
        assert caught.value.fields == {"away": "the gateway of b or the network between both gateways"}
        relay.refusal = None


def test_link_that_is_lost_names_the_other_half_where_nothing_else_is_missing(relay: Relay) -> None:
    with relayed_pair(relay, resume_timeout_s=0.5) as (a, b):
        b.abort()
        with pytest.raises(LinkLost, match="the half of b was away"):
            a.receive("x")


def test_other_process_that_began_anew_is_a_restart(relay: Relay, client: GatewayClient) -> None:
    with relayed_pair(relay) as (a, b):
        a.send("x", b"1")
        b.receive("x")
        b.abort()  # type: ignore[attr-defined]

        def wait() -> None:
            with pytest.raises(PeerRestarted):
                a.receive("x")

        def begin_anew() -> None:
            # What it had received before is gone, so this half cannot go on either.
            with pytest.raises((PeerRestarted, DeadlinePassed)):
                open_half(client, "b", connect_timeout_s=1.0).receive("x", timeout_s=1.0)

        both(wait, begin_anew)


def test_other_version_is_refused_on_both_sides(relay: Relay, client: GatewayClient) -> None:
    def age(frame: bytes) -> bytes:
        message = session_pb2.Frame.FromString(frame)
        if message.HasField("hello"):
            message.hello.version_min = message.hello.version_max = 7
        return bytes(message.SerializeToString())

    relay.rewrite = age

    def meet(name: str) -> None:
        with pytest.raises(VersionDiffers) as caught:
            open_half(client, name, party=name)
        other = "b" if name == "a" else "a"
        releases = f"{name} {__version__} with sessions 2, {other} {__version__} with sessions 7"
        assert caught.value.fields == {"releases": releases, "upgrade": name}

    both(lambda: meet("a"), lambda: meet("b"))


def test_peer_that_sends_garbage_is_a_protocol_violation() -> None:
    # Over gRPC alone: of two halves that offer each other a tunnel, either could be the one that reads garbage first.
    with Relay() as relay, relayed_pair(relay) as (a, b):
        relay.rewrite = lambda frame: b"\xff\xff" if b"a message" in frame else frame
        a.send("x", b"a message")

        with pytest.raises(ProtocolViolated):
            b.receive("x")


def test_silent_stream_is_replaced(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(conversation, "SILENCE_S", 0.5)
    with relayed_pair(relay) as (a, b):
        first = relay.sessions

        def swallow(frame: bytes) -> bytes | None:
            # A connection that hangs: it stands, but nothing comes through until there is a new one.
            return frame if relay.sessions > first else None

        relay.rewrite = swallow
        a.send("x", b"1")

        assert b.receive("x", timeout_s=30) == b"1"


def test_half_killed_by_its_machine_is_noticed_and_a_close_that_is_all_but_done_ends(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtasks.link.grpc_link.CLOSE_GRACE_S", 0.2)
    with relayed_pair(relay) as (a, b):
        a.send("x", b"1")
        b.receive("x")

        def drop_close(frame: bytes) -> bytes | None:
            return None if frame == frames.CLOSE else frame

        relay.rewrite = drop_close

        def vanish() -> None:
            while not a._conversation.is_settled:  # type: ignore[attr-defined]
                threading.Event().wait(0.01)
            b.abort()  # type: ignore[attr-defined]

        both(a.close, vanish)


def test_bytes_are_counted_on_both_sides(relay: Relay) -> None:
    with relayed_pair(relay) as (a, b):
        a.send("x", bytes(MIB))
        b.receive("x")
        both(a.close, b.close)

        assert MIB < b.bytes_received < MIB + 1000  # type: ignore[attr-defined]
        assert a.bytes_sent >= b.bytes_received  # type: ignore[attr-defined]


def test_process_whose_main_thread_fails_is_not_kept_alive_by_its_link(relay: Relay) -> None:
    program = f"""
import threading
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.link.grpc_link import GrpcLink
def half(peer):
    client = GatewayClient(WorkerSide({relay.side.address!r}, {SECRET!r}))
    return GrpcLink(client, peer=peer, run_id="r", task="t", shard=0, attempt=1, facts={{}})
threading.Thread(target=half, args=("a",), daemon=True).start()
link = half("b")
raise SystemExit(7)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True, text=True)

    assert done.returncode == 7, done.stderr
