"""The task at which a scheduled run waits until both sides have landed its partition."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.operators import MeetingOperator, airflow_errors, peer_name, run_id_of
from fedtasks.airflow.triggers import MeetingTrigger
from fedtasks.config import load_party
from fedtasks.errors import DataNotLanded, DeadlinePassed, FedtasksError, StorageUnavailable
from fedtasks.names import DATA

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fedtasks.config import Dataset
    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import run_pb2

_LOOK_EVERY_S = 5.0
# The other half gives up by its own clock, a little later if it came later; its reason is better than ours.
_SLACK_S = 60.0


class AwaitDataOperator(MeetingOperator):
    """Lets the run go on once both sides have landed its partition; at once if they have, or keep no partitions.

    A half that runs has not found its own partition yet; one that has succeeded waits for the other's.

    Parameters
    ----------
    **kwargs
        As for `MeetingOperator` and every operator; ``wait`` is how long the data may take.

    Notes
    -----
    Reveals: to the peer, when this party's partition has landed.
    """

    def __init__(self, **kwargs: Any) -> None:
        # What has not landed when waiting ends is not there a moment later.
        super().__init__(federated_task=DATA, **{"retries": 0, **kwargs})

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
        """Wait deferred until this party's partition has landed; both halves end with the same empty outcome."""
        run, own = meeting.run, meeting.own
        dataset = hook.party.dataset(json.loads(run.config_json)["datasets"][hook.party.name])
        problem = self._missing(dataset, str(run.partition))
        is_here = problem is None
        until_ms = own.announced_ms + int(self.wait.total_seconds() * 1000)
        waits_for = peer_name(run, hook.party) if is_here else hook.party.name
        progress = {"phase": "waiting for data", "for": waits_for, "until_ms": until_ms}
        with hook.client() as client:
            client.report(run.run_id, DATA, own.attempt, progress=progress)
        if problem is not None:
            if until_ms <= time.time() * 1000:
                raise problem
            self.log.info("Waiting until %s has landed %s of `%s`", hook.party.name, run.partition, dataset.name)
            partition = str(run.partition)
            self._defer(hook, run.run_id, until_ms, None, LandingTrigger, dataset=dataset.name, partition=partition)
        return {}

    def _missing(self, dataset: Dataset, partition: str) -> FedtasksError | None:
        """Return why a partition cannot be used now; None if it has landed."""
        from fedtasks.data.partitions import has_landed

        try:
            if not dataset.is_partitioned or has_landed(dataset, partition):
                return None
        except StorageUnavailable as error:
            self.log.warning("Whether %s has landed cannot be seen now: %s", partition, error)
            return error
        return DataNotLanded(dataset=dataset.name, partition=partition)

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
    """Waits until the run has ended, or a partition has landed: this party's, or without one named the other half's.

    Parameters
    ----------
    party_file, run_id, task, until_ms, not_before_ms
        As for `MeetingTrigger`.
    dataset, partition
        This party's partition that it looks for.
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
    ) -> None:
        super().__init__(party_file, run_id, task, until_ms, not_before_ms)
        self.dataset = dataset
        self.partition = partition

    def _place(self) -> dict[str, str]:
        return {**super()._place(), "dataset": self.dataset, "partition": self.partition}

    async def _wait(self) -> str:
        from fedtasks.airflow.meetings import find, has_ended
        from fedtasks.wire.v1 import run_pb2

        def is_found(meeting: run_pb2.Meeting) -> bool:
            is_theirs = not self.dataset and meeting.peer.state == run_pb2.STATE_SUCCEEDED
            return is_theirs or has_ended(meeting)

        while (left_s := self._left_s()) > 0:
            wait_s = min(left_s, _LOOK_EVERY_S) if self.dataset else left_s
            try:
                if await find(Path(self.party_file), self.run_id, self.federated_task, is_found, wait_s):
                    return "ready"
                if await asyncio.to_thread(self._has_landed):
                    return "landed"
            except FedtasksError as error:
                # The operator meets the same error and knows what to do about it.
                self.log.warning("%s", error)
                return "error"
        return "deadline"

    def _has_landed(self) -> bool:
        from fedtasks.data.partitions import has_landed

        try:
            return bool(self.dataset) and has_landed(load_party(self.party_file).dataset(self.dataset), self.partition)
        except StorageUnavailable as error:
            self.log.warning("Whether %s has landed cannot be seen now: %s", self.partition, error)
            return False
