"""Which conversation with a peer stays when there are two, and that the other one is told; streams are in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest

from fedtasks.config import Party, Peer
from fedtasks.errors import FedtasksError, PartyTwice, PeerUnreachable
from fedtasks.gateway import control_stream
from fedtasks.gateway.asker import ASKER
from fedtasks.gateway.bounds import Head
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.conversation import Conversation
from fedtasks.wire.v1 import peer_pb2
from tests.support.gateways import Member


@dataclass
class Stream:
    """Both ends of one call."""

    there: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    back: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def read_back(self) -> Any:
        """Read as the caller does."""
        found = await self.back.get()
        if isinstance(found, BaseException):
            raise found
        return found

    async def read(self) -> Any:
        """Read as the side that was called does."""
        return await self.there.get()

    async def write(self, raw: bytes) -> None:
        """Answer the caller."""
        await self.back.put(raw)


class Door:
    """Answers every request, unless it has hung; keeps who was refused."""

    def __init__(self) -> None:
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.refused: list[FedtasksError] = []
        self.askers: list[Any] = []

    async def answer(self, peer: str, head: Head) -> peer_pb2.Envelope:
        """Answer."""
        self.askers.append(ASKER.get())
        await self.hangs.wait()
        return peer_pb2.Envelope(preflight_report=peer_pb2.PreflightReport())

    async def refuse(self, caller: str, action: str, error: Exception, **facts: Any) -> FedtasksError:
        """Keep it."""
        assert isinstance(error, FedtasksError)
        self.refused.append(error)
        return error


class Gateway(PeerConnection):
    """One process of a party, as its peer's gateway meets it."""

    def __init__(self, party: Party, peer: Peer) -> None:
        numbers = itertools.count(1)
        super().__init__(party, peer, lambda: next(numbers), lambda: None)
        self.door = Door()
        self.failures: list[BaseException] = []

    async def call(self, other: Gateway) -> None:
        """Dial another gateway and talk until the conversation ends, whose end is kept."""
        stream = Stream()
        calling = asyncio.create_task(self._call(stream))
        try:
            await other.accept(cast("Any", stream), other.door)
        except FedtasksError as error:
            stream.back.put_nowait(error)
        finally:
            stream.back.put_nowait(grpc.aio.EOF)
            await calling

    async def _call(self, stream: Stream) -> None:
        async def write(raw: bytes) -> None:
            await stream.there.put(raw)

        def hang_up() -> None:  # what gRPC lets a caller read that has cancelled its own call
            stream.back.put_nowait(asyncio.CancelledError())
            stream.there.put_nowait(grpc.aio.EOF)

        conversation = Conversation(stream.read_back, write, peer_pb2.ControlRequest, self.door, True, hang_up)
        try:
            await self._converse(conversation)
        except FedtasksError as error:
            self.failures.append(error)
            self._note_failure(error)


