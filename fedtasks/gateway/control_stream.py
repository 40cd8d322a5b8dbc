"""The conversation of two gateways: one stream that either side may have dialled, requests in both directions."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from fedtasks import __version__
from fedtasks.clock import Clock
from fedtasks.config import Party, Peer
from fedtasks.errors import FedtasksError, PeerUnreachable, VersionDiffers, from_code
from fedtasks.link.status import from_rpc_error
from fedtasks.text import plain_text
from fedtasks.wire.v1 import failure_pb2, peer_pb2, peer_pb2_grpc

log = logging.getLogger(__name__)

PROTOCOL = 2
"""The one version of the gateways' protocol that this release speaks."""

CONNECT_S = 10.0
"""How long a request waits for the conversation to begin."""

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_send_message_length", 8 << 20),
)
"""A silent peer is noticed within ten seconds, on either side."""

Read = Callable[[], Awaitable[Any]]
Write = Callable[[Any], Awaitable[None]]
Answer = Callable[[str, peer_pb2.Envelope], Awaitable[peer_pb2.Envelope]]


@dataclass
class Conversation:
    """One live control stream with a peer."""

    read: Read
    write: Write
    wrap: Callable[..., Any]
    answer: Answer
    dialled: bool
    hang_up: Callable[[], object]
    pending: dict[int, asyncio.Future[peer_pb2.Envelope]] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def put(self, envelope: peer_pb2.Envelope) -> None:
        """Write one envelope; writers take turns."""
        async with self.writing:
            await self.write(self.wrap(envelope=envelope))

    async def get(self) -> peer_pb2.Envelope | None:
        """Read one envelope; None at the end."""
        message = await self.read()
        return None if message is grpc.aio.EOF else message.envelope


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
    """

    def __init__(self, party: Party, peer: Peer, clock: Clock, connected: Callable[[], None]) -> None:
        self.peer = peer
        self.version = ""
        self.clock_skew_s = 0.0
        self.failure: FedtasksError | None = PeerUnreachable(f"{peer.name} has not been heard of yet")
        self.since_ms = clock()
        self._party = party
        self._clock = clock
        self._connected = connected
        self._live: Conversation | None = None
        self._changed = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------ outside
    @property
    def is_connected(self) -> bool:
        """Whether a conversation stands."""
        return self._live is not None

    @property
    def dialled(self) -> bool:
        """Whether the live conversation was dialled from here: then sessions are opened from here too."""
        return self._live is not None and self._live.dialled

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
        number = next(conversation.ids)
        future: asyncio.Future[peer_pb2.Envelope] = asyncio.get_running_loop().create_future()
        conversation.pending[number] = future
        try:
            await conversation.put(peer_pb2.Envelope(id=number, **body))
            async with asyncio.timeout(timeout_s):
                answer = await future
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError, ConnectionError) as error:
            raise PeerUnreachable(f"{self.peer.name} did not answer within {timeout_s:.0f} s") from error
        finally:
            conversation.pending.pop(number, None)
        if answer.WhichOneof("body") == "failure":
            text = plain_text(answer.failure.text)
            raise from_code(plain_text(answer.failure.code, 64), text, where=self.peer.name)
        return answer

    def open_session(self, metadata: tuple[tuple[str, str], ...]) -> Any:
        """Open the stream of a session on the dialled channel; raise `PeerUnreachable` when it is gone."""
        if self._channel is None:
            raise self._absence()
        method = self._channel.stream_stream("/fedtasks.v1.PeerGateway/Session")
        return method(metadata=metadata)

    # -------------------------------------------------------------------------------------------------------- dialling
    async def keep_dialling(self, credentials: grpc.ChannelCredentials, answer: Answer) -> None:
        """Dial the peer whenever no conversation stands; runs until cancelled.

        Parameters
        ----------
        credentials
            Show this party's certificate, and trust the peer's authority alone.
        answer
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
                await self._dial(self.peer.address, credentials, answer)
            except FedtasksError as error:
                self._note_failure(error)
            except Exception as error:  # gRPC's internals raise errors of their own when a stream dies
                self._note_failure(PeerUnreachable(f"the connection ended with {type(error).__name__}"))
            await asyncio.sleep(delay + random.uniform(0, delay))  # noqa: S311
            delay = min(delay * 1.6, 2.0)

    async def _dial(self, address: str, credentials: grpc.ChannelCredentials, answer: Answer) -> None:
        options = (*KEEPALIVE, ("grpc.ssl_target_name_override", f"{self.peer.name}.fedtasks"))
        channel = grpc.aio.secure_channel(address, credentials, options=options)
        try:
            async with asyncio.timeout(10):
                await channel.channel_ready()
            call = peer_pb2_grpc.PeerGatewayStub(channel).Control()
            conversation = Conversation(call.read, call.write, peer_pb2.ControlRequest, answer, True, call.cancel)
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
    async def accept(self, context: grpc.aio.ServicerContext, answer: Answer) -> None:
        """Take up a conversation that the peer dialled; returns when it ends.

        When both sides dial at once, the stream dialled by the party whose name sorts first stays.

        Parameters
        ----------
        context
            The peer's call.
        answer
            Answers the peer's requests.

        Raises
        ------
        VersionDiffers
            The peer's release speaks another protocol.
        PeerUnreachable
            The peer does not greet, or another conversation stays.
        """
        if self._live is not None:
            if self._live.dialled and self._party.name < self.peer.name:
                raise PeerUnreachable(f"{self._party.name} has dialled already")
            self._live.hang_up()
        task = asyncio.current_task()
        hang_up = task.cancel if task else lambda: None
        conversation = Conversation(
            context.read, context.write, peer_pb2.ControlResponse, answer, False, lambda: hang_up()
        )
        try:
            await self._converse(conversation)
        except VersionDiffers as error:
            self._note_failure(error)
            raise

    # ------------------------------------------------------------------------------------------------------ conversing
    async def _converse(self, conversation: Conversation) -> None:
        await self._greet(conversation)
        self._live = conversation
        self.failure = None
        self.since_ms = self._clock()
        self._changed.set()
        log.info("connected with %s (%s)", self.peer.name, "dialled" if conversation.dialled else "accepted")
        self._connected()
        try:
            while (envelope := await conversation.get()) is not None:
                if envelope.reply_to:
                    future = conversation.pending.get(envelope.reply_to)
                    if future is not None and not future.done():
                        future.set_result(envelope)
                else:
                    task = asyncio.create_task(self._reply(conversation, envelope))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            if self._live is conversation:
                self._live = None
                self.since_ms = self._clock()
                self.failure = PeerUnreachable(f"the connection with {self.peer.name} was lost")
            for future in conversation.pending.values():
                if not future.done():
                    future.set_exception(ConnectionError("conversation ended"))
            self._changed.set()

    async def _greet(self, conversation: Conversation) -> None:
        greeting = peer_pb2.Greeting(
            party=self._party.name,
            version=__version__,
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            clock_ms=self._clock(),
        )
        await conversation.put(peer_pb2.Envelope(greeting=greeting))
        try:
            async with asyncio.timeout(10):
                envelope = await conversation.get()
        except TimeoutError:
            envelope = None
        if envelope is None or envelope.WhichOneof("body") != "greeting":
            raise PeerUnreachable(f"{self.peer.name} did not greet")
        theirs = envelope.greeting
        self.version = plain_text(theirs.version, 32)
        if not theirs.protocol_min <= PROTOCOL <= theirs.protocol_max:
            raise self._version_differs(theirs)
        self.clock_skew_s = (theirs.clock_ms - self._clock()) / 1000

    async def _reply(self, conversation: Conversation, envelope: peer_pb2.Envelope) -> None:
        try:
            answer = await conversation.answer(self.peer.name, envelope)
        except FedtasksError as error:
            answer = peer_pb2.Envelope(failure=failure_pb2.Failure(code=error.code, text=error.public))
        except Exception:
            log.exception("a request of %s could not be answered", self.peer.name)
            answer = peer_pb2.Envelope(failure=failure_pb2.Failure(code="PEER_FAILED", text="internal error"))
        answer.reply_to = envelope.id
        try:
            await conversation.put(answer)
        except Exception as error:  # the stream is gone; the peer asks again over the next one
            log.info("an answer to %s was lost: %s", self.peer.name, type(error).__name__)

    def _note_failure(self, error: FedtasksError) -> None:
        if self.failure is None or self.failure.code != error.code:
            log.warning("no connection with %s: %s", self.peer.name, error)
        self.failure = error

    def _version_differs(self, theirs: peer_pb2.Greeting) -> VersionDiffers:
        """Name both releases and who is behind, in words that are true on either side."""
        first, last = theirs.protocol_min, theirs.protocol_max
        spoken = str(first) if first == last else f"{first} to {last}"
        ours = f"{self._party.name} {__version__} with protocol {PROTOCOL}"
        releases = f"{ours}, {self.peer.name} {self.version} with protocol {spoken}"
        behind = self.peer.name if last < PROTOCOL else self._party.name
        return VersionDiffers(f"{releases}: {behind} must upgrade", releases=releases, upgrade=behind)

    def _absence(self) -> FedtasksError:
        """Say why there is no conversation."""
        if isinstance(self.failure, VersionDiffers):
            return VersionDiffers(self.failure.detail, **self.failure.fields)
        reason = f": {self.failure.detail or self.failure.public}" if self.failure else ""
        return PeerUnreachable(f"no connection with {self.peer.name}{reason}", peer=self.peer.name)
