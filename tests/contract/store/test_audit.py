"""What every store promises of the audit chain."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from fedtasks.clock import DAY_MS
from fedtasks.errors import DataCorrupt, SignatureWrong
from fedtasks.store import AuditFilter, AuditRow, Store, check_chain
from fedtasks.store.audit import row_digest
from fedtasks.tickets import generate_ticket_key, sign_cut
from tests.support.stores import NOW, Database, opened, run_together


def test_audit_rows_form_a_chain(store: Store) -> None:
    first = store.audit.add("shop", "run.start", "allowed", ticket="t-1", new=True, rows=3)
    second = store.audit.add("bank", "ticket.revoke", "noted")
    third = store.audit.add("shop", "run.start", "refused", clause="limits.runs", actor="x", action="ä\u2028")
    assert (first.seq, first.previous, first.at_ms) == (1, "0" * 64, NOW)
    assert (second.seq, second.previous) == (2, first.digest)
    assert (third.seq, third.previous) == (3, second.digest)
    assert store.audit.list() == [first, second, third]
    assert store.audit.list(limit=2) == [second, third]
    assert store.audit.list(action="run.start") == [first, third]
    assert store.audit.list(action="run.start", limit=1) == [third]
    store.audit.verify()


@pytest.mark.parametrize(
    ("where", "seqs"),
    [
        (AuditFilter(), [1, 2, 3, 4]),
        (AuditFilter(peer="shop"), [1, 2]),
        (AuditFilter(run_id="credit.2026-11-21.1"), [2]),
        (AuditFilter(action="ticket"), [3]),
        (AuditFilter(action="ticket.revoked", decision="noted"), [3]),
        (AuditFilter(action="tick%"), []),
        (AuditFilter(decision="refused"), [1]),
        (AuditFilter(since_ms=NOW), [1, 2, 3, 4]),
        (AuditFilter(until_ms=NOW), []),
    ],
    ids=str,
)
def test_audit_rows_are_chosen_by_peer_run_action_outcome_and_time(
    store: Store, where: AuditFilter, seqs: list[int]
) -> None:
    store.audit.add("shop", "run.start", "refused", clause="limits.runs")
    store.audit.add("ada", "run.open", "allowed", peer="shop", run_id="credit.2026-11-21.1")
    store.audit.add("ada", "ticket.revoked", "noted", peer="telco")
    store.audit.add("bank", "data.land", "noted", dataset="loans", rows=3)
    assert [row.seq for row in store.audit.list(where=where)] == seqs
    assert [row.seq for row in store.audit.list(where=where, limit=1)] == seqs[-1:]


def testrow_digest_is_the_sha256_of_the_row_with_the_one_before(store: Store) -> None:
    row = store.audit.add("shop", "run.start", "allowed", ticket="t-1")
    plain = {name: value for name, value in dataclasses.asdict(row).items() if name != "digest"}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert row.digest == hashlib.sha256(canonical).hexdigest()


def test_audit_of_an_empty_store_is_whole(store: Store) -> None:
    store.audit.verify()
    assert store.audit.list() == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE audit SET decision = 'allowed' WHERE seq = 2", 2),
        ('UPDATE audit SET detail = \'{"ticket": "t-9"}\' WHERE seq = 3', 3),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 1", 1),
        ("UPDATE audit SET digest = previous WHERE seq = 4", 4),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 1", 1),
    ],
)
def test_audit_changed_by_hand_is_found_at_its_row(store: Store, damage: str, named: int) -> None:
    for number in range(4):
        store.audit.add("shop", "run.start", "refused", ticket=f"t-{number}")
    with store.audit._write() as connection:
        connection.exec_driver_sql(damage)
    with pytest.raises(DataCorrupt, match=f"audit row {named} "):
        store.audit.verify()


def test_audit_row_changed_with_its_digest_is_found_at_the_next(store: Store) -> None:
    rows = [store.audit.add("shop", "run.start", "refused") for _ in range(3)]
    forged = replace(rows[1], decision="allowed")
    values = {"decision": "allowed", "digest": row_digest(forged)}
    with store.audit._write() as connection:
        connection.execute(text("UPDATE audit SET decision = :decision, digest = :digest WHERE seq = 2"), values)
    with pytest.raises(DataCorrupt, match="audit row 3 "):
        store.audit.verify()


def test_audit_with_an_unknown_decision_or_a_value_outside_json_is_a_mistake(store: Store) -> None:
    with pytest.raises(IntegrityError):
        store.audit.add("shop", "run.start", "maybe")
    with pytest.raises(TypeError):
        store.audit.add("shop", "run.start", "noted", value=object())
    assert store.audit.list() == []


def test_audit_written_by_several_processes_and_threads_never_forks(database: Database) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
with Store.open(url, password_file) as store, ThreadPoolExecutor(2) as pool:
    meet()
    list(pool.map(lambda number: store.audit.add(name, "run.start", "noted", number=number), range(15)))
"""
    with opened(database) as store:
        run_together(database, code, 4)
        rows = store.audit.list()
        assert [row.seq for row in rows] == list(range(1, 61))
        assert sorted((row.actor, row.detail["number"]) for row in rows) == sorted(
            (str(name), number) for name in range(4) for number in range(15)
        )
        store.audit.verify()


