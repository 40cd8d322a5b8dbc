"""Looks at a run from both sides while faults happen: how far it has come, whether it has ended, who sees whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from fedtasks.errors import FedtasksError
from fedtasks.laptop.party import LocalParty
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import run_pb2
from tests.support.chaos_world import ChaosWorld

_ENDED = ("success", "failed")
_LOOK_S, _LOOK_AT_AIRFLOW_S = 0.3, 1.5
_PATIENCE_S = 1.0
_MOVES = (run_pb2.STATE_RUNNING, run_pb2.STATE_SUCCEEDED)


@dataclass
class Seen:
    """What one side has shown.

    Parameters
    ----------
    marks
        Every step forward that a half has made → when it was seen first.
    alone
        When the gateway said that its peer is not connected.
    dag_run
        The state of the DAG run, empty before there is one.
    """

    marks: dict[tuple[Any, ...], float] = field(default_factory=dict)
    alone: list[float] = field(default_factory=list)
    dag_run: str = ""


class Watch:
    """Looks at both sides of a run, each from a thread of its own, so that one that hangs hides nothing.

    Parameters
    ----------
    world
        The parties.
    pipeline, run_id, initiator, dag_run_id
        Which run, and the DAG run that has asked for it.
    """

    def __init__(self, world: ChaosWorld, pipeline: str, run_id: str, initiator: str, dag_run_id: str) -> None:
        self._over = threading.Event()
        self._pipeline, self._run_id, self._initiator = pipeline, run_id, initiator
        self.seen = {name: Seen() for name in world.parties}
        self._threads = []
        for name, party in world.parties.items():
            dag_run = dag_run_id if name == initiator else run_id
            for look, every_s in (
                (self._look_at_gateway, _LOOK_S),
                (lambda *known, dag_run=dag_run: self._look_at_airflow(*known, dag_run), _LOOK_AT_AIRFLOW_S),
            ):
                thread = threading.Thread(target=self._go_on, args=(look, every_s, party, self.seen[name]), daemon=True)
                self._threads.append(thread)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    # ------------------------------------------------------------------------------------------------ what was seen
    def is_over(self) -> bool:
        """Whether both DAG runs have ended, or that of the initiator has before there was another."""
        states = {name: seen.dag_run for name, seen in self.seen.items()}
        if states[self._initiator] == "failed" and "" in states.values():
            return True
        return all(state in _ENDED for state in states.values())

    def succeeded(self) -> bool:
        """Whether both DAG runs have ended well."""
        return all(seen.dag_run == "success" for seen in self.seen.values())

    def detected_s(self, since_s: float, until_s: float) -> float:
        """Return after how long either side said that the other is not connected; until the end if neither did."""
        said = [when for seen in self.seen.values() for when in seen.alone if since_s <= when <= until_s]
        return min(said, default=until_s) - since_s

    def resumed_s(self, since_s: float) -> float | None:
        """Return after how long a half has moved again, None if none has."""
        moved = [when for seen in self.seen.values() for when in seen.marks.values() if when >= since_s]
        return min(moved) - since_s if moved else None

    # ------------------------------------------------------------------------------------------------------- looking
    def _go_on(self, look: Callable[[LocalParty, Seen], None], every_s: float, party: LocalParty, seen: Seen) -> None:
        while not self._over.is_set():
            # Whatever was disturbed does not answer, or not as it should.
            with suppress(FedtasksError):
                look(party, seen)
            self._over.wait(every_s)

    def _look_at_gateway(self, party: LocalParty, seen: Seen) -> None:
        with GatewayClient.of(party.party(), patience_s=_PATIENCE_S) as client:
            while not self._over.is_set():
                if any(not peer.connected for peer in client.peers().peers):
                    seen.alone.append(time.monotonic())
                with suppress(FedtasksError):  # its store is away, or it does not know the run yet
                    for half in client.get_run(run_id=self._run_id).own:
                        if half.state in _MOVES:
                            mark = (half.task, half.attempt, half.state, half.progress_json)
                            seen.marks.setdefault(mark, time.monotonic())
                self._over.wait(_LOOK_S)

    def _look_at_airflow(self, party: LocalParty, seen: Seen, dag_run_id: str) -> None:
        for run in party.dag_runs(self._pipeline):
            if run["dag_run_id"] == dag_run_id:
                seen.dag_run = str(run["state"])
                if seen.dag_run in _ENDED:
                    seen.marks.setdefault(("dag run", seen.dag_run), time.monotonic())
