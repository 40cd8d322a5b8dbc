from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    GatewayUnreachable,
    PeerUnreachable,
    RunUnknown,
    SecretRejected,
    StoreUnavailable,
    TicketExpired,
)
from fedtasks.link import patience, status
from fedtasks.link.async_client import AsyncGatewayClient
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.link.patience import Patience, backoff
from fedtasks.wire.v1 import run_pb2, worker_pb2, worker_pb2_grpc

SECRET = "a secret for tests"


class Gateway(worker_pb2_grpc.WorkerGatewayServicer):
    """Answers what a test told it to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.refusals: list[FedtasksError] = []
        self.changes = threading.Semaphore(0)
        self.folder = tempfile.TemporaryDirectory(prefix="gateway-")
        self.start()

    @property
    def side(self) -> WorkerSide:
        return WorkerSide(f"unix://{self.folder.name}/workers.sock", SECRET)

    def start(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        worker_pb2_grpc.add_WorkerGatewayServicer_to_server(self, self.server)
        self.server.add_insecure_port(self.side.address.replace("unix://", "unix:"))
        self.server.start()

    def stop(self) -> None:
        self.changes.release(10)
        self.server.stop(None).wait(10)

    def take(self, request: Any, context: grpc.ServicerContext) -> None:
        if dict(context.invocation_metadata())[status.SECRET] != SECRET:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        self.requests.append(request)
        if self.refusals:
            code, details, trailing = status.to_abort(self.refusals.pop(0))
            context.set_trailing_metadata(trailing)
            context.abort(code, details)

    def OpenRun(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.OpenRunResponse(run=run_pb2.Run(run_id="r.1"), opening=worker_pb2.OPENING_STARTED)

    def GetRun(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.GetRunResponse(run=run_pb2.Run(run_id=request.run_id), bytes_sent=7)

    def ListRuns(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id="r.1")])

    def AnnounceTask(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.AnnounceTaskResponse(meeting=run_pb2.Meeting(ready=True))

    def StartTask(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.StartTaskResponse(meeting=run_pb2.Meeting(ready=True))

    def ReportTask(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.ReportTaskResponse()

    def FinishTask(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.FinishTaskResponse(meeting=run_pb2.Meeting(ready=False))

    def CloseRun(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.CloseRunResponse(run=run_pb2.Run(run_id=request.run_id))

    def CancelRun(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.CancelRunResponse(run=run_pb2.Run(run_id=request.run_id))

    def ListPeers(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return worker_pb2.ListPeersResponse(party="bank")

    def WatchTask(self, request: Any, context: Any) -> Iterator[Any]:
        self.take(request, context)
        for attempt in itertools.count(1):
            yield worker_pb2.WatchTaskResponse(meeting=run_pb2.Meeting(own=run_pb2.Half(attempt=attempt)))
            self.changes.acquire()
            if not context.is_active():
                return


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.stop()
    gateway.folder.cleanup()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[GatewayClient]:
    with GatewayClient(gateway.side, patience_s=20) as client:
        yield client


def test_calls_carry_their_arguments(gateway: Gateway, client: GatewayClient) -> None:
    opened = client.open_run(dag_id="d", dag_run_id="m", pipeline="p", steps=[run_pb2.Step(name="psi")], force=True)
    assert (opened.run.run_id, opened.opening) == ("r.1", worker_pb2.OPENING_STARTED)
    assert client.get_run("r.1").bytes_sent == 7
    assert client.list_runs(3).runs[0].run_id == "r.1"
    assert client.announce("r.1", "t", "token", 60.5).ready
    assert client.start("r.1", "t", 2).ready
    assert not client.finish("r.1", "t", 2, outcome={"counts": {"rows": 3}}).ready
    assert client.close_run("r.1").run_id == "r.1"
    assert client.cancel_run("r.1", "why").run_id == "r.1"
    assert client.peers().party == "bank"

    assert gateway.requests == [
        worker_pb2.OpenRunRequest(
            dag_id="d", dag_run_id="m", pipeline="p", steps=[run_pb2.Step(name="psi")], force=True
        ),
        worker_pb2.GetRunRequest(run_id="r.1"),
        worker_pb2.ListRunsRequest(limit=3),
        worker_pb2.AnnounceTaskRequest(run_id="r.1", task="t", token="token", wait_s=60.5),
        worker_pb2.StartTaskRequest(run_id="r.1", task="t", attempt=2),
        worker_pb2.FinishTaskRequest(run_id="r.1", task="t", attempt=2, outcome_json='{"counts": {"rows": 3}}'),
        worker_pb2.CloseRunRequest(run_id="r.1"),
        worker_pb2.CancelRunRequest(run_id="r.1", reason="why"),
        worker_pb2.ListPeersRequest(),
    ]


def test_report_carries_progress_and_metrics(gateway: Gateway, client: GatewayClient) -> None:
    client.report("r.1", "t", 1, progress={"epoch": 2}, step=5, metrics={"loss": 0.5, "auc": 0.7})
    client.report("r.1", "t", 1)

    full, empty = gateway.requests
    assert json.loads(full.progress_json) == {"epoch": 2}
    assert [(m.task, m.name, m.step, m.value) for m in full.metrics] == [("t", "loss", 5, 0.5), ("t", "auc", 5, 0.7)]
    assert all(metric.at_ms > 0 for metric in full.metrics)
    assert empty == worker_pb2.ReportTaskRequest(run_id="r.1", task="t", attempt=1)


def test_progress_that_is_no_json_is_a_config_error(client: GatewayClient) -> None:
    with pytest.raises(ConfigError, match="JSON"):
        client.report("r.1", "t", 1, progress={"loss": float("nan")})


def test_failure_is_told_without_its_detail(gateway: Gateway, client: GatewayClient) -> None:
    client.finish("r.1", "t", 1, failure=ConfigDiffers("row 3 of loans.csv", field="epochs"), final=True)

    (request,) = gateway.requests
    assert request.failure.code == "CONFIG_DIFFERS"
    assert request.failure.text == "The two sides' configurations differ (field=epochs)"
    assert request.final
    assert not request.outcome_json


def test_refusal_is_the_registry_error(gateway: Gateway, client: GatewayClient) -> None:
    gateway.refusals = [TicketExpired(), PeerUnreachable()]

    with pytest.raises(TicketExpired):
        client.open_run(dag_id="d")
    with pytest.raises(PeerUnreachable):
        client.open_run(dag_id="d")
    assert len(gateway.requests) == 2  # neither is tried again by itself


def test_wrong_secret_is_refused_and_not_shown(gateway: Gateway) -> None:
    with GatewayClient(replace(gateway.side, secret="wrong secret")) as client, pytest.raises(SecretRejected) as caught:
        client.peers()
    assert "wrong secret" not in str(caught.value)


def test_call_outlives_a_restart_of_the_gateway(gateway: Gateway, client: GatewayClient) -> None:
    client.peers()
    gateway.stop()
    timer = threading.Timer(0.5, gateway.start)
    timer.start()

    assert client.peers().party == "bank"
    timer.join()


@pytest.mark.parametrize("place", ["workers.sock", "nowhere/workers.sock"])
def test_call_to_no_gateway_gives_up_and_names_the_address(tmp_path: Path, place: str) -> None:
    side = WorkerSide(f"unix://{tmp_path}/{place}", SECRET)
    with GatewayClient(side, patience_s=0.3) as client, pytest.raises(GatewayUnreachable) as caught:
        client.peers()
    assert caught.value.where == side.address


def test_closed_client_calls_nobody(client: GatewayClient) -> None:
    client.close()

    with pytest.raises(GatewayUnreachable, match="closed"):
        client.peers()


def test_watch_yields_changes_and_goes_on_after_a_restart(gateway: Gateway, client: GatewayClient) -> None:
    meetings = client.watch("r.1", "t")
    assert next(meetings).own.attempt == 1
    gateway.changes.release()
    assert next(meetings).own.attempt == 2
    gateway.stop()
    gateway.start()
    seen = next(meetings).own.attempt

    assert seen in (1, 3)  # the new watch begins with the meeting as it is
    meetings.close()  # type: ignore[attr-defined]


def test_watch_of_an_unknown_run_raises(gateway: Gateway, client: GatewayClient) -> None:
    gateway.refusals = [RunUnknown()]

    with pytest.raises(RunUnknown):
        next(client.watch("r.9", "t"))


def test_async_watch_yields_changes_and_goes_on_after_a_restart(gateway: Gateway) -> None:
    async def watch() -> list[int]:
        seen: list[int] = []
        async with AsyncGatewayClient(gateway.side) as client:
            async for meeting in client.watch("r.1", "t"):
                seen.append(meeting.own.attempt)
                if len(seen) == 1:
                    gateway.changes.release()
                elif len(seen) == 2:
                    await asyncio.to_thread(gateway.stop)
                    await asyncio.to_thread(gateway.start)
                else:
                    return seen
        return seen

    assert asyncio.run(watch())[:2] == [1, 2]


def test_async_watch_of_an_unknown_run_raises(gateway: Gateway) -> None:
    gateway.refusals = [RunUnknown()]

    async def watch() -> None:
        async with AsyncGatewayClient(gateway.side) as client:
            async for _ in client.watch("r.9", "t"):
                pass

    with pytest.raises(RunUnknown):
        asyncio.run(watch())


@pytest.mark.parametrize("place", ["workers.sock", "nowhere/workers.sock"])
def test_async_watch_of_no_gateway_gives_up(tmp_path: Path, place: str) -> None:
    async def watch() -> None:
        async with AsyncGatewayClient(WorkerSide(f"unix://{tmp_path}/{place}", SECRET), patience_s=0.3) as client:
            async for _ in client.watch("r.1", "t"):
                pass

    with pytest.raises(GatewayUnreachable):
        asyncio.run(watch())


def test_client_of_a_party_reads_the_secret_from_its_file(gateway: Gateway, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    address = gateway.side.address
    door = SimpleNamespace(workers=address, socket=Path(address.removeprefix("unix://")), worker_secret_file=secret)
    party: Any = SimpleNamespace(gateway=door, store=SimpleNamespace(patience_s=600.0))

    with GatewayClient.of(party) as client:
        assert client.peers().party == "bank"
    secret.chmod(0o644)
    with pytest.raises(ConfigError):
        AsyncGatewayClient.of(party)


def test_call_outlives_an_outage_of_the_store(gateway: Gateway) -> None:
    gateway.refusals = [StoreUnavailable("away") for _ in range(3)]
    with GatewayClient(gateway.side, patience_s=0.01, store_patience_s=20) as client:
        assert client.finish("r.1", "train", 1, outcome={"counts": {}}) == run_pb2.Meeting(ready=False)
    assert len(gateway.requests) == 4
    assert len({request.SerializeToString() for request in gateway.requests}) == 1


def test_watch_outlives_an_outage_of_the_store(gateway: Gateway) -> None:
    async def watch() -> int:
        async with AsyncGatewayClient(gateway.side, patience_s=0.01, store_patience_s=20) as client:
            async for meeting in client.watch("r.1", "t"):
                return int(meeting.own.attempt)
        raise AssertionError

    gateway.refusals = [StoreUnavailable("away") for _ in range(2)]
    assert asyncio.run(watch()) == 1


def test_call_that_is_hurried_does_not_wait_for_the_store(gateway: Gateway) -> None:
    gateway.refusals = [StoreUnavailable("away") for _ in range(9)]
    with GatewayClient(gateway.side, store_patience_s=600) as client, pytest.raises(StoreUnavailable):
        client.report("r.1", "train", 1, metrics={"loss": 1.0}, patience_s=0.05)


class _Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def test_store_is_waited_for_longer_than_a_gateway_and_is_told_of(
    clock: _Clock, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Patience(30, 600)
    for _ in range(110):
        clock.now += 5
        waiting.next_delay(StoreUnavailable("away"))
    assert [record.message.partition(":")[0] for record in caplog.records] == ["waiting up to 600 s for the store"] * 10
    clock.now += 100
    with pytest.raises(StoreUnavailable):
        waiting.next_delay(StoreUnavailable("away"))


def test_gateway_that_restarts_in_an_outage_of_its_store_is_waited_for_anew_but_not_for_ever(clock: _Clock) -> None:
    waiting = Patience(30, 600)
    for number in range(31):
        clock.now += 20
        waiting.next_delay((StoreUnavailable if number % 2 else GatewayUnreachable)("away"))
    clock.now += 20
    with pytest.raises(StoreUnavailable):
        waiting.next_delay(StoreUnavailable("away"))
    with pytest.raises(RunUnknown):
        waiting.next_delay(RunUnknown())


def test_backoff_doubles_up_to_its_limit_with_jitter() -> None:
    delays = list(itertools.islice(backoff(0.1, 2.0), 10))

    for place, delay in enumerate(delays):
        most = min(0.1 * 2**place, 2.0)
        assert most / 2 <= delay <= most
