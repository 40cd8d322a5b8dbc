"""The conversation of two gateways: one stream, with requests in both directions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from fedtasks.errors import FedtasksError, PeerUnreachable
from fedtasks.gateway.bounds import Head, check_shape, check_size, head_of, parse
from fedtasks.wire.v1 import peer_pb2

WRITE_S = 20.0
"""How long a peer may leave unread what it is sent; then the conversation ends."""

Read = Callable[[], Awaitable[Any]]
Write = Callable[[Any], Awaitable[None]]


class Door(Protocol):
    """What answers a peer's requests."""

    async def answer(self, peer: str, head: Head) -> peer_pb2.Envelope:
        """Answer a request, or say why not."""

    async def refuse(self, caller: str, action: str, error: Exception, **facts: Any) -> FedtasksError:
        """Account for a conversation that ends since the peer breaks its rules."""


@dataclass(eq=False)
class Conversation:
    """One control stream with a peer, from its greeting to its end.

    Parameters
    ----------
    read, write, wrap
        How messages are read and written, and what they are wrapped in.
    door
        Answers the peer's requests.
    dialled
        Whether this side has dialled.
    hang_up
        Ends a stream that was dialled; one that was accepted ends with its call.
    pending, ids
        This side's requests that await an answer, by their numbers, and the numbers to come.
    writing
        Held by whoever writes.
    protocol
        The version of the protocol that both sides use.
    instance
        Which process of the peer speaks; empty if its release does not say.
    store_id, term
        Which store the peer's process has greeted with, and as the how many of the party's gateways on it.
    heard
        How many messages have been read.
    ending
        Why this side has ended it, which is what the peer is told.
    is_over
        Whether it has ended, so that nobody waits for an answer in it.
    talking
        Reads what the peer says.
    """

    read: Read
    write: Write
    wrap: Callable[..., Any]
    door: Door
    dialled: bool
    hang_up: Callable[[], object]
    pending: dict[int, asyncio.Future[peer_pb2.Envelope]] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    protocol: int = 0
    instance: str = ""
    store_id: str = ""
    term: int = 0
    heard: int = 0
    ending: FedtasksError | None = None
    is_over: bool = False
    talking: asyncio.Task[None] | None = None

    def supersedes(self, other: Conversation) -> bool:
        """Whether the peer's store says that who speaks in the other one is no longer its party's active gateway."""
        return bool(self.store_id) and self.store_id == other.store_id and self.term > other.term > 0

    def end(self, reason: FedtasksError) -> None:
        """End it from this side."""
        if self.ending is None:
            self.ending = reason
            self.hang_up()
            if self.talking is not None:
                self.talking.cancel()

    async def put(self, envelope: peer_pb2.Envelope) -> None:
        """Write one envelope; writers take turns.

        Raises
        ------
        MessageTooLarge
            The other side would not take it; nothing was written.
        PeerUnreachable
            The peer reads nothing, so the conversation has been ended.
        """
        body = envelope.WhichOneof("body")
        check_size(str(body), getattr(envelope, str(body)).ByteSize())
        try:
            async with asyncio.timeout(WRITE_S), self.writing:
                await self.write(self.wrap(envelope=envelope).SerializeToString())
        except TimeoutError:
            silent = PeerUnreachable(f"it has read nothing for {WRITE_S:g} s")
            self.end(silent)
            raise silent from None

    async def get(self) -> Head | None:
        """Read the head of the next message; None at the end.

        Raises
        ------
        ProtocolViolated
            It is no message between gateways.
        """
        raw = await self.read()
        self.heard += 1
        return None if raw is grpc.aio.EOF else head_of(raw)

    def settle(self, head: Head) -> None:
        """Take the answer to one of this side's requests; others are passed over unparsed."""
        future = self.pending.get(head.reply_to)
        if future is None or future.done():
            return
        try:
            check_shape(head)
            future.set_result(parse(head))
        except FedtasksError as error:
            future.set_exception(error)
