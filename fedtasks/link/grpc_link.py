"""A link through the gateways: worker, local gateway, peer's gateway, worker."""

from __future__ import annotations

import logging
import threading
import time

from fedtasks.errors import (
    ConfigDiffers,
    DeadlinePassed,
    FedtasksError,
    GatewayUnreachable,
    LinkLost,
    PeerUnreachable,
    RowOrderDiffers,
    StoreUnavailable,
    VersionDiffers,
)
from fedtasks.link import status
from fedtasks.link.absence import Absence
from fedtasks.link.client import GatewayClient
from fedtasks.link.conversation import CROWDED_S, STALL_S, WINDOW, Conversation
from fedtasks.link.endpoint import Endpoint
from fedtasks.link.link import Facts
from fedtasks.link.mark import NO_MARK, Mark
from fedtasks.link.patience import backoff
from fedtasks.link.session import LINGER_S, Session

log = logging.getLogger(__name__)

CLOSE_GRACE_S = 10.0
_TICK_S = 1.0
_TUNNEL_TRIES = 3
_STABLE_S = 60.0
"""A tunnel that stood so long was worth its while."""


class GrpcLink(Endpoint):
    """Meets the other half, and resumes by itself whenever a stream breaks.

    Parameters
    ----------
    client
        The local gateway; it must stay open as long as the link.
    peer
        The other party's name.
    run_id, task, shard, attempt
        Which two halves meet; also compared as facts.
    facts
        What else must be equal on both sides.
    party
        This party's name, for errors.
    connect_timeout_s
        How long to wait for the other half.
    resume_timeout_s
        How long a cut may last.
    window
        Bytes under way and not yet consumed, equal on both sides.
    close_timeout_s
        How long `close` waits for the other half.
    stall_s, crowded_s, mark
        As in `Conversation`.

    Raises
    ------
    DeadlinePassed
        The other half did not come within `connect_timeout_s`.
    ConfigDiffers, RowOrderDiffers, VersionDiffers
        The halves do not fit; the error names the field.
    GatewayUnreachable, PeerUnreachable, SecretRejected
        The way to the other half does not exist.

    Notes
    -----
    Reveals: to both gateways names, sizes and times of messages, and the facts; frames are not sealed against gateways.
    Cost: two threads beside gRPC's own; two copies of each chunk; a window of memory on either side.
    """

    def __init__(
        self,
        client: GatewayClient,
        *,
        peer: str,
        run_id: str,
        task: str,
        shard: int,
        attempt: int,
        facts: Facts,
        party: str = "this party",
        connect_timeout_s: float = 600.0,
        resume_timeout_s: float = 120.0,
        window: int = WINDOW,
        close_timeout_s: float = 600.0,
        stall_s: float = STALL_S,
        crowded_s: float = CROWDED_S,
        mark: Mark = NO_MARK,
    ) -> None:
        key = {"run": run_id, "task": task, "shard": str(shard), "attempt": str(attempt)}
        conversation = Conversation(
            peer,
            {**facts, **key},
            window=window,
            stall_s=stall_s,
            crowded_s=crowded_s,
            takes_tunnels=True,
            party=party,
            mark=mark,
        )
        super().__init__(conversation, close_timeout_s=close_timeout_s)
        self._client = client
        self._metadata = {
            status.RUN: run_id,
            status.TASK: task,
            status.SHARD: str(shard),
            status.ATTEMPT: str(attempt),
        }
        self._connect_timeout_s = connect_timeout_s
        self._resume_timeout_s = resume_timeout_s
        self._last_cut: FedtasksError | None = None
        self._absence = Absence(party, peer)
        self._tunnels_left, self._no_tunnel = _TUNNEL_TRIES, ""
        self._session: Session | None = None
        self._supervisor = threading.Thread(target=self._supervise, name=f"link-{task}-{shard}", daemon=True)
        self._supervisor.start()
        try:
            self._conversation.wait_met(None)
        except BaseException:
            self._hang_up()
            raise

    @property
    def path(self) -> str:
        """How its frames go: ``tunnel`` or ``gRPC``, with the reason where a tunnel has been tried in vain."""
        session = self._session
        if session is not None and session.tunnelled_at is not None:
            return "tunnel"
        why = (session.tunnel_failure if session is not None else "") or self._no_tunnel
        return f"gRPC: {why}" if why else "gRPC"

    def _hang_up(self) -> None:
        # After a failure the supervisor ends by itself: it first lets the other half read this half's Hello.
        if self._conversation.error is None:
            self._conversation.hang_up()
        self._supervisor.join(LINGER_S + 10.0)

    def _supervise(self) -> None:
        """Keep a session standing until the conversation is over."""
        try:
            delays = backoff()
            while not self._conversation.is_over:
                if self._keep_session():
                    delays = backoff()
                if not self._conversation.wait_over(next(delays)):
                    self._check_limits()
        except FedtasksError as error:
            self._conversation.fail(error)
        except BaseException as error:
            # Whoever waits in `send` or `receive` would wait for ever.
            self._conversation.fail(LinkLost(f"the link's own thread failed: {type(error).__name__}"))
            raise

    def _keep_session(self) -> bool:
        """Open one session and serve it until it ends; whether the halves met in it."""
        conversation = self._conversation
        session = Session(
            self._client,
            conversation,
            self._metadata,
            name=self._supervisor.name,
            may_tunnel=self._tunnels_left > 0,
        )
        self._session = session
        try:
            while session.stands(_TICK_S):
                self._check_limits()
            if isinstance(conversation.error, ConfigDiffers | RowOrderDiffers | VersionDiffers):
                session.wait_refused()
        finally:
            has_met = session.end()
            self._last_cut = session.cut or self._last_cut
            if has_met:
                self._absence.forget()
            self._absence.note(session.cut)
            self._count_tunnel(session)
        return has_met

    def _count_tunnel(self, session: Session) -> None:
        """Try no more where tunnels cannot be had, or break soon."""
        if session.tunnelled_at is not None and time.monotonic() - session.tunnelled_at > _STABLE_S:
            self._tunnels_left = _TUNNEL_TRIES
        elif session.tunnel_failure or session.tunnelled_at is not None:
            self._tunnels_left -= 1
            if not self._tunnels_left:
                self._no_tunnel = why = session.tunnel_failure or "they break soon"
                log.warning("the link with %s goes through no tunnel any more, but over gRPC: %s", self.peer, why)

    def _check_limits(self) -> None:
        """Give up when the halves could not talk for too long."""
        conversation = self._conversation
        cut_s = conversation.cut_s
        if conversation.has_met:
            if conversation.is_settled and cut_s > CLOSE_GRACE_S:
                log.warning("%s took everything but its Close did not come; the link counts as closed", self.peer)
                conversation.settle()
            elif cut_s > self._resume_timeout_s:
                last = f"; last: {self._last_cut}" if self._last_cut else ""
                text = f"{self.peer} could not be reached again within {self._resume_timeout_s:g} s"
                away = self._absence.who()
                raise LinkLost(f"{text}: {away} was away{last}", away=away)
        elif cut_s > self._connect_timeout_s:
            if isinstance(self._last_cut, GatewayUnreachable | PeerUnreachable | StoreUnavailable):
                raise self._last_cut
            raise DeadlinePassed(f"{self.peer} did not come within {self._connect_timeout_s:g} s", party=self.peer)
