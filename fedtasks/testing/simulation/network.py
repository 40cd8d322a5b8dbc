"""The wires between the gateways of simulated parties: slow, cut, silent in one direction, healed again."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from fedtasks.errors import FedtasksError, PeerUnreachable, from_code
from fedtasks.link.status import RUN, Metadata

SILENCE_S = 10.0
"""After so long without a sign of the other side gRPC ends a connection (`link.keepalive`)."""

FLIGHT_S = (0.001, 0.05)
"""How long a message is on its way."""

Accept = Callable[["Call"], object]
"""Lets a party's gateway answer a call, which it is given as a servicer sees it."""


@dataclass(frozen=True)
class Crossed:
    """Bytes of a session that have left a party's house."""

    at_s: float
    sender: str
    run_id: str
    size: int


@dataclass(eq=False)
class Wire:
    """One direction between two places.

    Parameters
    ----------
    flight_s
        Says how long a message is on its way.
    holds
        Whether nothing arrives.
    delay_s
        How much longer everything takes now.
    """

    flight_s: Callable[[], float]
    holds: bool = False
    delay_s: float = 0.0
    held: list[tuple[Direction, Any]] = field(default_factory=list)


class Direction:
    """One direction of one call: messages arrive in the order in which they were sent."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wire: Wire, note: Callable[[int], object] = lambda _: None
    ) -> None:
        self._loop, self._wire, self._note = loop, wire, note
        self._arrived: deque[Any] = deque()
        self._ready = asyncio.Event()
        self._last_s = 0.0

    def put(self, message: Any) -> None:
        """Send a message, or the end."""
        if isinstance(message, bytes):
            self._note(len(message))
        at_s = self._loop.time() + self._wire.flight_s() + self._wire.delay_s
        self._last_s = max(self._last_s + 1e-6, at_s)  # what was sent first comes first, and timers keep no order
        self._loop.call_at(self._last_s, self._arrive, message)

    def _arrive(self, message: Any) -> None:
        if self._wire.holds:
            self._wire.held.append((self, message))
        else:
            self.deliver(message)

    def deliver(self, message: Any) -> None:
        """Let a message be read."""
        self._arrived.append(message)
        self._ready.set()

    async def get(self) -> Any:
        """Return the next message."""
        while not self._arrived:
            self._ready.clear()
            await self._ready.wait()
        return self._arrived.popleft()


@dataclass(eq=False)
class _Failure:
    """The end of a call that was refused."""

    error: FedtasksError


class Call:
    """One end of a call between two parties: what a client holds, and what a servicer is given.

    Parameters
    ----------
    peer
        Whose call it is: what its certificate says.
    certificate
        That certificate, in PEM.
    metadata
        What the caller has said ahead.
    """

    def __init__(
        self, outward: Direction, inward: Direction, peer: str, certificate: bytes, metadata: Metadata
    ) -> None:
        self._outward, self._inward = outward, inward
        self._peer, self._certificate, self._metadata = peer, certificate, metadata
        self._on_cut: list[Callable[[], object]] = []
        self._is_cut = False

    async def read(self) -> Any:
        """Return the next frame or the end; raise what the other side has refused the call with."""
        message = await self._inward.get()
        if isinstance(message, _Failure):
            raise message.error
        return message

    async def write(self, frame: Any) -> None:
        """Send a frame."""
        if self._is_cut:
            raise ConnectionError("the connection is gone")
        self._outward.put(frame)

    def end(self, error: FedtasksError | None = None) -> None:
        """End the call in the proper way, or refuse it."""
        self._outward.put(grpc.aio.EOF if error is None else _Failure(from_code(error.code, error.public)))

    def cancel(self) -> None:
        """End the call from the caller's side."""
        self._outward.put(grpc.aio.EOF)

    def on_cut(self, work: Callable[[], object]) -> None:
        """Have something done when the connection is gone."""
        self._on_cut.append(work)

    def cut(self) -> None:
        """Notice that the connection is gone."""
        if not self._is_cut:
            self._is_cut = True
            self._inward.deliver(_Failure(PeerUnreachable("the connection was cut")))
            for work in self._on_cut:
                work()

    def peer(self) -> str:
        """Return where the caller is."""
        return f"simulated:{self._peer}"

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return what TLS has seen."""
        return {"x509_pem_cert": [self._certificate]}

    def invocation_metadata(self) -> Metadata:
        """Return what the caller has said ahead."""
        return self._metadata

    async def initial_metadata(self) -> Metadata:
        """Return what the servicer has said ahead: of tunnels, nothing."""
        return ()

    async def send_initial_metadata(self, _: Any) -> None:
        """Say something ahead."""


def call_within(
    loop: asyncio.AbstractEventLoop, party: str, flight_s: Callable[[], float], said: Metadata
) -> tuple[Call, Call]:
    """Return both ends of a call of a worker to its own gateway, which no fault of the network touches."""
    there, back = (Direction(loop, Wire(flight_s)) for _ in range(2))
    return Call(there, back, party, b"", said), Call(back, there, party, b"", said)


@dataclass(eq=False)
class _Connection:
    """All calls over one dialled connection."""

    dialler: str
    accepter: str
    ends: list[tuple[Call, Call]] = field(default_factory=list)


class Network:
    """The wires between parties.

    Parameters
    ----------
    loop
        The simulation's.
    chances
        Decides how long messages are on their way.
    parties
        Their names.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, chances: random.Random, parties: tuple[str, ...]) -> None:
        self.loop = loop
        self.crossed: list[Crossed] = []
        self.wires = {(one, other): Wire(self.flight_s) for one in parties for other in parties if one != other}
        self.is_cut = False
        self._chances = chances
        self._doors: dict[str, tuple[Accept, Accept]] = {}
        self._certificates: dict[str, bytes] = {}
        self._connections: list[_Connection] = []

    def flight_s(self) -> float:
        """Return how long a message is on its way."""
        return self._chances.uniform(*FLIGHT_S)

    # ------------------------------------------------------------------------------------------------------- parties
    def introduce(self, party: str, certificate: bytes) -> None:
        """Say by which certificate a party is known."""
        self._certificates[party] = certificate

    def listen(self, party: str, control: Accept, session: Accept) -> None:
        """Let a party's gateway be dialled."""
        self._doors[party] = control, session

    def leave(self, party: str) -> None:
        """Let a party's gateway be gone: its machine resets what was connected."""
        self._doors.pop(party, None)
        self._cut([each for each in self._connections if party in (each.dialler, each.accepter)])

    async def dial(self, dialler: str, accepter: str) -> _Connection:
        """Connect.

        Raises
        ------
        PeerUnreachable
            Nobody is there, or nothing crosses.
        """
        await asyncio.sleep(2 * self.flight_s())
        if self.is_cut or accepter not in self._doors:
            raise PeerUnreachable(f"{accepter} does not answer")
        if any(self.wires[pair].holds for pair in ((dialler, accepter), (accepter, dialler))):
            await asyncio.sleep(SILENCE_S)
            raise PeerUnreachable(f"{accepter} does not answer")
        connection = _Connection(dialler, accepter)
        self._connections.append(connection)
        return connection

    def hang_up(self, connection: _Connection) -> None:
        """End a connection from the dialling side."""
        self._cut([connection])

    def open(self, connection: _Connection, metadata: Metadata = ()) -> Call:
        """Open a call over a connection: the conversation of the gateways, or with metadata a session."""
        run_id = str(dict(metadata).get(RUN, ""))
        one, other = connection.dialler, connection.accepter
        there, back = self._direction(one, other, run_id), self._direction(other, one, run_id)
        certificate = self._certificates[one]
        client = Call(there, back, one, certificate, metadata)
        servicer = Call(back, there, one, certificate, metadata)
        connection.ends.append((client, servicer))
        self.loop.call_later(self.flight_s(), self._accept, connection, servicer, bool(metadata))
        return client

    def _direction(self, sender: str, receiver: str, run_id: str) -> Direction:
        def note(size: int) -> None:
            if run_id:
                self.crossed.append(Crossed(self.loop.time(), sender, run_id, size))

        return Direction(self.loop, self.wires[sender, receiver], note)

    def _accept(self, connection: _Connection, servicer: Call, is_session: bool) -> None:
        doors = self._doors.get(connection.accepter)
        if doors is None or connection not in self._connections:
            return
        doors[is_session](servicer)

    # -------------------------------------------------------------------------------------------------------- faults
    def cut(self) -> None:
        """Cut everything, so that either side is told, and let nothing be dialled until it is healed."""
        self.is_cut = True
        self._cut(list(self._connections))

    def hold(self, sender: str, receiver: str) -> None:
        """Let what `sender` says get stuck; both sides think that the connection stands until gRPC misses a sign."""
        self.wires[sender, receiver].holds = True
        standing = list(self._connections)
        self.loop.call_later(SILENCE_S, self._miss, sender, receiver, standing)

    def _miss(self, sender: str, receiver: str, standing: list[_Connection]) -> None:
        if self.wires[sender, receiver].holds:
            self._cut([each for each in standing if {sender, receiver} == {each.dialler, each.accepter}])

    def silence(self, one: str, other: str) -> None:
        """Hold both directions between two parties."""
        self.hold(one, other)
        self.hold(other, one)

    def slow(self, delay_s: float) -> None:
        """Let every message take so much longer."""
        for wire in self.wires.values():
            wire.delay_s = delay_s

    def heal(self, *pair: str) -> None:
        """Let everything pass again, or between two parties; what was held arrives if its connection still stands."""
        if not pair:
            self.is_cut = False
            self.slow(0.0)
        for wire in (wire for ends, wire in self.wires.items() if not pair or set(ends) == set(pair)):
            wire.holds = False
            held, wire.held = wire.held, []
            for direction, message in held:
                direction.deliver(message)

    def _cut(self, connections: list[_Connection]) -> None:
        for connection in connections:
            if connection in self._connections:
                self._connections.remove(connection)
            for ends in connection.ends:
                for end in ends:
                    end.cut()
