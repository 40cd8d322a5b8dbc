"""How long the pages wait for their answers, with ten thousand runs in the store.

Airflow's own application answers in this process, rights and compression included; the store is SQLite, then
PostgreSQL. Run it with ``make bench-pages RUNS=100000``; the last line is one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sqlalchemy import Engine

from fedtasks.clock import now_ms
from fedtasks.store import Store, schema
from fedtasks.store import engine as database
from tests.support.airflow_application import airflow_application, sign_in  # first: it gives Airflow its home
from tests.support.gateways import PIPELINE, grant_ticket, make_members, set_address
from tests.support.pages import make_run
from tests.support.postgres import PostgresServer

RUNS = int(os.environ.get("RUNS", "10000"))
REPEATS = 15
GOAL_MS = 300
TASKS = ("psi.prepare", "psi.send[0]", "psi.send[1]", "psi.publish", "align", "train", "evaluate")
STEPS = 200
LAST = f"{PIPELINE}.2026-11-21.{RUNS}"

DAG_RUN = {"dag_id": PIPELINE, "dag_run_id": f"manual-{RUNS}"}
PAGES: dict[str, dict[str, Any]] = {
    "overview": {},
    "runs": {},
    "runs, one DAG's, in the middle": {"dag_id": PIPELINE, "before": f"{PIPELINE}.2026-11-21.{RUNS // 2}"},
    "run": DAG_RUN,
    "run/metrics": DAG_RUN,
    "task": {**DAG_RUN, "task_id": "train"},
    "results": DAG_RUN,
    "compare": {"dag_id": PIPELINE},
    "tickets": {},
    "data": {},
    "models": {},
    "peers": {},
    "audit": {},
}


Times = dict[str, list[tuple[float, float]]]
"""Of each page, how long every answer took and how long this process worked for it, in ms."""


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fill(store: Store, engine: Engine, ticket_id: str) -> None:
    """Enter the runs as years of work would have left them, all but the last few ended."""
    now, ended = now_ms(), RUNS - 5
    numbers = range(1, RUNS + 1)
    runs = [
        vars(
            make_run(
                number,
                ticket_id=ticket_id,
                state="succeeded" if number < ended else "running",
                opened_ms=now - (RUNS - number) * 60_000,
                closed_ms=now if number < ended else None,
            )
        )
        for number in numbers
    ]
    ids = [run["run_id"] for run in runs]
    half = {"attempt": 1, "state": "succeeded", "token": "", "since_ms": now, "until_ms": 0, "outcome": {"counts": {}}}
    halves = [
        {**half, "run_id": run, "task": task, "own": own} for run in ids for task in TASKS for own in (True, False)
    ]
    sent = {"task": "psi", "attempt": 1, "messages": 4, "items": 0, "bytes": 1000}
    disclosures = [{**sent, "run_id": run, "name": name} for run in ids for name in ("blinded", "common", "key")]
    uses = [{"ticket_id": ticket_id, "run_id": run, "kind": "runs", "amount": 1, "at_ms": now} for run in ids]
    curve = [*((run, 1) for run in ids), *((run, step) for run in ids[-60:] for step in range(2, STEPS))]
    metrics = [
        {"run_id": run, "task": task, "name": name, "step": step, "value": 1 / step, "at_ms": now}
        for run, step in curve
        for task, name in (("train", "loss"), ("evaluate", "auc"))
    ]
    with engine.execution_options(writes=True).begin() as connection:
        for table, rows in (
            (schema.runs, runs),
            (schema.halves, halves),
            (schema.disclosures, disclosures),
            (schema.uses, uses),
            (schema.metrics, metrics),
        ):
            connection.execute(table.insert(), rows)
    engine.dispose()
    for number in range(300):
        store.audit.add("bank", "run.open", "noted", number=number)


@contextmanager
def party(folder: Path, store: Mapping[str, str] | None) -> Iterator[Path]:
    """Lay a party out whose store is full."""
    bank, shop, listen = make_members(folder)
    set_address(shop, listen)
    file = bank.folder / "party.yaml"
    if store is not None:
        file.write_text(f"{file.read_text()}\nstore: {json.dumps(store)}\n")
    try:
        ticket_id = grant_ticket(shop, bank)
        with bank.store() as opened:
            fill(opened, database.connect(bank.party.store.url, bank.party.store.password_file), ticket_id)
        yield file
    finally:
        bank.close()
        shop.close()


def measure(client: Any, headers: dict[str, str]) -> Times:
    """Ask every page's route; the first answer, which opens the store, does not count."""
    found: Times = {}
    for name, params in PAGES.items():
        for repeat in range(REPEATS + 1):
            start, worked = time.perf_counter(), time.process_time()
            answer = client.get(f"/fedtasks/api/{name.partition(',')[0]}", params=params, headers=headers)
            times = time.perf_counter() - start, time.process_time() - worked
            answer.raise_for_status()
            if repeat:
                found.setdefault(name, []).append((times[0] * 1000, times[1] * 1000))
    return found


def bench(kind: str, store: Mapping[str, str] | None = None) -> Times:
    """Measure over one kind of store."""
    from starlette.testclient import TestClient

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log(f"entering {RUNS:,} runs into {kind} …")
        with party(folder / "parties", store) as file:
            os.environ["FEDTASKS_PARTY"] = str(file)
            with airflow_application(folder, PIPELINE) as app:
                client = TestClient(app)
                return measure(client, sign_in(client, "ada"))


def main() -> None:
    logging.disable(logging.WARNING)
    with PostgresServer() as server:
        big = {"url": server.create_database(), "password_file": str(server.password_file)}
        found = {"sqlite": bench("SQLite"), "postgresql": bench("PostgreSQL", big)}
    print(f"{'page':<34}{'SQLite ms':>12}{'worst':>8}{'CPU':>8}{'PostgreSQL ms':>16}{'worst':>8}{'CPU':>8}")
    slowest: dict[str, float] = {}
    for name in PAGES:
        line = f"{name:<34}"
        for kind, width in (("sqlite", 12), ("postgresql", 16)):
            wall, cpu = zip(*found[kind][name], strict=True)
            line += f"{statistics.median(wall):>{width}.0f}{max(wall):>8.0f}{statistics.median(cpu):>8.0f}"
            for what, times in (("ms", wall), ("cpu_ms", cpu)):
                key = f"{kind}_slowest_{what}"
                slowest[key] = max(slowest.get(key, 0.0), round(statistics.median(times), 1))
        print(line)
    print(json.dumps({"runs": RUNS, "goal_ms": GOAL_MS, **slowest}))


if __name__ == "__main__":
    main()
