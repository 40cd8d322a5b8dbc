"""The task at which a scheduled run waits until both sides have the data of its partition."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.operators import MeetingOperator, airflow_errors, peer_name, run_id_of
from fedtasks.airflow.schedules import end_of_interval_ms
from fedtasks.airflow.triggers import MeetingTrigger
from fedtasks.config import Party, load_party
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import DataNotLanded, DeadlinePassed, FedtasksError, StorageUnavailable, StreamBehind
from fedtasks.names import DATA
from fedtasks.pipeline.step import Step

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fedtasks.config import Dataset
    from fedtasks.data.growing import Stream
    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import run_pb2

_LOOK_EVERY_S = 5.0
# The other half gives up by its own clock, a little later if it came later; its reason is better than ours.
_SLACK_S = 60.0


@dataclass(frozen=True)
class Wanted:
    """What a run waits for at this party.

    Parameters
    ----------
    dataset, partition
        Of which dataset, and which partition.
    stream, peer, reached_ms
        Of a stream that is joined: what it is joined to and with whom, and which event time it must have reached.
    """

    dataset: str
    partition: str
    stream: str = ""
    peer: str = ""
    reached_ms: int = 0

    def missing(self, party: Party, log: Stream | None = None) -> FedtasksError | None:
        """Return what a party lacks; None if it is there.

        Parameters
        ----------
        log
            Of a stream, what `open_log` has returned before: it knows what it has seen.

        Raises
        ------
        StorageUnavailable
            It cannot be seen now.
        """
        from fedtasks.data.partitions import has_landed
        from fedtasks.join.readiness import newest_ms

        if not self.stream:
            is_there = has_landed(party.dataset(self.dataset), self.partition)
            return None if is_there else DataNotLanded(dataset=self.dataset, partition=self.partition)
        newest = newest_ms(log or self.open_log(party))
        if newest is not None and newest >= self.reached_ms:
            return None
        found = f"its newest event is of {_said(newest)}" if newest is not None else "it has no event yet"
        text = f"{found}, and {self.partition} is complete with one of {_said(self.reached_ms)} or later"
        return StreamBehind(text, dataset=self.dataset, partition=self.partition)

    def open_log(self, party: Party) -> Stream:
        """Open the stream that is waited for."""
        from fedtasks.join.readiness import open_log

        return open_log(party, party.dataset(self.dataset), self.stream, self.peer)


def _said(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class AwaitDataOperator(MeetingOperator):
    """Lets the run go on once both sides have the data of its partition; at once if they have, or keep no partitions.

    A dataset of partitions has it when that has landed; a stream that is to be joined, when it has come so far that no
    row of the day or hour may still come. A half that runs has not found its own data yet; one that has succeeded waits
    for the other's.

    Parameters
    ----------
    steps
        What the run does.
    timezone
        By whose clock days end.
    **kwargs
        As for `MeetingOperator` and every operator; ``wait`` is how long the data may take.

    Notes
    -----
    Reveals: to the peer, when this party's data is there.
    """

    def __init__(self, *, steps: Sequence[Step] = (), timezone: str = "UTC", **kwargs: Any) -> None:
        # What is not there when waiting ends is not there a moment later.
        super().__init__(federated_task=DATA, **{"retries": 0, **kwargs})
        self.steps = tuple(steps)
        self.timezone = timezone

    def _proceed(self, context: Context, until_ms: int = 0) -> None:
        ti = context["ti"]
        with airflow_errors(ti):
            hook = FedtasksHook(self.fedtasks_conn_id)
            with hook.client() as client:
                run_id = run_id_of(ti, self.open_run_task_id)
                if not until_ms:
                    self._meet(context, hook, client, run_id)
                    until_ms = int((time.time() + self.wait.total_seconds() + _SLACK_S) * 1000)
                self._await_other(hook, client, run_id, until_ms)

    def perform(self, context: Context, hook: FedtasksHook, meeting: run_pb2.Meeting) -> dict[str, Any]:
        """Wait deferred until this party's data is there; both halves end with the same empty outcome."""
        run, own = meeting.run, meeting.own
        dataset = hook.party.dataset(json.loads(run.config_json)["datasets"][hook.party.name])
        wanted = next((each for each in self._wanted(hook, run, dataset) if self._missing(hook.party, each)), None)
        problem = self._missing(hook.party, wanted) if wanted else None
        until_ms = own.announced_ms + int(self.wait.total_seconds() * 1000)
        waits_for = peer_name(run, hook.party) if problem is None else hook.party.name
        progress = {"phase": "waiting for data", "for": waits_for, "until_ms": until_ms}
        with hook.client() as client:
            client.report(run.run_id, DATA, own.attempt, progress=progress)
        if problem is not None:
            if until_ms <= time.time() * 1000:
                raise problem
            self.log.info("Waiting for %s of `%s`: %s", run.partition, dataset.name, problem.detail or problem)
            self._defer(hook, run.run_id, until_ms, None, LandingTrigger, **to_plain(wanted))
        return {}

    def _wanted(self, hook: FedtasksHook, run: run_pb2.Run, dataset: Dataset) -> Iterator[Wanted]:
        """Yield what must be there before the run goes on."""
        from fedtasks.join.readiness import needed_ms

        if dataset.is_partitioned:
            yield Wanted(dataset.name, run.partition)
        end_ms = end_of_interval_ms(run.partition, self.timezone) if dataset.is_stream else None
        if end_ms is None:
            return
        shared = json.loads(run.config_json)["steps"]
        for step in self.steps:
            if step.kind == "join":
                settings = build(step.declaration, shared[step.name], path=step.name)
                reached_ms = needed_ms(settings, end_ms)
                if reached_ms is not None:
                    peer = peer_name(run, hook.party)
                    yield Wanted(dataset.name, run.partition, settings.stream, peer, reached_ms)

    def _missing(self, party: Party, wanted: Wanted) -> FedtasksError | None:
        """Return why something cannot be used now; None if it is there."""
        try:
            return wanted.missing(party)
        except StorageUnavailable as error:
            self.log.warning("Whether %s is there cannot be seen now: %s", wanted.partition, error)
            return error

    def _await_other(self, hook: FedtasksHook, client: GatewayClient, run_id: str, until_ms: int) -> None:
        """Wait deferred until the other half has its partition too."""
        from fedtasks.airflow.meetings import end_of
        from fedtasks.wire.v1 import run_pb2

        answer = client.get_run(run_id=run_id)
        ended = end_of(answer.run)
        if ended is not None:
            raise ended
        if any(half.task == DATA and half.state == run_pb2.STATE_SUCCEEDED for half in answer.peer):
            return
        peer = peer_name(answer.run, hook.party)
        if until_ms <= time.time() * 1000:
            raise DeadlinePassed(f"{peer} has not landed {answer.run.partition}", where=run_id)
        self.log.info("Waiting until %s has landed %s", peer, answer.run.partition)
        self._defer(hook, run_id, until_ms, {"until_ms": until_ms}, LandingTrigger)


