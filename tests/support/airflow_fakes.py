"""A gateway in memory, as operators see it, and the part of Airflow's context that they look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow
from fedtasks.errors import FedtasksError
from fedtasks.wire.v1 import failure_pb2, run_pb2, worker_pb2

RUN_ID = "credit.2026-11-21.1"
BOUNDS = {"limits.epochs": 9}


SHARED = {"leader": "bank", "datasets": {"bank": "loans", "shop": "baskets"}, "steps": {"train": {"epochs": 3}}}

FORM: Mapping[str, Any] = {
    "peer": "shop",
    "ticket": "auto",
    "partition": None,
    "reason": None,
    "own_dataset": "loans",
    "peer_dataset": "baskets",
    "leader": "own",
    "force": False,
    "train": {},
}
"""The trigger form as a person has filled it."""

PARTY = """
name: bank
storage: file:///storage
gateway:
  certificate: keys/tls.crt
  private_key: keys/tls.key
  authority: keys/ca.crt
  ticket_key: keys/ticket.key
  worker_secret_file: keys/worker.secret
airflow:
  url: http://127.0.0.1:1
  user: admin
  password_file: keys/airflow.password
peers:
  - name: shop
    authority: keys/shop.crt
    ticket_key: AAAA
datasets:
  - name: loans
    uri: loans.parquet
    id: customer
    features: {income: numeric}
    label: repaid
    label_positive: "yes"
  - name: addresses
    uri: addresses.parquet
    id: customer
    features: {town: categorical}
"""


def make_run(state: run_pb2.State = run_pb2.STATE_RUNNING, code: str = "", **fields: Any) -> run_pb2.Run:
    failure = failure_pb2.Failure(code=code, text="a reason", party="shop", task="train") if code else None
    values = {
        "run_id": RUN_ID,
        "initiator": "bank",
        "responder": "shop",
        "partition": "2026-11-21",
        "config_json": json.dumps(SHARED),
        **fields,
    }
    return run_pb2.Run(state=state, failure=failure, **values)


def make_half(attempt: int, state: run_pb2.State, code: str = "", **fields: Any) -> run_pb2.Half:
    failure = failure_pb2.Failure(code=code, text="a reason", party="shop", task="train") if code else None
    return run_pb2.Half(task="train", attempt=attempt, state=state, failure=failure, **fields)


def make_meeting(
    *,
    ready: bool = False,
    run: run_pb2.Run | None = None,
    own: run_pb2.Half | None = None,
    peer: run_pb2.Half | None = None,
) -> run_pb2.Meeting:
    own = own or make_half(1, run_pb2.STATE_WAITING, until_ms=4_000_000_000_000)
    return run_pb2.Meeting(run=run or make_run(), own=own, peer=peer, ready=ready)


@dataclass
class FakeGateway:
    """Stands for the gateway and its client: answers what a test put in, and remembers what it was asked."""

    meeting: run_pb2.Meeting = field(default_factory=lambda: make_meeting(ready=True))
    run: run_pb2.Run = field(default_factory=make_run)
    opening: worker_pb2.Opening = worker_pb2.OPENING_STARTED
    watched: list[run_pb2.Meeting] = field(default_factory=list)
    watch_error: FedtasksError | None = None
    refusal: FedtasksError | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    went_on: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    leased: list[bool] = field(default_factory=list)
    renewed: list[dict[str, Any]] = field(default_factory=list)
    renew_errors: list[FedtasksError] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)
    decided: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    settle: run_pb2.State | None = None
    """What becomes of the run once it is closed here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def get_model(self, model: str, version: int) -> worker_pb2.GetModelResponse:
        return worker_pb2.GetModelResponse()

    def open_run(self, **fields: Any) -> worker_pb2.OpenRunResponse:
        self._refuse()
        self.opened = fields
        return worker_pb2.OpenRunResponse(run=self.run, opening=self.opening)

    def get_run(self, run_id: str) -> worker_pb2.GetRunResponse:
        assert run_id == self.run.run_id
        metrics = [
            run_pb2.Metric(task="train", name="loss", step=2, value=0.25),
            run_pb2.Metric(task="train", name="loss", step=1, value=0.5),
        ]
        own = [make_half(1, run_pb2.STATE_SUCCEEDED, outcome_json='{"counts": {"rows": 3}}')]
        return worker_pb2.GetRunResponse(run=self.run, own=own, metrics=metrics, bytes_sent=7, bytes_received=9)

    def announce(self, run_id: str, task: str, token: str, wait_s: float, *, renewed: bool = False) -> run_pb2.Meeting:
        self._refuse()
        assert run_id == RUN_ID
        self.tokens.append(token)
        self.went_on += [token] * renewed
        self.waits_s.append(wait_s)
        return self.meeting

    def start(self, run_id: str, task: str, attempt: int, *, leased: bool) -> run_pb2.Meeting:
        self.started.append(attempt)
        self.leased.append(leased)
        meeting = run_pb2.Meeting()
        meeting.CopyFrom(self.meeting)
        meeting.own.attempt = attempt
        meeting.bounds_json = json.dumps(BOUNDS)
        return meeting

    def finish(self, run_id: str, task: str, attempt: int, **how: Any) -> run_pb2.Meeting:
        self.finished.append({"task": task, "attempt": attempt, **how})
        return self.meeting

    def decide_approval(self, run_id: str, **answer: Any) -> None:
        self.decided.append(answer)

    def close_run(self, run_id: str) -> run_pb2.Run:
        self.closed = True
        if self.settle is not None:
            code = "RECEIPTS_DIFFER" if self.settle == run_pb2.STATE_FAILED else ""
            self.run = make_run(self.settle, code)
            self.watched = [make_meeting(), make_meeting(run=self.run)]
        return self.run

    def renew(self, run_id: str, task: str, attempt: int, **how: Any) -> None:
        self.renewed.append({"attempt": attempt, **how})
        if self.renew_errors:
            raise self.renew_errors.pop(0)

    async def watch(self, party_file: Path, run_id: str, task: str) -> AsyncGenerator[run_pb2.Meeting, None]:
        for meeting in self.watched:
            yield meeting
        if self.watch_error is not None:
            raise self.watch_error
        await asyncio.Event().wait()


@dataclass
class FakeStore:
    """Airflow's task state store."""

    values: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value


def execute(operator: Any, context: dict[str, Any]) -> Any:
    """Run as Airflow's task runner does."""
    operator.allow_nested_operators = True
    return operator.execute(context)
