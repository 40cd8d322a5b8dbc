"""A run that waits for data: the real task on both sides, through two real gateways, over real partitions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from fedtasks.airflow import landing, operators
from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.landing import AwaitDataOperator
from fedtasks.data import partitions
from fedtasks.errors import StorageUnavailable
from fedtasks.names import DATA
from fedtasks.pipeline.catalogue import join
from fedtasks.pipeline.step import Step
from fedtasks.reports.status import sentence, status_of
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import Member, Pair, grant_ticket, shared_config
from tests.support.runs import open_run, wait_for

DAY, HOUR = "2026-11-21", "2026-11-21T05"
NEEDED_S = int(datetime(2026, 11, 21, 6, 10, tzinfo=UTC).timestamp())
"""An hour is complete once a log has a row that is later than its end by the lateness."""
JOIN = [join("clicks", lateness_s=600)]


@pytest.fixture
def opened(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> tuple[Pair, str]:
    """Both parties keep their data by day, and a run of one day is open."""
    start_with(pair, monkeypatch, "uri: 'data/{partition}'")
    with pair.bank.client() as client:
        return pair, open_run(client, partition=DAY).run.run_id


@pytest.fixture
def streaming(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> tuple[Pair, str]:
    """Both parties keep logs, and a run that joins an hour of them is open."""
    start_with(pair, monkeypatch, "uri: data\n    settle_s: 0\n    event_time: {column: at, unit: s}")
    return pair, open_join(pair)


def open_join(pair: Pair, partition: str = HOUR, **settings: object) -> str:
    """Open a run that joins both logs; return its id."""
    shared = json.loads(shared_config())
    shared["steps"] = {"join": {"stream": "clicks", "lateness_s": 600, **settings}}
    steps = [run_pb2.Step(name="join", digest="a", kind="join")]
    with pair.bank.client() as client:
        answer = open_run(client, partition, partition=partition, config_json=json.dumps(shared), steps=steps)
        return str(answer.run.run_id)


def start_with(pair: Pair, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """Start both gateways with datasets of another sort."""
    members = {member.name: member for member in (pair.bank, pair.shop)}
    for member in members.values():
        file = member.folder / "party.yaml"
        file.write_text(file.read_text().replace("uri: data.parquet", uri))
        (member.folder / "data").mkdir()
        member.start()

    def connection(conn_id: str) -> Any:
        return SimpleNamespace(extra_dejson={"party": str(members[conn_id].folder / "party.yaml")})

    monkeypatch.setattr(FedtasksHook, "get_connection", staticmethod(connection))
    monkeypatch.setattr(operators, "not_before_ms", lambda: 0)
    monkeypatch.setattr(operators, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(landing, "_LOOK_EVERY_S", 0.2)
    grant_ticket(pair.shop, pair.bank)


def work(member: Member, run_id: str, wait_s: float, steps: Sequence[Step] = ()) -> None:
    """Run one side's task as Airflow does: again and again from where it has deferred."""
    ti = SimpleNamespace(
        id=f"{member.name}-1", try_number=1, max_tries=0, xcom_pull=lambda task_ids: {"run_id": run_id}
    )
    wait = timedelta(seconds=wait_s)
    operator = AwaitDataOperator(task_id=DATA, wait=wait, steps=steps, fedtasks_conn_id=member.name)
    operator.allow_nested_operators = True
    context: Any = {"ti": ti, "params": {}}

    def step() -> Any:
        return operator.execute(context)

    while True:
        try:
            step()
            return
        except TaskDeferred as deferred:
            method, kwargs = deferred.method_name, deferred.kwargs or {}
            event = asyncio.run(first_event(deferred.trigger))

            def step(method: str = method, kwargs: Any = kwargs, event: Any = event) -> Any:
                return operator.resume_execution(method, {**kwargs, "event": event}, context)


async def first_event(trigger: Any) -> str:
    path, arguments = trigger.serialize()
    assert path.endswith(type(trigger).__name__)
    async for event in type(trigger)(**arguments).run():
        return str(event.payload)
    raise AssertionError("the trigger ended without an event")


def start(
    pair: Pair, run_id: str, pool: ThreadPoolExecutor, wait_s: float = 60.0, steps: Sequence[Step] = ()
) -> list[Future[None]]:
    return [pool.submit(work, member, run_id, wait_s, steps) for member in (pair.bank, pair.shop)]


def land(member: Member) -> int:
    dataset = member.party.datasets[0]
    folder = member.folder / "data" / DAY
    folder.mkdir(parents=True)
    pd.DataFrame({"customer": ["c1", "c2"], "a": [1.0, 2.0]}).to_parquet(folder / "part.parquet")
    return partitions.land(dataset, DAY)


def said(member: Member, run_id: str) -> str:
    """Return the sentence on this side's page."""
    with member.store() as store:
        run = store.runs.get(run_id)
        assert run is not None
        own, peer = store.halves.list(run_id, own=True), store.halves.list(run_id, own=False)
    return sentence(status_of(run, own, peer, party=member.name))