class LandingTrigger(MeetingTrigger):
    """Waits until the run has ended, or data is there: this party's, or without any named the other half's.

    Parameters
    ----------
    party_file, run_id, task, until_ms, not_before_ms
        As for `MeetingTrigger`.
    dataset, partition, stream, peer, reached_ms
        What it looks for; see `Wanted`.
    """

    def __init__(
        self,
        party_file: str,
        run_id: str,
        task: str,
        until_ms: int,
        not_before_ms: int,
        dataset: str = "",
        partition: str = "",
        stream: str = "",
        peer: str = "",
        reached_ms: int = 0,
    ) -> None:
        super().__init__(party_file, run_id, task, until_ms, not_before_ms)
        self.wanted = Wanted(dataset, partition, stream, peer, reached_ms)
        self._watched: Stream | None = None

    def _place(self) -> dict[str, Any]:
        return {**super()._place(), **to_plain(self.wanted)}

    async def _wait(self) -> str:
        from fedtasks.airflow.meetings import find, has_ended
        from fedtasks.wire.v1 import run_pb2

        is_own = bool(self.wanted.dataset)

        def is_found(meeting: run_pb2.Meeting) -> bool:
            is_theirs = not is_own and meeting.peer.state == run_pb2.STATE_SUCCEEDED
            return is_theirs or has_ended(meeting)

        while (left_s := self._left_s()) > 0:
            wait_s = min(left_s, _LOOK_EVERY_S) if is_own else left_s
            try:
                if await find(Path(self.party_file), self.run_id, self.federated_task, is_found, wait_s):
                    return "ready"
                if is_own and await asyncio.to_thread(self._is_there):
                    return "landed"
            except FedtasksError as error:
                # The operator meets the same error and knows what to do about it.
                self.log.warning("%s", error)
                return "error"
        return "deadline"

    def _is_there(self) -> bool:
        party = load_party(self.party_file)
        dataset = party.dataset(self.wanted.dataset)
        if self.wanted.stream and (self._watched is None or self._watched.dataset != dataset):
            self._watched = self.wanted.open_log(party)
        try:
            return self.wanted.missing(party, self._watched) is None
        except StorageUnavailable as error:
            self.log.warning("Whether %s is there cannot be seen now: %s", self.wanted.partition, error)
            return False