@pytest.fixture
def make(members: tuple[Member, Member], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Gateway]:
    monkeypatch.setattr(control_stream, "ALIVE_S", 0.1)
    parties = {member.name: member.party for member in members}
    return lambda name: Gateway(parties[name], parties[name].peers[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def played(*calls: Coroutine[Any, Any, None], then: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Let calls go on while something is looked at; then they end."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await then()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_second_gateway_is_refused_while_the_first_one_answers(make: Callable[[str], Gateway]) -> None:
    async def play() -> None:
        bank, first, second = make("bank"), make("shop"), make("shop")

        async def look() -> None:
            await until(lambda: first.is_connected and bank.is_connected)
            await second.call(bank)
            assert [type(each) for each in second.failures] == [PartyTwice]
            assert not second.is_connected
            assert isinstance(second.failure, PartyTwice)
            await first.request(1.0, preflight=peer_pb2.Preflight())
            assert isinstance(bank.complaint, PartyTwice)
            assert bank.failure is None
            assert [each.code for each in bank.door.refused] == [PartyTwice.code]
            await second.call(bank)
            assert len(bank.door.refused) == 1  # it is accounted for once

        await played(first.call(bank), then=look)

    asyncio.run(play())


async def same_store() -> str:
    return "5e0c"


@pytest.mark.parametrize(("first_term", "second_term", "stays"), [(1, 2, "second"), (2, 1, "first"), (0, 1, "first")])
def test_of_two_gateways_on_one_store_that_of_the_later_term_stays(
    make: Callable[[str], Gateway], first_term: int, second_term: int, stays: str
) -> None:
    async def play() -> None:
        bank, first, second = make("bank"), make("shop"), make("shop")
        first.store_id = second.store_id = same_store
        first.term, second.term = first_term, second_term

        async def look() -> None:
            await until(lambda: first.is_connected and bank.is_connected)

            async def then() -> None:
                loser, winner = (first, second) if stays == "second" else (second, first)
                await until(lambda: bool(loser.failures))
                assert [type(each) for each in loser.failures] == [PartyTwice]
                assert not loser.is_connected
                await until(lambda: winner.is_connected)
                await winner.request(1.0, preflight=peer_pb2.Preflight())

            await played(second.call(bank), then=then)

        await played(first.call(bank), then=look)

    asyncio.run(play())


def test_later_term_on_another_store_replaces_nobody_who_answers(make: Callable[[str], Gateway]) -> None:
    async def play() -> None:
        bank, first, second = make("bank"), make("shop"), make("shop")
        first.store_id = same_store
        first.term, second.term = 1, 2

        async def look() -> None:
            await until(lambda: first.is_connected and bank.is_connected)
            await second.call(bank)
            assert [type(each) for each in second.failures] == [PartyTwice]
            assert first.is_connected

        await played(first.call(bank), then=look)

    asyncio.run(play())


def test_gateway_that_answers_no_more_is_replaced_and_told(make: Callable[[str], Gateway]) -> None:
    async def play() -> None:
        bank, first, second = make("bank"), make("shop"), make("shop")
        first.door.hangs.clear()

        async def look() -> None:
            await until(lambda: first.is_connected)

            async def then() -> None:
                await until(lambda: second.is_connected and bool(first.failures))
                assert [type(each) for each in first.failures] == [PartyTwice]
                assert not first.is_connected
                await second.request(1.0, preflight=peer_pb2.Preflight())

            await played(second.call(bank), then=then)

        await played(first.call(bank), then=look)

    asyncio.run(play())


def test_process_that_dials_anew_takes_its_own_place_at_once(make: Callable[[str], Gateway]) -> None:
    async def play() -> None:
        bank, shop = make("bank"), make("shop")
        bank.door.hangs.clear()

        async def look() -> None:
            await until(lambda: shop.is_connected)
            before = bank._live

            async def then() -> None:
                await until(lambda: bank._live is not None and bank._live is not before)
                assert before is not None
                assert isinstance(before.ending, PeerUnreachable)
                assert not bank.door.refused

            await played(shop.call(bank), then=then)

        await played(shop.call(bank), then=look)

    asyncio.run(play())


@pytest.mark.parametrize("first", ["bank", "shop"])
def test_of_two_that_dial_at_once_the_stream_of_the_lower_name_stays(
    make: Callable[[str], Gateway], first: str
) -> None:
    async def play() -> None:
        bank, shop = make("bank"), make("shop")

        async def look() -> None:
            await until(lambda: bank.is_connected and shop.is_connected)
            await until(lambda: bank.dialled and not shop.dialled and bool(shop.failures))
            assert [type(each) for each in shop.failures] == [PeerUnreachable]  # so it would dial again
            assert not bank.door.refused + shop.door.refused
            await bank.request(1.0, preflight=peer_pb2.Preflight())
            await shop.request(1.0, preflight=peer_pb2.Preflight())

        calls = [bank.call(shop), shop.call(bank)]
        await played(*(calls if first == "bank" else reversed(calls)), then=look)

    asyncio.run(play())


def test_request_knows_that_its_asker_has_gone_when_the_conversation_ends(
    make: Callable[[str], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_stream, "CLOCKS_SINCE", 99)  # else the gateways ask each other too

    async def play() -> None:
        bank, shop = make("bank"), make("shop")
        bank.door.hangs.clear()

        async def look() -> None:
            await until(lambda: shop.is_connected and bank.is_connected)
            asking = asyncio.create_task(shop.request(5.0, preflight=peer_pb2.Preflight()))
            await until(lambda: bool(bank.door.askers))
            (asker,) = bank.door.askers
            asker.require(0)
            assert bank._live is not None
            bank._live.end(PeerUnreachable("a test"))
            with pytest.raises(PeerUnreachable):
                await asking
            with pytest.raises(PeerUnreachable, match="waits no longer"):
                asker.require(0)

        await played(shop.call(bank), then=look)

    asyncio.run(play())
