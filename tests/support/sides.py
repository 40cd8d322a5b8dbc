"""One side of a run without a gateway process: runs and admission over a real store, with an Airflow in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fedtasks.clock import Clock, now_ms
from fedtasks.errors import FedtasksError
from fedtasks.gateway.admission import Admission
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.base import Base
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.dag_runs import DagRuns
from fedtasks.gateway.ledger import Ledger
from fedtasks.gateway.own_halves import OwnHalves
from fedtasks.gateway.party_file import PartyFile
from fedtasks.gateway.peer_halves import PeerHalves
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.tickets import Tickets
from fedtasks.store import Store
from fedtasks.tickets import load_ticket_key
from fedtasks.wire.v1 import peer_pb2, run_pb2
from tests.support.gateways import PIPELINE, Member, shared_config
from tests.support.runs import STEPS
from tests.support.stores import make_empty_store


@dataclass
class MemoryAirflow:
    """What an admission asks of this party's Airflow; `failure` is what it answers with instead."""

    triggered: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    failure: FedtasksError | None = None

    async def require_ready(self, dag_id: str) -> None:
        """Say that a run of any DAG would start."""
        self._require_no_failure()

    async def trigger(self, dag_id: str, dag_run_id: str, *_: object) -> None:
        """Start a DAG run, once."""
        self._require_no_failure()
        if dag_run_id not in self.states:
            self.triggered.append(dag_run_id)
            self.states[dag_run_id] = "running"

    async def state(self, dag_id: str, dag_run_id: str) -> str | None:
        """Return a DAG run's state, None if there is none."""
        self._require_no_failure()
        return self.states.get(dag_run_id)

    async def set_note(self, *_: str) -> None:
        """Show a note."""

    def page(self, *_: str) -> str:
        """Return a link."""
        return "/page"

    def _require_no_failure(self) -> None:
        if self.failure is not None:
            raise self.failure


@dataclass(frozen=True)
class Side:
    """A party's own view of its runs."""

    store: Store
    runs: Runs
    own_halves: OwnHalves
    peer_halves: PeerHalves
    admission: Admission
    dag_runs: DagRuns
    airflow: MemoryAirflow

    async def start(self, peer: str = "bank", **changes: Any) -> peer_pb2.RunStarted:
        """Let `peer` ask for a run."""
        return await self.admission.start(peer, start_run(**changes))


PEER = SimpleNamespace(clock_skew_s=0.0, is_connected=True, since_ms=0, compared=SimpleNamespace(is_set=lambda: True))
"""A peer's conversation, as far as parts that only touch the store look at it."""


@contextmanager
def side(
    member: Member,
    file: Path,
    clock: Clock = now_ms,
    *,
    connections: Mapping[str, Any] | None = None,
    airflow: MemoryAirflow | None = None,
) -> Iterator[Side]:
    """Put a member's parts together over a store of its own in `file`, which may be there already."""
    party = member.party
    key = load_ticket_key(party.gateway.ticket_key)
    airflow = airflow or MemoryAirflow()
    if not file.exists():
        make_empty_store(file)
    with Store.open(f"sqlite:///{file}", migrate=False, clock=clock) as opened:
        base = Base(
            file=PartyFile(party),
            store=opened,
            tickets=Tickets(party, opened, key, clock),
            airflow=cast("AirflowApi", airflow),
            clock=clock,
            changes=cast("Changes", SimpleNamespace(notify=lambda *_: None)),
            ledger=Ledger(opened, clock),
            connections=connections or {peer.name: PEER for peer in party.peers},
        )
        runs = Runs(base, key)
        dag_runs = DagRuns(base, runs)
        admission = Admission(base, runs, dag_runs)
        yield Side(opened, runs, OwnHalves(base, runs), PeerHalves(base, runs), admission, dag_runs, airflow)


def start_run(**changes: Any) -> peer_pb2.StartRun:
    """Return what the bank asks the shop for."""
    values: dict[str, Any] = {
        "pipeline": PIPELINE,
        "dag_id": PIPELINE,
        "steps": STEPS,
        "partition": "2026-11-21",
        "config_json": shared_config(),
        "number": 1,
        **changes,
    }
    return peer_pb2.StartRun(**values)


def half(task: str = "train", attempt: int = 1, state: int = run_pb2.STATE_WAITING, **changes: Any) -> run_pb2.Half:
    """Return what a peer says of its half of a task."""
    return run_pb2.Half(task=task, attempt=attempt, state=cast("run_pb2.State", state), **changes)


def update(
    run_id: str, version: int, *halves: run_pb2.Half, state: int = run_pb2.STATE_RUNNING, **changes: Any
) -> peer_pb2.RunUpdate:
    """Return what a peer says of its half of a run."""
    given = {"run_id": run_id, "version": version, "tasks": halves, **changes}
    return peer_pb2.RunUpdate(state=cast("run_pb2.State", state), **given)
