"""How a run that a peer has asked for gets its DAG run here: one that asks for the same, or one that is triggered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fedtasks.errors import FedtasksError, PeerError
from fedtasks.gateway.airflow_api import TERMINAL
from fedtasks.gateway.base import Base
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.wishes import Wish
from fedtasks.store import RunRow


class DagRuns:
    """Begins the runs that peers have asked for in this party's Airflow.

    Parameters
    ----------
    base
        This party and its Airflow.
    runs
        Where the runs are entered.

    Notes
    -----
    A run is entered and charged before its DAG run is triggered, and remembers that it has been. So what a gateway was
    killed in the midst of is found and done at the next pass, and what ends before that is free.
    """

    def __init__(self, base: Base, runs: Runs) -> None:
        self._store, self._airflow, self._runs = base.store, base.airflow, runs
        self._triggering: set[str] = set()

    async def waiting(self, wishes: Iterable[Wish]) -> str:
        """Return the first DAG run that wishes for the run which is to begin, and has not ended; empty if none does."""
        for wish in wishes:
            state = await self._airflow.state(wish.dag_id, wish.dag_run_id)
            if state is not None and state not in TERMINAL:
                return wish.dag_run_id
        return ""

    async def begin(self, run: RunRow) -> None:
        """Trigger the DAG run of a run that has been entered; where it cannot be, the run ends.

        Raises
        ------
        FedtasksError
            Why it could not be triggered.
        """
        if run.run_id in self._triggering:
            return
        try:
            await self._trigger(run)
        except FedtasksError as error:
            await asyncio.to_thread(self._runs.cancel, run.run_id, error)
            raise
        await asyncio.to_thread(self._runs.triggered, run.run_id)

    async def begin_late(self, run: RunRow) -> None:
        """Trigger the DAG run of a run whose gateway was killed before it had; one that would not begin ends the run.

        Raises
        ------
        AirflowUnreachable
            Airflow does not answer: it has to be tried again.
        """
        if run.run_id in self._triggering:
            return
        try:
            await self._airflow.require_ready(run.dag_id)
        except PeerError as error:
            await asyncio.to_thread(self._runs.cancel, run.run_id, error)
            return
        await self._trigger(run)
        await asyncio.to_thread(self._runs.triggered, run.run_id)

    async def _trigger(self, run: RunRow) -> None:
        note = f"Started by {run.peer} under ticket {run.ticket_id}"
        conf = {"fedtasks": {"run_id": run.run_id, "pipeline": run.pipeline}}
        self._triggering.add(run.run_id)
        try:
            await self._airflow.trigger(run.dag_id, run.dag_run_id, conf, run.partition, note)
        finally:
            self._triggering.discard(run.run_id)
