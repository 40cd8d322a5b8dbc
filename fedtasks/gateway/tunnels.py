"""Tunnels of sessions: pairs of connections whose bytes pass this gateway inside of the kernel.

A tunnel belongs to a session that was paired over mutual TLS and ends with it. Each of its two connections, the local
worker's and the one with the peer's gateway, proves in its first 32 bytes that it knows a token which was handed out
inside of that session and serves once. The rest is TLS between the two workers: it is not read here, and cannot be.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import hmac
import logging
import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from fedtasks.errors import PeerIdentity
from fedtasks.gateway.descriptors import MAX_TUNNELS
from fedtasks.gateway.fair_threads import CALLER
from fedtasks.gateway.intake import SLOW_S, STRANGER
from fedtasks.gateway.ledger import Ledger
from fedtasks.link.doorway import TUNNEL_BUFFER
from fedtasks.link.status import proof_of

log = logging.getLogger(__name__)

MAX_SHOWING, MAX_SHOWING_OF_ADDRESS = 128, 32
"""So many connections may be about to show a proof at once, and so many of one address; the next is hung up on."""

SHOW_S = 5.0
"""How long a connection may take to show its proof."""

JOIN_S = 5.0
"""How long one connection of a tunnel waits for the other."""

DIAL_S = 2.0
"""How long the peer's gateway may take to answer a dial."""

CLEAR_S = 2.0
"""How long the threads of a tunnel may take to notice that its connections were ended."""

_PROOF_BYTES = 32
_PIPE_BYTES = 256 << 10


class Side(enum.Enum):
    """Where a connection of a tunnel leads."""

    WORKER = "worker"
    PEER = "peer"


Dial = Callable[[], Awaitable[socket.socket]]
Count = Callable[[int, int], None]


