"""Waits of the triggerer: no worker slot is held meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from fedtasks.errors import FedtasksError

_PAUSE_S = 30.0
"""How long after an error that nobody foresaw an opening is asked for again."""


class HintTrigger(BaseTrigger):
    """Base of the waits: each yields one event, which is only a hint to look again and decides nothing.

    Parameters
    ----------
    party_file
        Path of party.yaml.
    until_ms
        When waiting ends.
    not_before_ms
        When the event may come at the earliest. A task that is resumed before Airflow knows that the process which
        deferred it has ended is taken for one that died, and failed.
    """

    def __init__(self, party_file: str, until_ms: int, not_before_ms: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.party_file = party_file
        self.until_ms = until_ms
        self.not_before_ms = not_before_ms

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and constructor arguments."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        when = {"until_ms": self.until_ms, "not_before_ms": self.not_before_ms}
        return path, {"party_file": self.party_file, **self._place(), **when}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the hint."""
        hint = await self._wait()
        await asyncio.sleep(max(0.0, self.not_before_ms / 1000 - time.time()))
        yield TriggerEvent(hint)  # type: ignore[no-untyped-call]

    def _left_s(self) -> float:
        """Return how long it may still wait."""
        return max(0.0, self.until_ms / 1000 - time.time())

    def _place(self) -> dict[str, Any]:
        """Return the constructor arguments that say where it waits."""
        raise NotImplementedError

    async def _wait(self) -> str:
        """Wait; return the hint."""
        raise NotImplementedError


class MeetingTrigger(HintTrigger):
    """Waits until both halves of a task are ready, the run has ended, or waiting has.

    Its hint is ``ready``, ``ended``, ``deadline``, ``error``, or ``lost`` where the gateway does not know of this half:
    its store was restored from an older copy, and the operator announces the half again.

    Parameters
    ----------
    run_id, task
        Which task of which run.
    party_file, until_ms, not_before_ms
        As for `HintTrigger`.
    """

    def __init__(self, party_file: str, run_id: str, task: str, until_ms: int, not_before_ms: int) -> None:
        super().__init__(party_file, until_ms, not_before_ms)
        self.run_id = run_id
        # `task` itself belongs to the base class: there it is the operator.
        self.federated_task = task

    def _place(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "task": self.federated_task}

    async def _wait(self) -> str:
        from fedtasks.airflow.meetings import find, has_ended

        try:
            found = await find(
                Path(self.party_file),
                self.run_id,
                self.federated_task,
                lambda meeting: meeting.ready or has_ended(meeting) or not meeting.HasField("own"),
                self._left_s(),
            )
        except FedtasksError as error:
            # The operator meets the same error and knows what to do about it.
            self.log.warning("%s", error)
            return "error"
        if found is None:
            return "deadline"
        if found.ready:
            return "ready"
        return "ended" if has_ended(found) else "lost"


class OpeningTrigger(HintTrigger):
    """Waits until it is worth asking again for a run that could not be opened yet, or waiting has ended.

    This party's gateway knows when, and is asked for nothing else: so a wait costs neither a worker slot nor requests
    to the peer. Its hint is ``due``, ``deadline`` or ``error``.

    Parameters
    ----------
    dag_id, dag_run_id, pipeline
        Which DAG run waits for a run of which pipeline.
    party_file, until_ms, not_before_ms
        As for `HintTrigger`.
    """

    def __init__(
        self, party_file: str, dag_id: str, dag_run_id: str, pipeline: str, until_ms: int, not_before_ms: int
    ) -> None:
        super().__init__(party_file, until_ms, not_before_ms)
        self.dag_id = dag_id
        self.dag_run_id = dag_run_id
        self.pipeline = pipeline

    def _place(self) -> dict[str, str]:
        return {"dag_id": self.dag_id, "dag_run_id": self.dag_run_id, "pipeline": self.pipeline}

    async def _wait(self) -> str:
        from fedtasks.airflow.meetings import await_opening

        left_s = self._left_s()
        try:
            async with asyncio.timeout(left_s):
                await await_opening(Path(self.party_file), **self._place())
        except TimeoutError:
            return "deadline"
        except FedtasksError as error:
            # The operator meets the same error and knows what to do about it; not without a pause, though.
            self.log.warning("%s", error)
            await asyncio.sleep(min(left_s, _PAUSE_S))
            return "error"
        return "due"
