"""The operator renews the lease of its half, and ends it when it stands still or is told that it is stale."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException

from fedtasks.airflow import lease, operators
from fedtasks.airflow.lease import Half
from fedtasks.airflow.operators import CloseRunOperator, FederatedTaskOperator
from fedtasks.errors import AttemptStale, ConfigError, GatewayUnreachable, HalfStalled, PeerStalled, StoreUnavailable
from fedtasks.link.mark import FileMark, Seen
from fedtasks.pipeline.step import Step
from fedtasks.wire.v1 import run_pb2
from tests.support.airflow_fakes import RUN_ID, FakeGateway, execute, make_half, make_meeting
from tests.support.runs import wait_for

MINUTE = 60.0
HALF = Half(
    run_id=RUN_ID, task="train", attempt=1, party="bank", peer="shop", stall_s=30 * MINUTE, mark=Path("/nowhere/mark")
)
UNKNOWN = make_half(1, run_pb2.STATE_RUNNING)
MOVES = make_half(1, run_pb2.STATE_RUNNING, leased=True)
STANDS = make_half(1, run_pb2.STATE_RUNNING, leased=True, quiet_since_ms=1)
WAITS = make_half(1, run_pb2.STATE_RUNNING, leased=True, quiet_since_ms=1, awaits_peer=True)


@pytest.mark.parametrize(
    ("minutes", "awaits_peer", "theirs", "error", "text"),
    [
        (29, False, MOVES, None, ""),
        (30, False, MOVES, HalfStalled, "bank's half of `train` has made no progress for 30 minutes"),
        (29, True, UNKNOWN, None, ""),
        (30, True, UNKNOWN, PeerStalled, "nothing has come from shop's half of `train` for 30 minutes"),
        (600, True, MOVES, None, ""),  # its own side sees it move, and `HELD_S` is the link's
        (30, True, STANDS, None, ""),  # its own side is to end it first, by its name
        (31, True, STANDS, PeerStalled, "since 00:00 UTC it makes no progress"),
        (31, True, WAITS, PeerStalled, "since 00:00 UTC it waits for this one"),
    ],
)
def test_half_that_stands_still_ends_and_names_the_side(
    minutes: float, awaits_peer: bool, theirs: run_pb2.Half, error: type[Exception] | None, text: str
) -> None:
    found = HALF.stalled(Seen(minutes * MINUTE, awaits_peer), theirs)
    assert type(found) is (error or type(None))
    assert text in str(found)
    if found is not None:
        assert found.retryable
        assert f"half={'shop' if error is PeerStalled else 'bank'}" in found.public


@dataclass(frozen=True, kw_only=True)
class Programmed(Step):
    """A step whose command is the test's."""

    program: str

    def command(self, config: Path) -> list[str]:
        return [sys.executable, "-c", self.program]


def programmed(program: str) -> FederatedTaskOperator:
    return FederatedTaskOperator(task_id="train", step=Programmed("train", "test:program", program=program))


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEW_S", "AGAIN_S"):
        monkeypatch.setattr(lease, name, 0.02)


def test_half_that_hangs_is_ended_by_its_operator(
    gateway: FakeGateway, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FederatedTaskOperator._half
    monkeypatch.setattr(FederatedTaskOperator, "_half", lambda *given: replace(made(*given), stall_s=0.3))
    with pytest.raises(AirflowException, match="HALF_STALLED: bank's half of `train`"):
        execute(programmed("import time; time.sleep(600)"), context)
    (finished,) = gateway.finished
    assert isinstance(finished["failure"], HalfStalled)
    assert finished["final"] is False
    assert gateway.renewed
    assert gateway.renewed[-1]["idle_s"] <= 0.3


def test_worker_that_is_told_that_its_attempt_is_stale_ends_its_half(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    gateway.renew_errors = [AttemptStale("attempt 1 is failed")]
    with pytest.raises(AirflowException, match="ATTEMPT_STALE: attempt 1 is failed"):
        execute(programmed("import time; time.sleep(600)"), context)


def test_gateway_or_store_that_is_away_ends_no_half(gateway: FakeGateway, context: dict[str, Any]) -> None:
    gateway.renew_errors = [GatewayUnreachable(), StoreUnavailable(), GatewayUnreachable()]
    wait = "import json, time; time.sleep(0.5); json.dump({'counts': {}}, open('outcome.json', 'w'))"
    assert execute(programmed(wait), context) == {"counts": {}}
    assert len(gateway.renewed) > 3


def test_airflow_that_does_not_answer_lets_no_lease_lapse(
    gateway: FakeGateway, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed_meanwhile: list[int] = []

    class Away:
        """Airflow's task state store, which answers after a long while."""

        def set(self, *_: object) -> None:
            before = len(gateway.renewed)
            deadline = time.monotonic() + 10
            while len(gateway.renewed) < before + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            renewed_meanwhile.append(len(gateway.renewed) - before)

    context["task_state_store"] = Away()
    halves = [make_half(1, run_pb2.STATE_RUNNING, progress_json=f'{{"done": {n}}}') for n in (1, 2)]
    gateway.watched = [make_meeting(own=own) for own in halves]
    wait = "import json, time; time.sleep(0.5); json.dump({'counts': {}}, open('outcome.json', 'w'))"
    assert execute(programmed(wait), context) == {"counts": {}}
    # While the half works, and when its process has ended and what it has shown last is told.
    assert [n >= 3 for n in renewed_meanwhile] == [True, True]


def test_task_of_a_step_holds_a_lease_and_what_only_waits_holds_none(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    execute(programmed("open('outcome.json', 'w').write('{}')"), context)
    gateway.settle = run_pb2.STATE_SUCCEEDED
    execute(CloseRunOperator(task_id="close_run"), context)
    assert gateway.leased == [True, False]


def test_step_has_the_stall_limit_of_the_party_unless_it_has_its_own(
    gateway: FakeGateway, context: dict[str, Any], party_file: Path, tmp_path: Path
) -> None:
    hook = operators.FedtasksHook()
    step = Step("train", "module:train")
    limits = [
        FederatedTaskOperator(task_id="train", step=each)._half(hook, gateway.meeting, tmp_path).stall_s
        for each in (step, step.with_stall(7200))
    ]
    assert limits == [1800, 7200]
    assert step.with_stall(7200) == step  # the two sides may differ
    assert step.with_stall(7200).digest == step.digest
    with pytest.raises(ConfigError, match="stall_s"):
        step.with_stall(1)


def test_mark_of_the_half_is_what_is_renewed(gateway: FakeGateway, tmp_path: Path) -> None:
    half = replace(HALF, mark=tmp_path / "mark")
    with closing(FileMark(half.mark)) as mark, lease.Lease(tmp_path, half, UNKNOWN):
        wait_for(lambda: len(gateway.renewed) > 1)
        mark.wait()
        wait_for(lambda: gateway.renewed[-1]["awaits_peer"])
    assert gateway.renewed[0]["attempt"] == 1
    assert not gateway.renewed[0]["awaits_peer"]
