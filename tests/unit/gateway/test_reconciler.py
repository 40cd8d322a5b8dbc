"""What a gateway looks after unasked: what is active, however much there is beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedtasks.clock import DAY_MS, now_ms
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.notifier import Notifier
from fedtasks.gateway.reconciler import LAST_WORD_MS, Reconciler
from fedtasks.gateway.runs import MEMORY_MS
from fedtasks.store import HalfRow, RunRow, schema
from fedtasks.tickets import load_ticket_key, revoke
from tests.support.gateways import PIPELINE, Member, shared_config, sign_ticket
from tests.support.sides import PEER, Side, side

NEWER = 10_000


@dataclass
class _Airflow:
    """The DAG runs of this party, all of which run unless it is said otherwise."""

    states: dict[str, str | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    cleared: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0

    async def state(self, _dag_id: str, dag_run_id: str) -> str | None:
        self.asked += 1
        return self.states.get(dag_run_id, "running")

    async def set_note(self, _dag_id: str, dag_run_id: str, note: str) -> None:
        self.notes[dag_run_id] = note

    async def changed_by(self, *_: str) -> str:
        return "ann"

    async def is_to_end(self, *_: object) -> bool:
        return False

    async def clear_task(self, run: RunRow, half: str, **_: object) -> None:
        self.cleared.append((run.run_id, half))

    def page(self, *_: str) -> str:
        return "/page"


class House:
    """A party whose store knows one run that goes on and very many newer ones that have ended."""

    def __init__(self, side: Side, grantor: Member, holder: Member) -> None:
        self.side, self.airflow = side, _Airflow()
        self.key = load_ticket_key(grantor.party.gateway.ticket_key)
        self.ticket = replace(sign_ticket(grantor, holder), peer="bank")
        side.store.tickets.put(self.ticket)
        self.run = self.row(0, opened_ms=now_ms() - DAY_MS)
        side.store.runs.add(self.run)

    def row(self, number: int, **changes: Any) -> RunRow:
        name = f"{PIPELINE}.2026-11-21.bank.{number}"
        texts = ("d", shared_config(), "[]", PIPELINE, name)
        row = RunRow(name, PIPELINE, "2026-11-21", number, "bank", False, self.ticket.ticket_id, *texts, opened_ms=1)
        return replace(row, **changes)

    def fill(self, number: int) -> None:
        """Enter newer runs that have ended, all of them at rest."""
        now = now_ms()
        ended = {"state": "succeeded", "at_rest": True, "opened_ms": now - 300_000, "closed_ms": now - 200_000}
        rows = [vars(self.row(each, **ended)) for each in range(1, number + 1)]
        with self.side.store.runs._write() as connection:
            connection.execute(schema.runs.insert(), rows)

    def look(self, passes: int = 1) -> Reconciler:
        """Let the reconciler look after runs."""

        async def work() -> Reconciler:
            base = dataclasses.replace(
                self.side.runs._base,
                airflow=cast("Any", self.airflow),
                changes=Changes(asyncio.get_running_loop()),
            )

            async def flush() -> None: ...

            relay = SimpleNamespace(flush=flush, run_ids=set, attempts=lambda _run: [])
            others = dict.fromkeys(("landings", "preflights", "notifier", "recollections", "dag_runs", "own_halves"))
            others |= {"admission": SimpleNamespace(openings=None)}
            parts = cast("Any", SimpleNamespace(base=base, runs=self.side.runs, relay=relay, **others))
            reconciler = Reconciler(parts)
            for _ in range(passes):
                for watched in reconciler._watched.values():
                    watched.looked_ms = 0
                await reconciler._look_after_runs()
            return reconciler

        return asyncio.run(work())

    def state(self) -> tuple[str, str]:
        row = self.side.runs.run(self.run.run_id)
        return row.state, (row.failure or {}).get("code", "")


@pytest.fixture
def house(members: tuple[Member, Member], tmp_path: Path) -> Iterator[House]:
    bank, shop = members
    with side(shop, tmp_path / "store.db") as made:
        yield House(made, shop, bank)


@pytest.mark.parametrize("what", ["a failure", "a revocation", "a clear"])
def test_run_is_looked_after_however_many_newer_ones_there_are(house: House, what: str) -> None:
    house.fill(NEWER)
    store, run_id = house.side.store, house.run.run_id
    if what == "a failure":
        house.airflow.states[run_id] = "failed"
    elif what == "a revocation":
        revocation = revoke(house.ticket.ticket_id, house.key, time.time(), "no longer")
        store.tickets.put(replace(house.ticket, revocation=revocation))
    else:
        store.halves.put(HalfRow(run_id, "train", True, 1, "succeeded"))
        store.halves.put(HalfRow(run_id, "train", False, 2, "waiting"))
    house.look()
    expected = {"a failure": ("failed", "RUN_FAILED"), "a revocation": ("failed", "TICKET_REVOKED")}
    assert house.state() == expected.get(what, ("running", ""))
    assert house.airflow.cleared == ([(run_id, "train")] if what == "a clear" else [])
    assert house.airflow.asked == 1  # none of the others costs anything


def test_run_is_not_ended_by_airflow_before_the_peer_has_told_what_it_remembers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = asyncio.Event()
    connections = {"bank": SimpleNamespace(**{**vars(PEER), "compared": compared})}
    monkeypatch.setattr(house.side.runs, "_base", dataclasses.replace(house.side.runs._base, connections=connections))
    house.airflow.states[house.run.run_id] = "failed"
    house.look()
    assert house.state() == ("running", "")
    compared.set()
    house.look()
    assert house.state() == ("failed", "RUN_FAILED")


def test_run_of_a_peer_that_stays_away_is_ended_by_airflow_after_a_while(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = {"bank": SimpleNamespace(**{**vars(PEER), "compared": asyncio.Event()})}
    monkeypatch.setattr(house.side.runs, "_base", dataclasses.replace(house.side.runs._base, connections=connections))
    monkeypatch.setattr("fedtasks.gateway.reconciler.COMPARED_MS", -1)
    house.airflow.states[house.run.run_id] = "failed"
    house.look()
    assert house.state() == ("failed", "RUN_FAILED")


def test_reconciler_reads_no_run_that_rests_however_many_there_are(house: House) -> None:
    house.fill(NEWER)
    now = now_ms()
    began = time.perf_counter()
    found = house.side.store.runs.unsettled(now - MEMORY_MS, now - LAST_WORD_MS)
    assert [run.run_id for run in found] == [house.run.run_id]
    assert time.perf_counter() - began < 0.5


def test_run_that_has_ended_is_looked_after_until_its_dag_run_has_too_and_its_note_says_so(house: House) -> None:
    now = now_ms()
    ended = {"state": "failed", "failure": {"code": "X", "text": "", "party": "shop", "task": "", "at_ms": 1}}
    for number, closed_ms, at_rest in ((1, now - 1_000, True), (2, now - MEMORY_MS + 60_000, False), (3, 1, False)):
        house.side.store.runs.add(house.row(number, closed_ms=closed_ms, at_rest=at_rest, **ended))
    found = house.side.store.runs.unsettled(now - MEMORY_MS, now - LAST_WORD_MS)
    assert sorted(run.number for run in found) == [0, 1, 2]


def test_what_is_remembered_of_runs_goes_when_they_are_no_longer_looked_after(house: House) -> None:
    for number in range(1, 6):
        house.side.store.runs.add(house.row(number))
    reconciler = house.look()
    assert len(reconciler._watched) == 6
    with house.side.store.runs._write() as connection:
        connection.execute(schema.runs.update().values(state="succeeded", at_rest=True, closed_ms=1))
    asyncio.run(reconciler._look_after_runs())
    assert reconciler._watched == {}


def test_every_failure_of_the_last_day_is_a_notice_however_many_there_are(house: House) -> None:
    now = now_ms()
    failure = {"code": "DATA_CORRUPT", "text": "", "party": "shop", "task": "train", "at_ms": now}
    for number in range(1, 151):
        house.side.store.runs.add(house.row(number, state="failed", failure=failure, closed_ms=now - number * 1000))
    house.side.store.runs.add(house.row(200, state="failed", failure=failure, closed_ms=now - 2 * DAY_MS))
    notifier = Notifier(dataclasses.replace(house.side.runs._base, airflow=cast("Any", _WithOrigin())))
    assert len(list(notifier._failures())) == 150


class _WithOrigin(_Airflow):
    origin = "https://airflow.example"
