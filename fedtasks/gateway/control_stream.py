"""Keeps up the conversation of two gateways, which either side may have dialled: who they are, and which one stays."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from fedtasks import __version__
from fedtasks.clock import Clock, utc
from fedtasks.config import Party, Peer
from fedtasks.errors import (
    FedtasksError,
    MessageTooLarge,
    PartyTwice,
    PeerUnreachable,
    ProtocolViolated,
    VersionDiffers,
    from_code,
)
from fedtasks.gateway.asker import ASKER, Asker
from fedtasks.gateway.bounds import MAX_BYTES, Head, check_shape, parse
from fedtasks.gateway.conversation import Conversation, Door
from fedtasks.gateway.skew import Skew
from fedtasks.link.keepalive import ALWAYS
from fedtasks.link.status import Metadata, from_rpc_error
from fedtasks.link.versions import Speaks, highest_common
from fedtasks.text import plain_text
from fedtasks.wire.v1 import failure_pb2, peer_pb2

log = logging.getLogger(__name__)

PROTOCOL_MIN, PROTOCOL_MAX = 3, 5
"""The versions of the gateways' protocol that this release speaks; two gateways use the highest that both do."""

CLOCKS_SINCE = 4
"""The version since which gateways ask each other for their clocks."""

REFUSED_S = 5.0
"""How long a conversation that cannot be stands still, so that the peer reads the greeting and says the same."""

COMPARE_S = 5.0
"""How long a request for a run waits at the beginning of a conversation for what the peer remembers."""

CONNECT_S = 10.0
"""How long a request waits for the conversation to begin."""

MESSAGES = (
    ("grpc.max_receive_message_length", MAX_BYTES + (64 << 10)),
    ("grpc.max_send_message_length", MAX_BYTES + (64 << 10)),
)
"""What one message between gateways, or one frame of a session, may take of memory; `bounds` says how much is read."""

_AGAIN = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 4_000))
"""A dial that somebody takes and does not answer is tried again in time: another gateway of the peer may take it."""

CONTROL = "/fedtasks.v1.PeerGateway/Control"

MAX_IN_FLIGHT = 16
"""So many requests of one peer are answered at once; the next one waits unread."""

ALIVE_S = 3.0
"""How long a gateway may take to say that it is still there, when another one of its party calls."""

TWICE_MS = 30_000
"""How long after its last call a second gateway of a party is spoken of."""


async def _no_store() -> str:
    return ""


