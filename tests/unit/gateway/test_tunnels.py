from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from fedtasks.errors import FedtasksError
from fedtasks.gateway import tunnels
from fedtasks.gateway.tunnels import Side, Tunnel, Tunnels, dial, listen_at
from fedtasks.link.status import proof_of

LIMIT_S = 20.0


class Refusals:
    """A ledger that only remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, str]] = []

    def refuse(self, actor: str, action: str, error: FedtasksError, /, **facts: Any) -> bool:
        self.seen.append((actor, action, error.code, facts["address"]))
        return True


class Gateway:
    """What takes tunnels on two ports, one for each side."""

    def __init__(self, taking: Tunnels, refusals: Refusals) -> None:
        self.tunnels, self.refusals = taking, refusals
        self.counted: list[tuple[int, int]] = []
        self.callers: list[Caller] = []

    def make(self, dial_peer: tunnels.Dial | None = None) -> Tunnel:
        made = self.tunnels.make(lambda sent, received: self.counted.append((sent, received)), dial_peer)
        assert made is not None
        return made

    @property
    def totals(self) -> tuple[int, int]:
        return sum(sent for sent, _ in self.counted), sum(received for _, received in self.counted)

    async def call(self, side: Side, shown: bytes) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.tunnels.ports[side]))
        caller.writer.write(shown)
        self.callers.append(caller)
        return caller


class Caller:
    """A connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read_end(self) -> bytes:
        """Return what the gateway says before it hangs up."""
        said = b""
        with contextlib.suppress(ConnectionResetError):
            said = await self.reader.read()
        self.writer.close()
        return said


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    refusals = Refusals()
    taking = Tunnels(refusals)  # type: ignore[arg-type]
    async with (
        taking.taking(Side.WORKER, listen_at("127.0.0.1", 0)),
        taking.taking(Side.PEER, listen_at("127.0.0.1", 0)),
    ):
        one = Gateway(taking, refusals)
        try:
            yield one
        finally:
            for caller in one.callers:
                caller.writer.transport.abort()
                with contextlib.suppress(OSError):
                    await caller.writer.wait_closed()


def run(work: Callable[[Gateway], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with asyncio.timeout(LIMIT_S), gateway() as one:
            await work(one)

    asyncio.run(inside())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def join(one: Gateway, made: Tunnel) -> tuple[Caller, Caller]:
    worker = await one.call(Side.WORKER, proof_of(made.tokens[Side.WORKER]))
    peer = await one.call(Side.PEER, proof_of(made.tokens[Side.PEER]))
    return worker, peer


def test_bytes_pass_both_ways_and_are_counted() -> None:
    async def work(one: Gateway) -> None:
        worker, peer = await join(one, one.make())
        content = secrets.token_bytes(3_000_000)
        worker.writer.write(content)
        peer.writer.write(b"back")
        assert await peer.reader.readexactly(len(content)) == content
        assert await worker.reader.readexactly(4) == b"back"
        await until(lambda: (one.tunnels.settle(), one.totals == (len(content), 4))[1])
        assert one.refusals.seen == []

    run(work)


@pytest.mark.parametrize("side", list(Side))
def test_end_of_one_connection_ends_the_other_and_what_was_sent_arrives(side: Side) -> None:
    async def work(one: Gateway) -> None:
        made = one.make()
        callers = dict(zip(Side, await join(one, made), strict=True))
        ending = callers.pop(side)
        (other,) = callers.values()
        ending.writer.write(b"last")
        ending.writer.close()
        assert await other.read_end() == b"last"
        await made.broken.wait()
        assert one.totals in ((4, 0), (0, 4))

    run(work)


def test_end_of_the_session_ends_both_connections_and_wakes_who_is_blocked() -> None:
    async def work(one: Gateway) -> None:
        made = one.make()
        worker, peer = await join(one, made)
        worker.writer.write(bytes(50_000_000))  # more than the peer, who reads nothing, lets pass
        await until(lambda: made._threads)
        made.end()
        made.end()
        await made.broken.wait()
        assert len(await peer.read_end()) < 50_000_000

    run(work)


@pytest.mark.parametrize("shown", [bytes(32), b"GET / HTTP/1.1\r\nHost: gateway.bank\r\n\r\n", b"short"])
def test_stranger_gets_no_answer_and_is_accounted_for(shown: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "SHOW_S", 0.1)

    async def work(one: Gateway) -> None:
        one.make()
        caller = await one.call(Side.PEER, shown)
        assert await caller.read_end() == b""
        await until(lambda: one.refusals.seen)
        assert one.refusals.seen == [("a stranger", "tunnel.open", "PEER_IDENTITY", "127.0.0.1")]

    run(work)


def test_token_itself_is_no_proof_and_a_proof_serves_once_on_its_own_side() -> None:
    async def work(one: Gateway) -> None:
        made = one.make()
        proof = proof_of(made.tokens[Side.PEER])
        assert await (await one.call(Side.PEER, made.tokens[Side.PEER])).read_end() == b""
        assert await (await one.call(Side.WORKER, proof)).read_end() == b""
        first = await one.call(Side.PEER, proof)
        await until(lambda: Side.PEER not in made.tokens)
        assert await (await one.call(Side.PEER, proof)).read_end() == b""
        worker = await one.call(Side.WORKER, proof_of(made.tokens[Side.WORKER]))
        worker.writer.write(b"to the first")
        assert await first.reader.readexactly(12) == b"to the first"

    run(work)


def test_tokens_of_a_session_that_has_ended_open_nothing() -> None:
    async def work(one: Gateway) -> None:
        made = one.make()
        proof = proof_of(made.tokens[Side.PEER])
        made.end()
        assert await (await one.call(Side.PEER, proof)).read_end() == b""
        assert not one.tunnels._tunnels

    run(work)


def test_one_connection_does_not_wait_for_the_other_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "JOIN_S", 0.05)

    async def work(one: Gateway) -> None:
        made = one.make()
        peer = await one.call(Side.PEER, proof_of(made.tokens[Side.PEER]))
        assert await peer.read_end() == b""
        assert not made.broken.is_set()  # the session goes on over gRPC

    run(work)


def test_connections_that_show_nothing_are_bounded_by_address_and_do_not_keep_out_others_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnels, "MAX_SHOWING_OF_ADDRESS", 3)
    monkeypatch.setattr(tunnels, "SHOW_S", 0.3)

    async def work(one: Gateway) -> None:
        idle = [await one.call(Side.PEER, b"") for _ in range(3)]
        await until(lambda: one.tunnels._showing.total() == 3)
        made = one.make()
        assert await (await one.call(Side.PEER, proof_of(made.tokens[Side.PEER]))).read_end() == b""
        assert [await each.read_end() for each in idle] == [b""] * 3
        await until(lambda: not one.tunnels._showing)
        await join(one, made)
        await until(lambda: made._threads == 2)

    run(work)


