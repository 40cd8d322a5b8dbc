"""A gateway that stands by passes connections on, unread, and leaves nothing of itself behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fedtasks.gateway import forwarding as module
from fedtasks.gateway.forwarding import forwarding
from fedtasks.laptop.ports import free_ports

BIG = bytes(range(256)) * 20_000


async def answer_backwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read())[::-1])
    writer.close()


def with_active(play: Callable[[str, str], Awaitable[None]]) -> None:
    async def run() -> None:
        active = await asyncio.start_server(answer_backwards, "127.0.0.1", 0)
        host, port = active.sockets[0].getsockname()
        await play(f"127.0.0.1:{free_ports(1)[0]}", f"{host}:{port}")
        active.close()

    asyncio.run(run())


async def ask(address: str, question: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(question)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def is_hung_up_on(address: str) -> bool:
    try:
        return await ask(address, b"hello") == b""
    except ConnectionError:
        return True


def test_both_directions_pass_whole_and_each_ends_for_itself() -> None:
    async def play(here: str, active: str) -> None:
        async with forwarding(here, lambda: active):
            assert await ask(here, BIG) == BIG[::-1]
            questions = [str(number).encode() for number in range(10, 20)]
            answers = await asyncio.gather(*(ask(here, question) for question in questions))
            assert answers == [question[::-1] for question in questions]
        with pytest.raises(ConnectionRefusedError):
            await ask(here, b"too late")

    with_active(play)


@pytest.mark.parametrize("where", ["", "127.0.0.1:1"])
def test_caller_is_hung_up_on_while_no_active_gateway_is_known_or_answers(where: str) -> None:
    async def play(here: str, active: str) -> None:
        target = where
        async with forwarding(here, lambda: target):
            assert await is_hung_up_on(here)
            target = active
            assert await ask(here, b"hello") == b"olleh"

    with_active(play)


def test_more_connections_than_may_be_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)

    async def play(here: str, active: str) -> None:
        host, _, port = here.rpartition(":")
        taken = asyncio.Event()

        def target() -> str:
            taken.set()
            return active

        async with forwarding(here, target):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"first")
            await taken.wait()
            assert await is_hung_up_on(here)
            writer.write_eof()
            assert await reader.read() == b"tsrif"
            writer.close()

    with_active(play)


def test_address_where_the_active_gateway_itself_listens_is_left_to_it() -> None:
    async def play(_: str, active: str) -> None:
        async with forwarding(active, lambda: "127.0.0.1:1"):
            assert await ask(active, b"hello") == b"olleh"

    with_active(play)