class PeerConnection:
    """Keeps up one conversation with one peer, dialling if this side knows an address.

    Parameters
    ----------
    party, peer
        Who talks to whom.
    clock
        The gateway's clock.
    connected
        Called whenever a conversation begins.

    Attributes
    ----------
    store_id, term
        Which store this party has, and as the how many of its gateways this one is active there, for the greeting; by
        default none, which compares nothing.
    peer_store_id
        Which store the peer has greeted with; empty if its release does not compare what both remember.
    compared
        Set once the peer has told all that it remembers.
    """

    def __init__(self, party: Party, peer: Peer, clock: Clock, connected: Callable[[], None]) -> None:
        self.peer = peer
        self.version = ""
        self._skew = Skew(peer.name, party.max_clock_skew_s, clock)
        self.since_ms = clock()
        self.failure: FedtasksError | None = PeerUnreachable(f"{peer.name} has not been heard of yet")
        self._instance = secrets.token_hex(16)
        self._twice: FedtasksError | None = None
        self._twice_ms = 0
        self.store_id: Callable[[], Awaitable[str]] = _no_store
        self.term = 0
        self.peer_store_id = ""
        self.compared = asyncio.Event()
        self._party = party
        self._clock = clock
        self._connected = connected
        self._live: Conversation | None = None
        self._changed = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        # Of the peer, not of a conversation: hanging up and dialling again gains nothing.
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------ outside
    @property
    def is_connected(self) -> bool:
        """Whether a conversation stands."""
        return self._live is not None

    @property
    def conversation(self) -> object | None:
        """What stands for the conversation that stands: another one is another object."""
        return self._live

    async def wait_compared(self) -> None:
        """Wait a little for what the peer remembers: what this store may have lost must not be granted again."""
        if self.peer_store_id and not self.compared.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_S):
                    await self.compared.wait()
            self.compared.set()

    @property
    def protocol(self) -> int:
        """The version of the protocol that both gateways use; 0 while no conversation stands."""
        return self._live.protocol if self._live is not None else 0

    @property
    def n_answering(self) -> int:
        """How many of the peer's requests are being answered."""
        return len(self._tasks)

    @property
    def clock_skew_s(self) -> float:
        """How far the peer's clock is ahead of this one, as last measured."""
        return self._skew.seconds

    @property
    def dialled(self) -> bool:
        """Whether the live conversation was dialled from here: then sessions are opened from here too."""
        return self._live is not None and self._live.dialled

    @property
    def complaint(self) -> FedtasksError | None:
        """Why no conversation stands; while one does, that a second gateway of the peer calls beside it."""
        is_twice = self._live is not None and self._clock() - self._twice_ms < TWICE_MS
        return self._twice if is_twice else self.failure

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for a conversation.

        Raises
        ------
        PeerUnreachable
            None begins in time.
        VersionDiffers
            None begins in time, because the peer's release is another one.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._live is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._absence() from None

    async def wait_answered(self, timeout_s: float) -> None:
        """Wait until all that the peer has asked so far is answered, or the time is over."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def request(self, timeout_s: float = 30.0, **body: Any) -> peer_pb2.Envelope:
        """Ask the peer's gateway and return its answer.

        Raises
        ------
        PeerUnreachable, VersionDiffers
            No conversation, or no answer in time.
        FedtasksError
            The peer answered with this failure.
        """
        await self.wait_connected(min(timeout_s, CONNECT_S))
        conversation = self._live
        if conversation is None:
            raise self._absence()
        return await self._ask(conversation, timeout_s, **body)

    async def _ask(self, conversation: Conversation, timeout_s: float, **body: Any) -> peer_pb2.Envelope:
        """Ask in one conversation; errors are those of `request`."""
        number = next(conversation.ids)
        future: asyncio.Future[peer_pb2.Envelope] = asyncio.get_running_loop().create_future()
        conversation.pending[number] = future
        try:
            async with asyncio.timeout(timeout_s):
                await conversation.put(peer_pb2.Envelope(id=number, **body))
                answer = await future
        except ConnectionError as error:
            raise PeerUnreachable(f"the connection with {self.peer.name} was lost before it had answered") from error
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            raise PeerUnreachable(f"{self.peer.name} did not answer within {timeout_s:.0f} s") from error
        finally:
            conversation.pending.pop(number, None)
        if answer.WhichOneof("body") == "failure":
            text = plain_text(answer.failure.text)
            refusal = from_code(plain_text(answer.failure.code, 64), text, where=self.peer.name)
            if answer.failure.retry_at_ms > 0:
                refusal.fields["room_at"] = utc(answer.failure.retry_at_ms, "%Y-%m-%dT%H:%M:%S+00:00")
            raise refusal
        return answer

    def open_session(self, metadata: Metadata) -> Any:
        """Open the stream of a session on the dialled channel; raise `PeerUnreachable` when it is gone."""
        return self._open("Session", metadata)

    def open_probe(self, metadata: Metadata) -> Any:
        """Open a stream over which the way to the peer is measured; raises as `open_session`."""
        return self._open("Probe", metadata)

    def _open(self, name: str, metadata: Metadata) -> Any:
        if self._channel is None:
            raise self._absence()
        return self._channel.stream_stream(f"/fedtasks.v1.PeerGateway/{name}")(metadata=metadata)

    # -------------------------------------------------------------------------------------------------------- dialling
    async def keep_dialling(self, credentials: grpc.ChannelCredentials, door: Door) -> None:
        """Dial the peer whenever no conversation stands; runs until cancelled.

        Parameters
        ----------
        credentials
            Show this party's certificate, and trust the peer's authority alone.
        door
            Answers the peer's requests.
        """
        if self.peer.address is None:
            return
        delay = 0.2
        while True:
            if self._live is not None:
                self._changed.clear()
                await self._changed.wait()
                delay = 0.2
                continue
            try:
                await self._dial(self.peer.address, credentials, door)
            except FedtasksError as error:
                self._note_failure(error)
            except Exception as error:  # gRPC's internals raise errors of their own when a stream dies
                self._note_failure(PeerUnreachable(f"the connection ended with {type(error).__name__}"))
            await asyncio.sleep(delay + random.uniform(0, delay))  # noqa: S311
            delay = min(delay * 1.6, 2.0)

    async def _dial(self, address: str, credentials: grpc.ChannelCredentials, door: Door) -> None:
        options = (*ALWAYS, *MESSAGES, *_AGAIN, ("grpc.ssl_target_name_override", f"{self.peer.name}.fedtasks"))
        channel = grpc.aio.secure_channel(address, credentials, options=options)
        try:
            async with asyncio.timeout(10):
                await channel.channel_ready()
            call = channel.stream_stream(CONTROL)()
            conversation = Conversation(call.read, call.write, peer_pb2.ControlRequest, door, True, call.cancel)
            self._channel = channel
            await self._converse(conversation)
        except TimeoutError:
            raise PeerUnreachable(
                f"{self.peer.name} at {address} does not answer, or its certificate is refused"
            ) from None
        except grpc.RpcError as error:
            raise from_rpc_error(error, unreachable=PeerUnreachable) from error
        finally:
            self._channel = None
            await channel.close()

    # ------------------------------------------------------------------------------------------------------- accepting
    async def accept(self, context: grpc.aio.ServicerContext, door: Door) -> None:
        """Take up a conversation that the peer dialled; returns when it ends.

        Parameters
        ----------
        context
            The peer's call.
        door
            Answers the peer's requests.

        Raises
        ------
        VersionDiffers
            The peer's release speaks another protocol.
        PartyTwice
            Another gateway of the peer is connected.
        PeerUnreachable
            The peer does not greet, or another conversation with it stays.
        """
        conversation = Conversation(
            context.read, context.write, peer_pb2.ControlResponse, door, False, hang_up=lambda: None
        )
        try:
            await self._converse(conversation)
        except VersionDiffers as error:
            if self._note_failure(error):
                await door.refuse(self.peer.name, "peer.connect", error)
            raise
        except PartyTwice as error:
            await self._note_twice(conversation, error)
            raise

    # ------------------------------------------------------------------------------------------------------ conversing
    async def _converse(self, conversation: Conversation) -> None:
        """Greet and talk until the stream ends; raises why this side has ended it, which is what the peer is told."""
        # In a task of its own: if the call itself were cancelled, it would end without a word to the peer, and whoever
        # dials would dial no more.
        conversation.talking = asyncio.create_task(self._greet_and_talk(conversation))
        task = asyncio.current_task()
        try:
            await conversation.talking
        except asyncio.CancelledError:
            if conversation.ending is None or (task is not None and task.cancelling()):
                raise
        finally:
            conversation.is_over = True
        if conversation.ending is not None:
            raise conversation.ending

    async def _greet_and_talk(self, conversation: Conversation) -> None:
        """Do so; a peer that breaks the rules of both is accounted for."""
        try:
            try:
                await self._greet(conversation)
            except VersionDiffers as error:
                if conversation.dialled:
                    self._note_failure(error)
                    await self._wait_refused(conversation)
                raise
            await self._talk(conversation)
        except (ProtocolViolated, MessageTooLarge) as error:
            raise await conversation.door.refuse(self.peer.name, "peer.connect", error) from error

    async def _wait_refused(self, conversation: Conversation) -> None:
        """Let the peer end the stream: what it has not read when this side hangs up, it may never read."""
        with contextlib.suppress(TimeoutError, grpc.RpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(REFUSED_S):
                while await conversation.read() is not grpc.aio.EOF:
                    pass

    async def _make_way(self, conversation: Conversation) -> None:
        """Let one conversation with the peer stay: a new one, or the one that stands.

        Where both gateways have dialled at once, the stream stays that was dialled by the party whose name sorts first.
        A process that dials anew has given up its old stream. Another process stays if it has become the active gateway
        on the same store later; else it has to wait until the one that is connected has gone, which is asked whether it
        is still there.

        Raises
        ------
        PartyTwice
            The other process is still there.
        PeerUnreachable
            Of two streams of the same process, this one is the one too many.
        """
        peer = self.peer.name
        while (live := self._live) is not None and live.ending is None:
            reason: FedtasksError = PeerUnreachable(f"{peer} goes on in another conversation")
            if conversation.instance != live.instance and conversation.instance and live.instance:
                if live.supersedes(conversation) or (not conversation.supersedes(live) and await self._is_there(live)):
                    raise PartyTwice(f"another gateway of {peer} is connected", party=peer)
                reason = PartyTwice(f"another gateway of {peer} has taken over", party=peer)
            elif live.dialled != conversation.dialled and live.dialled == (self._party.name < peer):
                raise PeerUnreachable(f"{self._party.name if live.dialled else peer} has dialled already")
            if live is self._live:  # else it has ended meanwhile, or another one stands in its place
                live.end(reason)

    async def _is_there(self, conversation: Conversation) -> bool:
        """Whether the process that speaks in a conversation still does."""
        heard = conversation.heard
        try:
            await self._ask(conversation, ALIVE_S, preflight=peer_pb2.Preflight())
        except FedtasksError:
            # It may be too busy to answer, and speak all the same.
            return conversation.heard > heard and not conversation.is_over
        return True

    async def _note_twice(self, conversation: Conversation, error: PartyTwice) -> None:
        """Remember that a second gateway of the peer was sent away, and account for it where that is news."""
        is_news = self._twice is None or self._clock() - self._twice_ms >= TWICE_MS
        self._twice, self._twice_ms = error, self._clock()
        if is_news:
            await conversation.door.refuse(self.peer.name, "peer.connect", error)

    async def _talk(self, conversation: Conversation) -> None:
        await self._make_way(conversation)  # another one may have begun during the greetings
        self.compared.clear()
        self._live = conversation
        self.failure = None
        self.since_ms = self._clock()
        self._changed.set()
        log.info("connected with %s (%s)", self.peer.name, "dialled" if conversation.dialled else "accepted")
        self._connected()
        measuring = None
        if conversation.protocol >= CLOCKS_SINCE:
            measuring = asyncio.create_task(self._skew.measure(self._ask_clock))
        try:
            is_open = True
            while is_open:
                await self._slots.acquire()
                is_open = await self._take_next(conversation)
        finally:
            if measuring is not None:
                measuring.cancel()
            if self._live is conversation:
                self._live = None
                self.since_ms = self._clock()
                self.failure = PeerUnreachable(f"the connection with {self.peer.name} was lost")
            for future in conversation.pending.values():
                if not future.done():
                    future.set_exception(ConnectionError("conversation ended"))
                    future.exception()  # who asked may be gone
            self._changed.set()

    async def _take_next(self, conversation: Conversation) -> bool:
        """Read one message in the slot that is held for it; False at the end."""
        is_kept = False
        try:
            head = await conversation.get()
            if head is None:
                return False
            if head.reply_to:
                conversation.settle(head)
            else:
                task = asyncio.create_task(self._reply(conversation, head))
                self._tasks.add(task)
                task.add_done_callback(self._release)
                is_kept = True
            return True
        finally:
            if not is_kept:
                self._slots.release()

    def _release(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _greet(self, conversation: Conversation) -> None:
        """Exchange greetings: who has dialled greets first."""
        if conversation.dialled:
            await conversation.put(await self._greeting())
        theirs = await self._read_greeting(conversation)
        conversation.instance, self.version = plain_text(theirs.instance, 64), plain_text(theirs.version, 32)
        self.peer_store_id = conversation.store_id = plain_text(theirs.store_id, 64)
        conversation.term = theirs.term
        ours = Speaks(self._party.name, __version__, PROTOCOL_MIN, PROTOCOL_MAX)
        speaks = Speaks(self.peer.name, self.version, theirs.protocol_min, theirs.protocol_max)
        try:
            conversation.protocol = highest_common(ours, speaks, "protocol")
        except VersionDiffers:
            if not conversation.dialled:
                await conversation.put(await self._greeting())  # so that the peer says the same
            raise
        if not conversation.dialled:
            # Before it is greeted: a second gateway that is sent away never takes itself for connected.
            await self._make_way(conversation)
            await conversation.put(await self._greeting())
        self._skew.greeted(theirs.clock_ms)

    async def _greeting(self) -> peer_pb2.Envelope:
        greeting = peer_pb2.Greeting(
            party=self._party.name,
            version=__version__,
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            clock_ms=self._clock(),
            instance=self._instance,
            store_id=await self.store_id(),
            term=self.term,
        )
        return peer_pb2.Envelope(greeting=greeting)

    async def _read_greeting(self, conversation: Conversation) -> peer_pb2.Greeting:
        try:
            async with asyncio.timeout(10):
                head = await conversation.get()
        except TimeoutError:
            head = None
        if head is None or head.kind != "greeting":
            raise PeerUnreachable(f"{self.peer.name} did not greet")
        check_shape(head)
        return parse(head).greeting

    async def _ask_clock(self, clock: peer_pb2.Clock) -> peer_pb2.Clock:
        return (await self.request(clock=clock)).clock

    async def _reply(self, conversation: Conversation, head: Head) -> None:
        ASKER.set(Asker(lambda: not conversation.is_over))
        answer = await conversation.door.answer(self.peer.name, head)
        answer.reply_to = head.id
        try:
            try:
                await conversation.put(answer)
            except MessageTooLarge as error:
                failure = failure_pb2.Failure(code=error.code, text=error.public)
                await conversation.put(peer_pb2.Envelope(reply_to=head.id, failure=failure))
        except Exception as error:  # the stream is gone; the peer asks again over the next one
            log.info("an answer to %s was lost: %s", self.peer.name, type(error).__name__)

    def _note_failure(self, error: FedtasksError) -> bool:
        """Remember why there is no conversation; returns whether that is news."""
        is_news = self.failure is None or self.failure.code != error.code
        if is_news:
            log.warning("no connection with %s: %s", self.peer.name, error)
        if self._live is None:
            self.failure = error
        return is_news

    def _absence(self) -> FedtasksError:
        """Say why there is no conversation."""
        failure = self.failure
        if isinstance(failure, VersionDiffers | PartyTwice):
            return type(failure)(failure.detail, **failure.fields)
        reason = f": {failure.detail or failure.public}" if failure else ""
        return PeerUnreachable(f"no connection with {self.peer.name}{reason}", peer=self.peer.name)