def test_run_whose_data_is_there_goes_on_at_once(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    assert (land(pair.bank), land(pair.shop)) == (2, 2)
    with ThreadPoolExecutor(2) as pool:
        for future in start(pair, run_id, pool):
            future.result(30)


def test_run_whose_data_is_late_says_on_both_sides_for_whom_it_waits(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    land(pair.bank)
    with ThreadPoolExecutor(2) as pool:
        futures = start(pair, run_id, pool)
        for member in (pair.bank, pair.shop):
            wait_for(
                lambda member=member: "⏳ Waiting for shop · data · 2026-11-21 has not landed" in said(member, run_id)
            )
        assert not any(future.done() for future in futures)
        land(pair.shop)
        for future in futures:
            future.result(30)


def test_run_whose_data_never_comes_fails_on_both_sides_with_that_reason(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    land(pair.bank)
    with ThreadPoolExecutor(2) as pool:
        bank, shop = start(pair, run_id, pool, wait_s=2.0)
        with pytest.raises(AirflowFailException, match="DATA_NOT_LANDED"):
            shop.result(60)
        with pytest.raises(AirflowFailException, match="DATA_NOT_LANDED"):
            bank.result(60)
    for member in (pair.bank, pair.shop):
        wait_for(lambda member=member: "DATA_NOT_LANDED" in said(member, run_id))


def test_store_that_is_away_while_a_run_waits_is_waited_for_too(
    opened: tuple[Pair, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, run_id = opened
    assert (land(pair.bank), land(pair.shop)) == (2, 2)
    away, has_landed = [3], partitions.has_landed

    def sometimes(dataset: Any, partition: str) -> bool:
        if away[0]:
            away[0] -= 1
            raise StorageUnavailable("127.0.0.1:9870 answered 503", where="webhdfs://127.0.0.1:9870/loans")
        return has_landed(dataset, partition)

    monkeypatch.setattr(partitions, "has_landed", sometimes)
    with ThreadPoolExecutor(2) as pool:
        for future in start(pair, run_id, pool):
            future.result(60)
    assert away == [0]


def test_store_that_stays_away_is_the_reason_and_not_the_data(
    opened: tuple[Pair, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, run_id = opened

    def never(dataset: Any, partition: str) -> bool:
        raise StorageUnavailable("127.0.0.1:9870 answered 503", where="webhdfs://127.0.0.1:9870/loans")

    monkeypatch.setattr(partitions, "has_landed", never)
    with ThreadPoolExecutor(2) as pool:
        bank, shop = start(pair, run_id, pool, wait_s=1.0)
        for future in (bank, shop):
            with pytest.raises(AirflowException, match="STORAGE_UNAVAILABLE"):
                future.result(60)


# ----------------------------------------------------------------------------------------------------------- streams
def log(member: Member, *times: int) -> None:
    """Let a party's log grow by a file of events at these times."""
    folder = member.folder / "data"
    number = len(list(folder.iterdir()))
    rows = {"customer": [f"c{time}" for time in times], "at": list(times), "a": [1.0] * len(times)}
    partial = folder / ".part"
    pd.DataFrame(rows).to_parquet(partial)
    partial.rename(folder / f"part-{number:05d}.parquet")


def test_run_of_an_hour_goes_on_once_no_row_of_it_may_still_come(streaming: tuple[Pair, str]) -> None:
    pair, run_id = streaming
    log(pair.bank, NEEDED_S, NEEDED_S - 3600)
    log(pair.shop, NEEDED_S - 1)  # a row of the hour could be later than this one, and in time
    with ThreadPoolExecutor(2) as pool:
        futures = start(pair, run_id, pool, steps=JOIN)
        for member in (pair.bank, pair.shop):
            wait_for(lambda member=member: "⏳ Waiting for shop · data" in said(member, run_id))
        assert not any(future.done() for future in futures)
        log(pair.shop, NEEDED_S)
        for future in futures:
            future.result(30)


def test_run_of_an_hour_that_a_log_never_reaches_fails_on_both_sides_with_that_reason(
    streaming: tuple[Pair, str],
) -> None:
    pair, run_id = streaming
    log(pair.bank, NEEDED_S)
    log(pair.shop, NEEDED_S - 1)
    with ThreadPoolExecutor(2) as pool:
        bank, shop = start(pair, run_id, pool, wait_s=2.0, steps=JOIN)
        with pytest.raises(AirflowFailException, match="newest event is of 2026-11-21 06:09:59 UTC"):
            shop.result(60)
        with pytest.raises(AirflowFailException, match="DATA_STREAM_BEHIND"):
            bank.result(60)


@pytest.mark.parametrize(("partition", "settings"), [("2026-11-21T07", {"final": True}), ("week-47", {})])
def test_logs_that_have_ended_or_a_run_about_no_hour_wait_for_nothing(
    streaming: tuple[Pair, str], partition: str, settings: dict[str, object]
) -> None:
    pair, _ = streaming
    run_id = open_join(pair, partition, **settings)
    with ThreadPoolExecutor(2) as pool:
        for future in start(pair, run_id, pool, steps=JOIN):
            future.result(30)


def test_file_that_has_changed_is_the_reason_and_not_the_data(streaming: tuple[Pair, str]) -> None:
    pair, run_id = streaming
    log(pair.bank, NEEDED_S)
    log(pair.shop, NEEDED_S - 1)
    with ThreadPoolExecutor(2) as pool:
        _, shop = start(pair, run_id, pool, steps=JOIN)
        wait_for(lambda: "⏳ Waiting for shop · data" in said(pair.shop, run_id))
        (file,) = (pair.shop.folder / "data").iterdir()
        pd.DataFrame({"customer": ["x"], "at": [NEEDED_S], "a": [1.0]}).to_parquet(file)
        with pytest.raises(AirflowException, match="STREAM_FILE_CHANGED"):
            shop.result(60)
