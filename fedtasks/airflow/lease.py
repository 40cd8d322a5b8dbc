"""The lease of a half that works: the operator renews it, and ends the half when it stands still for too long."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fedtasks.clock import utc
from fedtasks.config import load_party
from fedtasks.errors import AttemptStale, FedtasksError, HalfStalled, PeerStalled
from fedtasks.link.mark import Seen, read_mark
from fedtasks.wire.v1 import run_pb2

if TYPE_CHECKING:
    from fedtasks.link.client import GatewayClient

log = logging.getLogger(__name__)

RENEW_S = 10.0
"""So often the gateway hears that this worker is there."""

AGAIN_S = 2.0
"""After so long it is told again, when it could not be reached."""

PATIENT_S = 60.0
"""So much longer a half waits for one that is watched too: that one's own side is to end it, and knows why."""


@dataclass(frozen=True, kw_only=True)
class Half:
    """A half that works here, and when it has stood still for too long.

    Parameters
    ----------
    run_id, task, attempt
        Which half.
    party, peer
        Whose it is, and whose the other one is.
    stall_s
        How long it may make no progress, or wait for the other half without any.
    mark
        Where it says that it makes progress.
    """

    run_id: str
    task: str
    attempt: int
    party: str
    peer: str
    stall_s: float
    mark: Path

    def stalled(self, seen: Seen, theirs: run_pb2.Half) -> FedtasksError | None:
        """Return why the half must end, None while it may go on.

        Parameters
        ----------
        seen
            Its mark.
        theirs
            The other half as last told.
        """
        if not seen.awaits_peer:
            if seen.idle_s < self.stall_s:
                return None
            text = f"{self.party}'s half of `{self.task}` has made no progress for {seen.idle_s / 60:.0f} minutes"
            return HalfStalled(text, where=self.run_id, half=self.party)
        if theirs.leased and not theirs.quiet_since_ms:
            return None  # its own side sees it move
        if seen.idle_s < self.stall_s + (PATIENT_S if theirs.leased else 0.0):
            return None
        text = f"nothing has come from {self.peer}'s half of `{self.task}` for {seen.idle_s / 60:.0f} minutes"
        if theirs.quiet_since_ms:
            why = "waits for this one" if theirs.awaits_peer else "makes no progress"
            text = f"{text}: since {utc(theirs.quiet_since_ms, '%H:%M')} UTC it {why}"
        return PeerStalled(text, where=self.run_id, half=self.peer)


class Lease:
    """Keeps the lease of a half, on a thread of its own, until its block is left.

    Parameters
    ----------
    party_file
        Path of party.yaml.
    half
        Which.
    theirs
        The other half as it was when both began.

    Notes
    -----
    On a thread of its own: an Airflow that does not answer may hold up the operator for longer than a lease lasts, also
    when the half's process has ended and its outcome has not been told yet.
    """

    def __init__(self, party_file: Path, half: Half, theirs: run_pb2.Half) -> None:
        self._party_file, self._half, self._theirs = party_file, half, theirs
        self._ended = threading.Event()
        self._verdict: Future[FedtasksError] = Future()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._verdict.set_running_or_notify_cancel()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def see(self, meeting: run_pb2.Meeting) -> None:
        """Take up how the other half stands now."""
        self._theirs = meeting.peer

    async def verdict(self) -> FedtasksError:
        """Wait until the half must end; return why.

        Notes
        -----
        A gateway that cannot be reached is no reason: that is what the watch of the meeting judges.
        """
        return await asyncio.wrap_future(self._verdict)

    def _keep(self) -> None:
        try:
            with open_client(self._party_file) as client:
                verdict = self._renew(client)
        except BaseException as error:
            self._verdict.set_exception(error)
        else:
            self._verdict.set_result(verdict)

    def _renew(self, client: GatewayClient) -> FedtasksError:
        half, said = self._half, ""
        while True:
            seen = read_mark(half.mark)
            stalled = half.stalled(seen, self._theirs)
            if stalled is not None:
                return stalled
            pause_s = RENEW_S
            try:
                client.renew(half.run_id, half.task, half.attempt, idle_s=seen.idle_s, awaits_peer=seen.awaits_peer)
            except AttemptStale as stale:
                return stale
            except FedtasksError as error:
                if error.code != said:
                    log.info("The lease cannot be renewed: %s", error)
                said, pause_s = error.code, AGAIN_S if error.retryable else RENEW_S
            else:
                said = ""
            if self._ended.wait(pause_s):
                return AttemptStale("the half has ended", where=half.run_id)


def open_client(party_file: Path) -> GatewayClient:
    """Return a client that tells this party's gateway once, and says at once if that could not be."""
    from fedtasks.link.client import GatewayClient  # grpc: never when a DAG file is parsed

    return GatewayClient.of(load_party(party_file), patience_s=0.0)
