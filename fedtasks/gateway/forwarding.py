"""What a gateway that stands by does with connections: it passes them on, unread, to the active gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from fedtasks.config import split_address

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1_000
"""So many connections of one listener are passed on at once; the next is hung up on."""

DIAL_S = 5.0
"""How long the active gateway may take to accept one."""

_CHUNK = 256 << 10

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def forwarding(address: str, target: Callable[[], str]) -> AsyncIterator[None]:
    """Pass on what connects to an address while the context lasts; afterwards nothing of it is left.

    Parameters
    ----------
    address
        ``host:port``. Where something else listens there, it is left to that: the active gateway is on this machine.
    target
        Says where the active gateway takes such connections; empty while that is not known.

    Notes
    -----
    Reveals: nothing. What passes is TLS between others, who know each other by their certificates.
    """
    open_now: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as one
        open_now.add(task)
        try:
            if len(open_now) <= MAX_CONNECTIONS and (where := target()):
                await _pass_on((reader, writer), where)
        except (OSError, TimeoutError):
            pass  # whoever called finds the connection closed, and calls again
        finally:
            open_now.discard(task)
            writer.close()

    host, port = split_address(address, "listen")
    try:
        server = await asyncio.start_server(accept, host, port)
    except OSError as error:
        log.info("nothing is passed on from %s: %s", address, error.strerror)
        yield
        return
    try:
        yield
    finally:
        server.close()
        for task in tuple(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _pass_on(caller: Ends, where: str) -> None:
    async with asyncio.timeout(DIAL_S):
        active = await asyncio.open_connection(*split_address(where, "listen"))
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_copy(caller[0], active[1]))
            ways.create_task(_copy(active[0], caller[1]))
    except* OSError:
        pass
    finally:
        active[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