def test_audit_rows_are_what_was_returned_at_writing(store: Store) -> None:
    row = store.audit.add("shop", "x", "noted", nested={"tuple": (1, 2.5, None)}, path=Path("a/b"))
    assert row.detail == {"nested": {"tuple": [1, 2.5, None]}, "path": "a/b"}
    assert store.audit.list() == [row]
    assert isinstance(row, AuditRow)


def test_audit_pages_fit_the_chain_and_a_forged_row_does_not(store: Store) -> None:
    for number in range(6):
        store.audit.add("bank", "run.open", "noted", number=number)
    rows = store.audit.list(limit=3, before=6)
    assert [row.seq for row in rows] == [3, 4, 5]
    check_chain(rows)
    for forged in ([rows[0], rows[2]], [rows[0], replace(rows[1], actor="mallory"), rows[2]]):
        with pytest.raises(DataCorrupt):
            check_chain(forged)


def test_chain_whose_beginning_was_cut_off_says_so_signed_and_goes_on(database: Database) -> None:
    now, key, other = NOW, generate_ticket_key(), generate_ticket_key()
    with opened(database, clock=lambda: now) as store:
        for day in range(5):
            now = NOW + day * DAY_MS
            last = store.audit.add("shop", "run.start", "allowed", day=day)
        for until, rows in ((2, 2), (4, 2)):
            before_ms = NOW + until * DAY_MS
            assert store.audit.total_before(before_ms) == rows
            store.audit.cut("bank", before_ms, lambda said: sign_cut(said, key))
            found = store.audit.list()
            assert (found[0].seq, found[-1].action) == (until + 1, "audit.cut")
            assert (found[-1].detail["until"], found[-1].detail["rows"]) == (until, rows)
            store.audit.verify(key.public_key())
            with pytest.raises(SignatureWrong):
                store.audit.verify(other.public_key())
        assert store.audit.add("shop", "run.start", "allowed").seq == 8
        store.audit.verify(key.public_key())
        assert store.audit.list(limit=4)[0] == last


def test_beginning_that_was_taken_out_without_a_cut_is_found(database: Database) -> None:
    key = generate_ticket_key()
    with opened(database) as store:
        for number in range(4):
            store.audit.add("shop", "run.start", "allowed", number=number)
        store.audit.cut("bank", 2**53, lambda said: sign_cut(said, key))
        assert [row.seq for row in store.audit.list()] == [4, 5]  # the newest decision always stays
        with store._engine.begin() as connection:
            connection.execute(text("DELETE FROM audit WHERE seq = 4"))
        with pytest.raises(DataCorrupt, match="audit row 1 is missing"):
            store.audit.verify()


def test_chain_that_is_broken_is_not_cut(database: Database) -> None:
    now = NOW
    with opened(database, clock=lambda: now) as store:
        for number in range(4):
            now = NOW + number
            store.audit.add("shop", "run.start", "allowed", number=number)
        with store._engine.begin() as connection:
            connection.execute(text("UPDATE audit SET actor = 'eve' WHERE seq = 2"))
        with pytest.raises(DataCorrupt, match="audit row 2"):
            store.audit.cut("bank", NOW + 3, lambda said: "")
        assert len(store.audit.list()) == 4