def test_no_more_tunnels_than_there_are_descriptors_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "MAX_TUNNELS", 2)

    async def work(one: Gateway) -> None:
        made = [one.make(), one.make()]
        assert one.tunnels.make(lambda *_: None) is None
        made[0].end()
        assert one.tunnels.make(lambda *_: None) is not None

    run(work)


def test_without_a_port_for_peers_only_a_gateway_that_dials_has_tunnels() -> None:
    async def work() -> None:
        taking = Tunnels(Refusals())  # type: ignore[arg-type]
        async with taking.taking(Side.PEER, None), taking.taking(Side.WORKER, listen_at("127.0.0.1", 0)):
            assert taking.make(lambda *_: None) is None
            assert taking.make(lambda *_: None, lambda: dial("127.0.0.1", 1, b"token")) is not None

    asyncio.run(work())


def test_gateway_that_dials_joins_its_worker_with_the_peers_gateway() -> None:
    async def work(one: Gateway) -> None:
        async with gateway() as peers:
            theirs = peers.make()
            token, port = theirs.tokens[Side.PEER], peers.tunnels.ports[Side.PEER]
            ours = one.make(lambda: dial("127.0.0.1", port, token))
            assert list(ours.tokens) == [Side.WORKER]
            near = await one.call(Side.WORKER, proof_of(ours.tokens[Side.WORKER]))
            far = await peers.call(Side.WORKER, proof_of(theirs.tokens[Side.WORKER]))
            near.writer.write(b"through both")
            assert await far.reader.readexactly(12) == b"through both"

    run(work)


def test_peer_that_takes_no_tunnels_where_it_says_leaves_the_session_on_grpc() -> None:
    async def work(one: Gateway) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        made = one.make(lambda: dial("127.0.0.1", port, b"token"))
        worker = await one.call(Side.WORKER, proof_of(made.tokens[Side.WORKER]))
        assert await worker.read_end() == b""
        assert not made.broken.is_set()

    run(work)


def test_peer_that_does_not_answer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "DIAL_S", 0.05)

    async def work(one: Gateway) -> None:
        with socket.socket() as full:  # its queue of one is taken, so that nobody answers
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            with (
                socket.create_connection(("127.0.0.1", port)),
                pytest.raises(TimeoutError, match="does not answer within"),
            ):
                await dial("127.0.0.1", port, b"token")

    run(work)


def test_what_is_dialled_is_sent_nothing_that_the_peer_chose() -> None:
    async def work(one: Gateway) -> None:
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set_result(await reader.read(1000))
            writer.close()

        chosen = b"FLUSHALL\r\n".ljust(32)
        async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
            connection = await dial("127.0.0.1", server.sockets[0].getsockname()[1], chosen)
            assert await heard == proof_of(chosen)
            connection.close()
        assert chosen[:4] not in proof_of(chosen)

    run(work)