class Tunnel:
    """The two connections of one session; used on the event loop.

    Parameters
    ----------
    count
        Told now and then how many bytes have gone to the peer and come from it since.
    dial
        Connects to the peer's gateway once the worker is there; None where the peer's gateway connects to this one.
    gone
        Called when nothing is left of it.
    """

    def __init__(self, count: Count, dial: Dial | None, gone: Callable[[Tunnel], None]) -> None:
        self.tokens = {side: secrets.token_bytes(32) for side in Side if side is Side.WORKER or dial is None}
        """What each connection must know that others open; a token that was shown is gone."""
        self.broken = asyncio.Event()
        """Set when it has passed bytes and does so no longer."""
        self._cleared = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._count, self._dial, self._gone = count, dial, gone
        self._ends: dict[Side, socket.socket] = {}
        self._crossed, self._counted = dict.fromkeys(Side, 0), dict.fromkeys(Side, 0)
        self._threads = 0
        self._is_over = False
        self._late: asyncio.TimerHandle | None = None

    def wants(self, side: Side, proof: bytes) -> bool:
        """Whether a connection with this proof is awaited, as far as it takes the same time for every proof."""
        token = self.tokens.get(side)
        return token is not None and hmac.compare_digest(proof_of(token), proof)

    def spend(self, side: Side) -> None:
        """Let no second connection of this side in."""
        self.tokens.pop(side, None)

    async def attach(self, side: Side, connection: socket.socket) -> None:
        """Take one of the two connections; with both, bytes begin to pass."""
        if self._is_over or side in self._ends:
            connection.close()
            return
        self._ends[side] = connection
        if len(self._ends) == len(Side):
            if self._late is not None:
                self._late.cancel()
            self._join()
            return
        self._late = self._loop.call_later(JOIN_S, self.end)
        if self._dial is not None:
            try:
                peer = await self._dial()
            except OSError as error:
                log.warning("no tunnel to the peer's gateway, so its session stays on gRPC: %s", error)
                self.end()
            else:
                await self.attach(Side.PEER, peer)

    def end(self) -> None:
        """Let no byte pass any more; harmless when repeated."""
        if self._is_over:
            return
        self._is_over = True
        self.tokens.clear()
        if self._late is not None:
            self._late.cancel()
        self._hang_up()
        if not self._threads:
            self._clear()

    async def wait_cleared(self) -> None:
        """Wait, after `end`, until its threads have ended and all is counted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEAR_S):
                await self._cleared.wait()

    def settle(self) -> None:
        """Count what has crossed since the last time."""
        now = dict(self._crossed)
        news = {side: now[side] - self._counted[side] for side in Side}
        self._counted = now
        self._count(news[Side.WORKER], news[Side.PEER])

    def _join(self) -> None:
        for connection in self._ends.values():
            _prepare(connection)
        for side, other in ((Side.WORKER, Side.PEER), (Side.PEER, Side.WORKER)):
            arguments = (side, self._ends[side], self._ends[other])
            thread = threading.Thread(target=self._carry, args=arguments, name=f"tunnel-{side.value}", daemon=True)
            self._threads += 1
            try:
                thread.start()
            except RuntimeError as error:  # the system allows no more
                log.warning("a tunnel cannot begin: %s", error)
                self._hang_up()
                self._finish()

    def _carry(self, side: Side, source: socket.socket, sink: socket.socket) -> None:
        """Pass on what comes from one side until either connection ends; in a thread of its own."""
        try:
            with _pipe() as (outlet, inlet):
                while n_bytes := os.splice(source.fileno(), inlet, _PIPE_BYTES):
                    left = n_bytes
                    while left:
                        left -= os.splice(outlet, sink.fileno(), left)
                    self._crossed[side] += n_bytes  # by this thread alone
        except OSError as error:
            log.debug("a tunnel broke: %s", error)
        finally:
            self._hang_up()
            with contextlib.suppress(RuntimeError):  # the gateway has ended, and with it the loop
                self._loop.call_soon_threadsafe(self._finish)

    def _hang_up(self) -> None:
        for connection in list(self._ends.values()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _finish(self) -> None:
        self._threads -= 1
        if self._threads:
            return
        self._is_over = True
        self._clear()

    def _clear(self) -> None:
        for connection in self._ends.values():
            connection.close()
        self.settle()
        if len(self._ends) == len(Side):
            self.broken.set()
        self._ends.clear()
        self._cleared.set()
        self._gone(self)


class Tunnels:
    """The tunnels of this gateway.

    Parameters
    ----------
    ledger
        Accounts for connections of strangers.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tunnels: set[Tunnel] = set()
        self._showing: Counter[str] = Counter()
        self.ports: dict[Side, int] = {}
        """Where connections arrive, by whom they come from; 0 for a socket."""

    def make(self, count: Count, dial: Dial | None = None) -> Tunnel | None:
        """Make the tunnel of a session; None where there cannot be one.

        Parameters
        ----------
        count, dial
            As in `Tunnel`.
        """
        awaited = [Side.WORKER] if dial else list(Side)
        if len(self._tunnels) >= MAX_TUNNELS or any(side not in self.ports for side in awaited):
            return None
        tunnel = Tunnel(count, dial, self._tunnels.discard)
        self._tunnels.add(tunnel)
        return tunnel

    @property
    def n_open(self) -> int:
        """How many there are."""
        return len(self._tunnels)

    def settle(self) -> None:
        """Count what has crossed in all of them."""
        for tunnel in self._tunnels:
            tunnel.settle()

    @contextlib.asynccontextmanager
    async def taking(self, side: Side, listener: socket.socket | None) -> AsyncIterator[None]:
        """Take connections of one side while the context lasts; the listener belongs to it."""
        if listener is None:
            yield
            return
        listener.setblocking(False)
        self.ports[side] = 0 if listener.family is socket.AF_UNIX else listener.getsockname()[1]
        accepting = asyncio.create_task(self._accept(side, listener))
        try:
            yield
        finally:
            del self.ports[side]
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            listener.close()
            ending = list(self._tunnels)
            for tunnel in ending:
                tunnel.end()
            for tunnel in ending:
                await tunnel.wait_cleared()

    async def _accept(self, side: Side, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("a connection for a tunnel could not be taken: %s", error)
                    await asyncio.sleep(0.2)
                    continue
                host = str(address[0]) if side is Side.PEER else side.value
                if self._showing.total() >= MAX_SHOWING or self._showing[host] >= MAX_SHOWING_OF_ADDRESS:
                    connection.close()
                    continue
                self._showing[host] += 1
                tasks.create_task(self._admit(side, connection, host))

    async def _admit(self, side: Side, connection: socket.socket, host: str) -> None:
        """Attach a connection that shows a proof, and hang up on others without a word."""
        try:
            await self._examine(side, connection, host)
        except Exception:  # one connection must not keep others out
            log.exception("a connection for a tunnel failed")
            connection.close()

    async def _examine(self, side: Side, connection: socket.socket, host: str) -> None:
        tunnel = None
        try:
            proof = await read_proof(connection)
            # All are asked, whichever it is for.
            wanting = [each for each in self._tunnels if each.wants(side, proof)]
            if wanting:
                tunnel = wanting[0]
                tunnel.spend(side)
            else:
                connection.close()
                await self._note_stranger(side, host)
        finally:
            self._showing[host] -= 1
            if not self._showing[host]:
                del self._showing[host]
            if tunnel is None:
                connection.close()
        if tunnel is not None:
            await tunnel.attach(side, connection)

    async def _note_stranger(self, side: Side, host: str) -> None:
        error = PeerIdentity("a connection for a tunnel did not show what an open session has handed out")
        if side is Side.WORKER:
            log.warning("%s, at the worker side", error)
            return
        CALLER.set(STRANGER)
        if not await asyncio.to_thread(
            self._ledger.refuse, STRANGER, "tunnel.open", error, peer=STRANGER, address=host
        ):
            await asyncio.sleep(SLOW_S)


async def dial(host: str, port: int, token: bytes) -> socket.socket:
    """Connect to a peer's gateway for a tunnel, and show the proof; raise `OSError` when it does not answer."""
    loop = asyncio.get_running_loop()
    connection = None
    try:
        async with asyncio.timeout(DIAL_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            connection = socket.socket(family, kind, protocol)
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, proof_of(token))
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, TimeoutError):
            raise TimeoutError(f"{host}:{port} does not answer within {DIAL_S:g} s") from None
        raise
    return connection


def listen_at(host: str, port: int) -> socket.socket:
    """Listen on an address; raise `OSError` when it cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    everywhere = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=64, dualstack_ipv6=everywhere)


def _prepare(connection: socket.socket) -> None:
    """Let a thread wait for it, without delay of small frames."""
    connection.setblocking(True)
    if connection.family is socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TUNNEL_BUFFER)
    if connection.family is not socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def read_proof(connection: socket.socket) -> bytes:
    """Read the first bytes and not one more; what comes too late or ends before counts as nothing."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    proof = b""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(SHOW_S):
            while len(proof) < _PROOF_BYTES:
                part = await loop.sock_recv(connection, _PROOF_BYTES - len(proof))
                if not part:
                    break
                proof += part
    return proof


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    outlet, inlet = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a system that allows no more: it works with less
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        yield outlet, inlet
    finally:
        os.close(outlet)
        os.close(inlet)
