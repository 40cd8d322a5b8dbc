"""One session with this party's gateway, as long as it stands: frames over gRPC, then in a tunnel if one can be had.

The tunnel is another stream of the same conversation, which begins with a Hello like every other one. The call over
gRPC stays open beside it and says nothing: the gateway ends both together, and says over gRPC why.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from fedtasks.errors import (
    FedtasksError,
    GatewayUnreachable,
    LinkLost,
    PeerUnreachable,
    ProtocolViolated,
    StoreUnavailable,
)
from fedtasks.link import status
from fedtasks.link.client import GatewayClient
from fedtasks.link.conversation import Conversation, StreamBroken

if TYPE_CHECKING:
    from fedtasks.link.tunnel import Tunnel

log = logging.getLogger(__name__)

LINGER_S = 1.0
BUSY_BYTES = 1 << 20
"""A tunnel is made for a link over which so many bytes have crossed: it costs some hundredths of a CPU second."""
TOGETHER = 64 << 10
"""Frames that are due at once go into a tunnel together as long as they have fewer bytes."""
OFFER_S = 5.0
"""How long a half waits for the other one's offer of a tunnel."""

# The gateway itself is in order, only the stream is not; everything else that has no code of the registry is final.
_CUTS = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})


class Session:
    """Serves a conversation until the session ends.

    Parameters
    ----------
    client
        The local gateway.
    conversation
        What is served; no other session serves it meanwhile.
    metadata
        Says which two halves meet.
    name
        For its threads.
    may_tunnel
        Whether a tunnel may be made.

    Notes
    -----
    Cost: two threads beside gRPC's own; a third for a tunnel.
    """

    def __init__(
        self,
        client: GatewayClient,
        conversation: Conversation,
        metadata: Mapping[str, str],
        *,
        name: str,
        may_tunnel: bool,
    ) -> None:
        self.cut: FedtasksError | None = None
        """Why it ended, where that is no failure."""
        self.tunnel_failure = ""
        """Why no tunnel could be made, if one was tried."""
        self.tunnelled_at: float | None = None
        """When a tunnel took over (monotonic seconds)."""
        self._client = client
        self._conversation = conversation
        self._name = name
        self._over = threading.Event()
        self._switching = threading.Lock()
        self._tunnel: Tunnel | None = None
        self._connection: socket.socket | None = None
        self._epoch = epoch = conversation.begin_stream()
        asks = {status.TUNNEL: "1"} if may_tunnel else {}
        self._call = client.open_session({**metadata, **asks}, self._outgoing(epoch))
        self._reader = self._start(self._read, epoch, name="read")
        self._threads = [self._start(self._try_tunnel, epoch, name="tunnel")] if may_tunnel else []

    def stands(self, timeout_s: float) -> bool:
        """Wait until it ended, was silent for too long or is not needed; True when time ran out before that."""
        with self._switching:
            epoch = self._epoch
        if not self._conversation.wait_stream(epoch, timeout_s):
            return True
        with self._switching:  # what ended may have been replaced
            return self._epoch != epoch

    def wait_refused(self) -> None:
        """Give the gateway a moment to say why the session ends, and the other half one to read this half's Hello."""
        self._reader.join(LINGER_S)

    def end(self) -> bool:
        """End it and its threads; whether the halves had met."""
        if self._tunnel is not None and not self._conversation.is_over:
            self.wait_refused()
        with self._switching:
            has_met = self._conversation.end_stream(self._epoch) or self._tunnel is not None
            self._over.set()
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
        self._call.cancel()
        for thread in [*self._threads, self._reader]:
            thread.join()
        return has_met

    def _start(self, work: Any, *arguments: Any, name: str) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, name=f"{self._name}-{name}", daemon=True)
        thread.start()
        return thread

    def _end_stream(self) -> None:
        with self._switching:
            self._over.set()
            self._conversation.end_stream(self._epoch)

    # -------------------------------------------------------------------------------------------------------- gRPC
    def _outgoing(self, epoch: int) -> Iterator[bytes]:
        yield from self._conversation.outgoing(epoch)
        # The gateway ends a session whose stream ends: beside a tunnel it says nothing more, but stands.
        self._over.wait()

    def _read(self, epoch: int) -> None:
        try:
            for frame in self._call:
                self._conversation.feed(epoch, frame)
            self.cut = LinkLost("the stream ended")
        except StreamBroken as error:
            self.cut = LinkLost(str(error))
        except grpc.RpcError as error:
            self._note_end(error)
        finally:
            self._end_stream()

    def _note_end(self, error: grpc.RpcError) -> None:
        reason = status.from_rpc_error(error)
        is_coded = status.CODE in dict(error.trailing_metadata() or ())
        is_away = isinstance(reason, PeerUnreachable | GatewayUnreachable | StoreUnavailable)
        if is_away or (not is_coded and error.code() in _CUTS):
            self.cut = reason
        else:
            self._conversation.fail(reason)

    # ------------------------------------------------------------------------------------------------------ tunnel
    def _try_tunnel(self, epoch: int) -> None:
        """Make a tunnel when it is worth its while, let it take the stream's place, and write to it."""
        try:
            tunnel = self._make_tunnel(epoch)
        except (OSError, ValueError, grpc.RpcError) as error:
            self.tunnel_failure = str(error) or type(error).__name__
            return
        if tunnel is None:
            return
        log.info("the link with %s goes through a tunnel", self._conversation.peer)
        reader = self._start(self._read_tunnel, tunnel, name="tunnel-read")
        try:
            for frames in self._conversation.outgoing_together(self._epoch, TOGETHER):
                tunnel.write(*frames)
        except OSError as error:
            self.cut = LinkLost(f"the tunnel broke: {error}")
        finally:
            self._end_stream()
            tunnel.close()
            reader.join()
            tunnel.release()

    def _make_tunnel(self, epoch: int) -> Tunnel | None:
        """Return a tunnel that has taken over; None if there is no need, or no gateway that passes it on."""
        conversation = self._conversation
        if not conversation.wait_busy(epoch, BUSY_BYTES):
            return None
        said = dict(self._call.initial_metadata() or ())
        token, port = said.get(status.TUNNEL_TOKEN), said.get(status.TUNNEL_PORT, "0")
        if not isinstance(token, bytes):
            return None
        # Heavy, and most links are over before they need it.
        module: Any = importlib.import_module("fedtasks.link.tunnel")
        identity = module.own_identity()
        peer_certificate = conversation.offer_tunnel(epoch, identity.certificate, OFFER_S)
        if not peer_certificate:
            raise TimeoutError(f"{conversation.peer} offers none")
        connection = self._client.connect_tunnel(token, int(port))
        try:
            with self._switching:
                self._connection = connection
            tunnel: Tunnel = module.Tunnel(connection, identity, peer_certificate, is_server=conversation.is_first)
            tunnel.shake_hands()
            if self._switch_to(tunnel):
                return tunnel
        except BaseException:
            self._connection = None
            connection.close()
            raise
        connection.close()
        return None

    def _switch_to(self, tunnel: Tunnel) -> bool:
        """Let a tunnel take the stream's place; False when the session has ended meanwhile."""
        with self._switching:
            epoch = None if self._over.is_set() else self._conversation.replace_stream(self._epoch)
            if epoch is None:
                return False
            self._epoch, self._tunnel = epoch, tunnel
            self.tunnelled_at = time.monotonic()
            return True

    def _read_tunnel(self, tunnel: Tunnel) -> None:
        try:
            for frame in tunnel.frames(lambda: self._conversation.hear(self._epoch)):
                self._conversation.feed(self._epoch, frame)
            self.cut = LinkLost("the tunnel ended")
        except StreamBroken as error:
            self.cut = LinkLost(str(error))
        except ProtocolViolated as error:
            self._conversation.fail(error)
        except OSError as error:
            self.cut = LinkLost(f"the tunnel broke: {error}")
        finally:
            self._end_stream()
