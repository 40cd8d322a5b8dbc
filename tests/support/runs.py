"""Runs between two gateways of a test: opened, met, awaited."""

from __future__ import annotations

import time

from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import run_pb2, worker_pb2
from tests.support.gateways import PIPELINE, shared_config

STEPS = [
    run_pb2.Step(name="psi", digest="a", kind="psi"),
    run_pb2.Step(name="train", digest="b", kind="split_nn"),
]
PUBLISHED = [*STEPS, run_pb2.Step(name="publish", digest="d")]
TREES = [STEPS[0], run_pb2.Step(name="train", digest="b", kind="secureboost")]
PREDICT = [*STEPS, run_pb2.Step(name="predict", digest="c", kind="predict")]


def open_run(client: GatewayClient, dag_run_id: str = "manual-1", **changes: object) -> worker_pb2.OpenRunResponse:
    values = {
        "dag_id": PIPELINE,
        "dag_run_id": dag_run_id,
        "pipeline": PIPELINE,
        "steps": STEPS,
        "partition": "2026-11-21",
        "config_json": shared_config(),
        "peer": "shop",
        **changes,
    }
    return client.open_run(**values)


def meet(clients: list[GatewayClient], run_id: str, task: str = "train", token: str = "1") -> int:
    """Announce and start both halves; return the attempt they meet at."""
    for client in clients:
        client.announce(run_id, task, token, 60)
    for client in clients:
        wait_for(lambda client=client: client.announce(run_id, task, token, 60).ready)  # type: ignore[misc]
    attempts = {client.announce(run_id, task, token, 60).own.attempt for client in clients}
    assert len(attempts) == 1
    attempt = attempts.pop()
    for client in clients:
        client.start(run_id, task, attempt)
    return attempt


def wait_for_state(client: GatewayClient, run_id: str, state: run_pb2.State) -> run_pb2.Run:
    wait_for(lambda: client.get_run(run_id=run_id).run.state == state)
    return client.get_run(run_id=run_id).run


def wait_for(condition: object, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
