"""Workers as processes of their own, killed or stopped: both sides know why within moments; a late one is stale."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from fedtasks.gateway import leases, reconciler
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import meet, open_run, wait_for, wait_for_state

TASK = "train"
LOST_S = 3.0

WORKER = """
import asyncio, sys
from pathlib import Path
from fedtasks.airflow import lease
from fedtasks.wire.v1 import run_pb2

party_file, run_id = Path(sys.argv[1]), sys.argv[2]
lease.RENEW_S = lease.AGAIN_S = 0.2
half = lease.Half(run_id=run_id, task="train", attempt=1, party="a", peer="b", stall_s=1800, mark=party_file / "none")
print("up", flush=True)
with lease.Lease(party_file, half, run_pb2.Half()) as held:
    print(asyncio.run(held.verdict()), flush=True)
"""

Start = Callable[[Member, str], "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOST_S", LOST_S)
    monkeypatch.setattr(reconciler, "PASS_S", 0.2)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts workers that renew the lease of a half of attempt 1, as operators do."""
    started: list[subprocess.Popen[str]] = []

    def begin(member: Member, run_id: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", WORKER, str(member.folder / "party.yaml"), run_id]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_id(running: Pair) -> str:
    """A run that both sides have opened."""
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        found: str = open_run(bank).run.run_id
        running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, found, config_json="", peer="", partition="")
    return found


def work(running: Pair, run_id: str, start: Start) -> subprocess.Popen[str]:
    """Let both halves meet, the shop's under a lease that a process renews, which is returned."""
    with running.bank.client() as bank, running.shop.client() as shop:
        meet([bank, shop], run_id)
        worker = start(running.shop, run_id)
        shop.start(run_id, TASK, 1, leased=True)
    return worker


def state_at(client: GatewayClient, run_id: str, *, own: bool) -> tuple[int, str]:
    """Return how the shop's half stands by one side's account, and why it failed."""
    answer = client.get_run(run_id=run_id)
    (half,) = [half for half in (answer.own if own else answer.peer) if half.task == TASK]
    return half.state, half.failure.code


LOST = (run_pb2.STATE_FAILED, "WORKER_LOST")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_is_killed_or_stopped_is_named_to_both_sides_and_late_it_is_stale(
    running: Pair, run_id: str, start: Start, how: signal.Signals
) -> None:
    worker = work(running, run_id, start)
    with running.bank.client() as bank, running.shop.client() as shop:
        worker.send_signal(how)
        wait_for(lambda: state_at(bank, run_id, own=False) == LOST)
        assert state_at(shop, run_id, own=True) == LOST
        assert bank.get_run(run_id=run_id).run.state == run_pb2.STATE_RUNNING
        if how == signal.SIGSTOP:
            worker.send_signal(signal.SIGCONT)
            assert worker.stdout is not None
            assert "ATTEMPT_STALE" in worker.stdout.readline()
        # Both sides meet again as after any other failure.
        for client in (bank, shop):
            client.announce(run_id, TASK, "2", 60)
        wait_for(lambda: bank.announce(run_id, TASK, "2", 60).ready)
        assert bank.announce(run_id, TASK, "2", 60).own.attempt == 2


def test_gateway_that_restarts_ends_no_half_whose_worker_is_there(running: Pair, run_id: str, start: Start) -> None:
    worker = work(running, run_id, start)
    running.shop.stop()
    time.sleep(LOST_S + 0.5)
    running.shop.start()
    with running.shop.client() as shop:
        time.sleep(LOST_S + 0.5)
        assert state_at(shop, run_id, own=True) == (run_pb2.STATE_RUNNING, "")
        worker.send_signal(signal.SIGKILL)
        wait_for(lambda: state_at(shop, run_id, own=True) == LOST)


def test_run_whose_worker_was_lost_for_good_ends_with_that_on_both_sides(
    running: Pair, run_id: str, start: Start
) -> None:
    worker = work(running, run_id, start)
    worker.send_signal(signal.SIGKILL)
    with running.bank.client() as bank, running.shop.client() as shop:
        wait_for(lambda: state_at(shop, run_id, own=True) == LOST)
        running.shop.airflow.runs[PIPELINE, run_id] = {"state": "failed"}
        failed = wait_for_state(shop, run_id, run_pb2.STATE_FAILED).failure
        assert (failed.code, failed.party) == ("WORKER_LOST", "shop")
        failed = wait_for_state(bank, run_id, run_pb2.STATE_FAILED).failure
        assert (failed.code, failed.party) == ("PEER_FAILED", "shop")
        assert failed.text == "WORKER_LOST: The worker of a half is gone (half=shop)"
