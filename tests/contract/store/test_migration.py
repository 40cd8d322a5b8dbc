"""Stores of earlier releases open, with all that is in them."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from fedtasks import tickets
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import DataCorrupt, TicketExhausted
from fedtasks.reports.runs import run_report
from fedtasks.store import Charged, DisclosureRow, Store, TicketRow, migration
from fedtasks.store import engine as database_engine
from fedtasks.store.schema import REVISION, metadata
from tests.support.stores import TICKET, Database, opened, run_row

DUMP = Path(__file__).parents[2] / "vectors" / "store_0_1_0.sql"
"""The bank's store, written by two gateways of release 0.1.0."""

KEYS = {
    "bank": "jkLsJjqRudRqu90Ez7PyP/+wFslp8r+47x17VnQi0WE=",
    "shop": "yZcmv7MfL7SqmjMMo8cN67RIMzH2XgZXwfHzqEFKHsg=",
}
SUCCEEDED = "train_split_nn.2026-11-21.1"
FAILED = "train_split_nn.2026-11-22.1"


def _first_columns(ticket: TicketRow) -> dict[str, Any]:
    """Return a ticket's columns as the first release had them."""
    return {name: value for name, value in asdict(ticket).items() if name != "declination"}


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A store file as release 0.1.0 left it."""
    file = tmp_path / "store.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(DUMP.read_text())
    file.chmod(0o600)
    return file


@pytest.fixture
def store(old_file: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{old_file}") as store:
        yield store


def test_store_of_the_previous_release_has_the_declared_schema_once_opened(store: Store) -> None:
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_store_once_opened_is_of_the_revision_that_this_release_names(store: Store) -> None:
    with store._engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == REVISION


def test_runs_of_the_previous_release_are_found_with_receipts_that_agree(store: Store) -> None:
    assert [run.run_id for run in store.runs.list()] == [FAILED, SUCCEEDED]
    run = store.runs.get(SUCCEEDED)
    assert run is not None
    assert (run.state, run.peer_state, run.initiated, run.reason) == ("succeeded", "succeeded", True, "the nightly run")
    accounts = {
        party: tickets.read_receipt(receipt, tickets.public_from_text(KEYS[party]))
        for party, receipt in (("bank", run.receipt), ("shop", run.peer_receipt))
    }
    assert accounts["bank"] == {**accounts["shop"], "party": "bank"}
    assert accounts["bank"]["tasks"] == {half.task: half.outcome for half in store.halves.list(SUCCEEDED, own=True)}
    assert accounts["bank"]["ticket_id"] == run.ticket_id == "t-held"

    failed = store.runs.of_dag_run("train_split_nn", FAILED, "train_split_nn")
    assert failed is not None
    assert (failed.run_id, failed.state, failed.initiated, failed.receipt) == (FAILED, "failed", False, "")
    assert failed.failure is not None
    assert failed.failure["code"] == "DATA_CORRUPT"


def test_halves_of_the_previous_release_keep_outcomes_and_failures(store: Store) -> None:
    halves = store.halves.of_runs([SUCCEEDED, FAILED])
    states = {(half.task, half.own): half.state for half in halves[SUCCEEDED]}
    assert states == {(task, own): "succeeded" for task in ("approve", "psi", "train") for own in (True, False)}
    trained = store.halves.get(SUCCEEDED, "train", True)
    assert trained is not None
    assert trained.outcome == {"counts": {"epochs": 3, "rows": 30}, "digests": {"model": "d" * 64}}
    assert trained.progress == {"step": 3, "of": 3}
    assert 0 < trained.announced_ms <= trained.started_ms <= trained.since_ms
    codes = {half.own: (half.failure or {})["code"] for half in halves[FAILED]}
    assert codes == {True: "DATA_CORRUPT", False: "PEER_FAILED"}


def test_tickets_of_the_previous_release_are_read_with_their_signatures(store: Store) -> None:
    keys = {party: tickets.public_from_text(key) for party, key in KEYS.items()}
    found = {row.ticket_id: row for row in store.tickets.list()}
    assert {ticket_id: row.granted for ticket_id, row in found.items()} == {
        "t-held": False,
        "t-granted": True,
        "t-revoked": True,
        "t-offered": True,
    }
    grants = {
        ticket_id: to_plain(tickets.read(row.grant, keys["bank" if row.granted else "shop"]))
        for ticket_id, row in found.items()
    }
    for ticket_id in ("t-held", "t-granted", "t-revoked"):
        row = found[ticket_id]
        assert row.acceptance is not None
        tickets.verify_acceptance(row.acceptance, row.grant, keys["shop" if row.granted else "bank"])
    assert found["t-offered"].acceptance is None
    revocation = found["t-revoked"].revocation
    assert revocation is not None
    assert tickets.verify_revocation(revocation, "t-revoked", keys["bank"]) == "no longer needed"
    assert grants["t-held"]["approval"] == "person"
    clauses: dict[str, dict[str, Any]] = {
        "limits": {"runs": 10, "concurrent_runs": 2, "epochs": 5, "trees": 50}
        | {"ids_blinded": 1000, "ids_blinded_per_day": 500, "lookups": 100, "lookups_per_day": 50},
        "outputs": {"intersection": "client", "scores": "both", "answers": "columns", "answer_columns": ["a"]},
        "floor": {"key_bits": 3072, "min_intersection": 2, "min_leaf_rows": 5, "first_tree": "leader"},
    }
    for group, expected in clauses.items():
        said = grants["t-offered"][group]
        assert {name: said[name] for name in expected} == expected


def test_uses_of_the_previous_release_go_on_to_count(store: Store) -> None:
    assert store.uses.total("t-granted") == {"ids_blinded": 25, "runs": 1}
    assert store.uses.count("t-granted", FAILED, "ids_blinded", 30, 400) == 30
    with pytest.raises(TicketExhausted):
        store.uses.count("t-granted", "another", "ids_blinded", 371, 400)


def test_what_was_measured_by_the_previous_release_is_read(store: Store) -> None:
    values = [(row.name, row.step, row.value) for row in store.metrics.list(SUCCEEDED)]
    assert values[:2] == [("loss", 1, 0.75), ("loss", 2, 0.5)]
    assert math.isnan(values[2][2])
    assert store.disclosures.list(SUCCEEDED) == [DisclosureRow(SUCCEEDED, "psi", 1, "blinded", 2, 40, 1280)]
    assert store.traffic.total(SUCCEEDED) == (2048, 4096)


def test_what_surrounds_the_runs_of_the_previous_release_is_read(store: Store) -> None:
    approval = store.approvals.get(SUCCEEDED)
    assert approval is not None
    assert approval.state == "approved"
    refusal = store.refusals.get("train_split_nn", "manual-3", "train_split_nn")
    assert refusal is not None
    assert (refusal.peer, refusal.failure["code"]) == ("shop", "FLOOR_VIOLATED")
    champion = store.models.champion("credit")
    assert champion is not None
    assert (champion.version, champion.run_id, champion.metrics) == (1, SUCCEEDED, {"auc": 0.8})
    assert store.models.consumed("credit", 1) == {"loans": ["2026-11-21"]}
    landings = [(row.party, row.dataset, row.partition, row.rows) for row in store.landings.list()]
    assert landings == [("bank", "loans", "2026-11-21", 300), ("shop", "customers", "2026-11-21", 0)]
    (request,) = store.ticket_requests.list()
    assert (request.peer, request.own, request.state, request.asked["days"]) == ("shop", True, "open", 30)
    peer = store.peers.get("shop")
    assert peer is not None
    assert (peer.version, bool(peer.checks)) == ("0.1.0", True)
    assert store.tags.tags_of("loans", "k-1", ["007", "8"]) == {"007": b"\x07" * 32, "8": b"\x08" * 32}
    assert store.tags.matches_of("loans", "k-1", [b"\x07" * 32]) == {b"\x07" * 32: ("007", '{"a": 1}')}


def test_audit_chain_of_the_previous_release_is_whole_and_goes_on(store: Store) -> None:
    store.audit.verify()
    last = store.audit.list()[-1]
    assert (last.seq, last.actor, last.action) == (8, "eve", "ticket.requested")
    assert store.audit.add("bank", "run.open", "noted").previous == last.digest
    store.audit.verify()
    with store.audit._write() as connection:
        connection.exec_driver_sql("UPDATE audit SET decision = 'refused' WHERE seq = 4")
    with pytest.raises(DataCorrupt, match="audit row 4 "):
        store.audit.verify()


def test_store_of_the_previous_release_is_reported_and_takes_new_runs(store: Store) -> None:
    report = run_report(store, "bank", SUCCEEDED)
    assert (report["status"]["state"], report["counts"]["people_shared"]) == ("done", 30)
    assert store.runs.add(run_row())
    assert store.halves.announce(run_row().run_id, "psi", "tok", 0).attempt == 1
    assert store.runs.change(FAILED, bump=True, state="running").version > 1


# ----------------------------------------------------------------------------------------------------- older schemas
def copy_rows(source: Path, target: Path) -> None:
    """Copy what both stores have room for: tables and columns."""
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute("ATTACH ? AS source", (str(source),))
        tables = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        for table in tables & metadata.tables.keys():
            # A column that the source lacks would be read as a text: SQLite takes a name in quotes for one.
            here, there = (
                [row[1] for row in connection.execute(f"PRAGMA {at}.table_info({table})")] for at in ("main", "source")
            )
            columns = ", ".join(f'"{name}"' for name in here if name in there)
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM source.{table}")


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005", "0006", "0007"])
def test_store_of_an_older_schema_opens_with_what_it_had(old_file: Path, tmp_path: Path, revision: str) -> None:
    is_whole = revision >= "0004"  # the schema of the release that left the rows
    older = tmp_path / "older.db"
    engine = database_engine.connect(f"sqlite:///{older}", None)
    migration.upgrade(engine, revision)
    engine.dispose()
    copy_rows(old_file, older)
    with Store.open(f"sqlite:///{old_file}") as expected, Store.open(f"sqlite:///{older}") as store:
        with store._engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        runs = expected.runs.list()
        assert store.runs.list() == (runs if is_whole else [replace(run, at_rest=False) for run in runs])
        assert store.tickets.list() == expected.tickets.list()
        assert store.uses.total("t-granted") == expected.uses.total("t-granted")
        assert store.traffic.total(SUCCEEDED) == expected.traffic.total(SUCCEEDED)
        store.audit.verify()
        assert store.audit.list() == expected.audit.list()
        for ours, theirs in zip(store.halves.list(SUCCEEDED), expected.halves.list(SUCCEEDED), strict=True):
            assert ours == (theirs if is_whole else replace(theirs, announced_ms=0, started_ms=0))


def test_use_charged_before_files_were_counted_apart_stays_charged(database: Database) -> None:
    engine = database_engine.connect(database.url, database.password_file)
    migration.upgrade(engine, "0005")
    columns = _first_columns(TICKET)
    names, values = (", ".join(form.format(name) for name in columns) for form in ('"{}"', ":{}"))
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text(f"INSERT INTO tickets ({names}) VALUES ({values})"), columns)
        connection.execute(text("INSERT INTO uses VALUES ('t-1', 'r1', 'ids', 90, 5)"))
    engine.dispose()
    with opened(database) as store:
        assert store.uses.total("t-1", since_ms=4) == {"ids": 90}
        assert store.uses.count_items("t-1", "r1", "ids", {"a": 4, "b": 5}, 99) == Charged(99, 99)
        with pytest.raises(TicketExhausted):
            store.uses.count_items("t-1", "r1", "ids", {"a": 4, "b": 6}, 99)


def test_use_charged_before_there_were_days_counts_for_none(sqlite_database: Database) -> None:
    engine = database_engine.connect(sqlite_database.url, None)
    migration.upgrade(engine, "0001")
    with engine.execution_options(writes=True).begin() as connection:
        columns = _first_columns(TICKET)
        names = ", ".join(f'"{name}"' for name in columns)
        values = ", ".join(f":{name}" for name in columns)
        connection.execute(text(f"INSERT INTO tickets ({names}) VALUES ({values})"), columns)
        connection.execute(text("INSERT INTO uses (ticket_id, run_id, kind, amount) VALUES ('t-1', 'r1', 'ids', 90)"))
    engine.dispose()
    with opened(sqlite_database) as store:
        assert store.uses.total("t-1") == {"ids": 90}
        assert store.uses.count("t-1", "r2", "ids", 100, None, 100) == 190
        with pytest.raises(TicketExhausted):
            store.uses.count("t-1", "r3", "ids", 1, 190)
