"""Of several gateways on one store, one is active; the others stand by, pass on what reaches them, and take its place.

Whatever the active one does is told by the store alone, so taking its place is no more than what one gateway does when
it is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from fedtasks.clock import utc
from fedtasks.config import Gateway, Party, split_address
from fedtasks.errors import StoreUnavailable
from fedtasks.gateway.forwarding import forwarding
from fedtasks.store import SILENT_S, Store, TermRow, seat_of

log = logging.getLogger(__name__)

TRY_S = 0.5
"""How often a gateway that stands by tries to become the active one."""

HOLD_S = 2.0
"""How often the active one says that it is there."""

ALONE_S = 60.0
"""After so long without the store the active one takes it that another which stood by has become active."""

T = TypeVar("T")

_EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104


class Seating:
    """Whether this gateway is its party's active one.

    Parameters
    ----------
    party
        Whose gateway; its store says which one is active.

    Attributes
    ----------
    is_active, was_replaced
        Whether it is; whether it was, and another one is or may be.
    """

    def __init__(self, party: Party) -> None:
        self._party = party
        self._seat = seat_of(party.store.url, party.store.password_file)
        # Of its own: however much there is to do, the seat must not be lost for it.
        self._thread = ThreadPoolExecutor(1, "seat")
        self._term = 0
        self.is_active = self.was_replaced = False
        self._active: TermRow | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether who connects to this gateway reaches the active one: it is that, or knows it and passes on."""
        return self.is_active or self._active is not None

    async def wait(self) -> None:
        """Return when this gateway may be the active one; until then, pass on what reaches it.

        Raises
        ------
        StoreInUse
            Another gateway serves a store that knows no standing by.
        StoreUnavailable
            The store cannot be reached when the gateway is started.
        """
        if not self._term and await self._do(self._seat.take):
            return
        async with contextlib.AsyncExitStack() as stack:
            for name, address in _served(self._party.gateway).items():
                await stack.enter_async_context(forwarding(address, partial(self._active_at, name)))
            await self._stand_by()
        self._active = None

    async def _stand_by(self) -> None:
        is_away = False
        while True:
            try:
                self._know(await self._do(self._seat.look))
                if is_away:
                    log.warning("the store is back")
                    is_away = False
                    await asyncio.sleep(2 * HOLD_S)  # whoever was the active one comes first
                if await self._do(self._seat.take):
                    return
            except StoreUnavailable as error:
                if not is_away:
                    log.warning("the store is away, so the active gateway is not known: %s", error)
                is_away, self._active = True, None
            await asyncio.sleep(TRY_S)

    def _know(self, row: TermRow | None) -> None:
        """Pass on to the gateway of a term, unless that was this one's."""
        if row is None or row.term == self._term:
            self._active = None
        elif row != self._active:
            self._active = row
            since = utc(row.began_ms, "%Y-%m-%d %H:%M:%S")
            log.info("stands by: the active gateway of %s is %s, since %s UTC", self._party.name, row.host, since)

    def _active_at(self, name: str) -> str:
        return "" if self._active is None else self._active.addresses.get(name, "")

    async def begin(self, store: Store) -> int:
        """Begin this gateway's term in a store that it has waited for; returns its number.

        From now on nobody writes there who was the active one before.
        """
        gateway = self._party.gateway
        addresses = {name: _seen_by_others(where, self._seat.address) for name, where in _served(gateway).items()}
        host = f"{socket.gethostname()}, process {os.getpid()}"
        self._term = await asyncio.to_thread(store.terms.begin, host, addresses)
        store.fence(self._term)
        self.is_active, self.was_replaced = True, False
        log.info("is the active gateway of %s: the %d. on this store", self._party.name, self._term)
        return self._term

    async def hold(self) -> None:
        """Keep the seat; returns when another gateway has it, or stands by and may have it by now."""
        reached = time.monotonic()
        while True:
            await asyncio.sleep(HOLD_S)
            try:
                async with asyncio.timeout(SILENT_S):
                    has_seat = await self._do(partial(self._seat.hold, self._term if self.is_active else 0))
                reached = time.monotonic()
            except (StoreUnavailable, TimeoutError):
                is_late = time.monotonic() - reached > ALONE_S
                has_seat = not (is_late and self._seat.n_standing_by)
            if not has_seat:
                self.is_active, self.was_replaced = False, True
                return

    async def close(self) -> None:
        """Leave the place to another gateway."""
        self.is_active = False
        await self._do(self._seat.close)
        self._thread.shutdown(wait=False)

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _served(gateway: Gateway) -> dict[str, str]:
    """Return what a gateway listens at with a port of its own choice: field of party.yaml → address."""
    workers = None if gateway.socket is not None else gateway.workers
    named = {"listen": gateway.listen, "tunnels": gateway.tunnels, "workers": workers}
    named["worker_tunnels"] = gateway.worker_tunnels
    return {name: where for name, where in named.items() if where is not None and split_address(where, name)[1]}


def _seen_by_others(address: str, machine: str) -> str:
    """Return where other machines reach what listens at an address; `machine` is this one's."""
    host, port = split_address(address, "listen")
    host = machine if host in _EVERY_INTERFACE else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
