"""An exported audit: whoever has the keys finds what was changed, by line, and what no ticket covers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks import tickets
from fedtasks.checks import Finding, Verdict
from fedtasks.digests import canonical, digest
from fedtasks.errors import ConfigError, DataCorrupt
from fedtasks.reports.audit_bundle import bundle
from fedtasks.reports.audit_proof import prove
from fedtasks.store import RunRow, Store, TicketRow
from fedtasks.store.audit import AuditBook
from tests.support.report_rows import NOW_MS, Clock, make_run
from tests.support.stores import make_empty_store

KEYS = {name: Ed25519PrivateKey.generate() for name in ("bank", "shop")}
PUBLIC = {name: [key.public_key()] for name, key in KEYS.items()}
NOW_S = NOW_MS // 1000


def ticket_row(**changes: Any) -> TicketRow:
    """Return a ticket that the shop has granted to the bank."""
    scope = tickets.DatasetScope("customers", "0" * 64, ("age",))
    values: dict[str, Any] = {"ticket_id": "t-1", "grantor": "shop", "holder": "bank", "datasets": (scope,)}
    values |= {"pipelines": ("credit",), "roles": ("leader",), "not_before_s": NOW_S, "expires_s": NOW_S + 9000}
    grant = tickets.Grant(**(values | {"limits": {"runs": 5}} | changes))
    text = tickets.issue(grant, KEYS["shop"])
    accepted = tickets.accept(text, KEYS["bank"], "bank", NOW_S)
    return TicketRow(grant.ticket_id, "shop", False, text, accepted, None, NOW_MS)


def receipt(party: str, run: RunRow, **changes: Any) -> str:
    account = {"run_id": run.run_id, "party": party, "ticket_id": run.ticket_id, "tasks": {}} | changes
    return tickets.sign_receipt(account, KEYS[party])


def succeeded(number: int = 1, **changes: Any) -> RunRow:
    run = make_run(number, **changes)
    signed = {"receipt": receipt("bank", run), "peer_receipt": receipt("shop", run)}
    return replace(run, state="succeeded", closed_ms=NOW_MS, **signed)


def keep(store: Store, row: TicketRow, *runs: RunRow) -> None:
    store.tickets.put(row)
    for run in runs:
        store.runs.add(run)
        store.audit.add("bank", "run.open", "noted", run_id=run.run_id, ticket=run.ticket_id)


def export(store: Store, key: Ed25519PrivateKey = KEYS["bank"]) -> list[str]:
    return list(bundle(store, "bank", key, NOW_MS))


def wrong(found: Sequence[Finding]) -> dict[str, str]:
    return {each.subject: each.text for each in found if each.verdict is Verdict.WRONG}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("store")
    make_empty_store(folder / "store.db")
    with Store.open(f"sqlite:///{folder}/store.db", migrate=False, clock=Clock()) as store:
        keep(store, ticket_row(), succeeded(1), succeeded(2))
        store.audit.add("bank", "ticket.accepted", "noted", ticket="t-1", at=1.5, said="ä\u2028")
        yield export(store)


def test_audit_as_it_was_signed_is_whole_and_says_its_last_digest(lines: list[str]) -> None:
    (found,) = prove([f"{line}\n" for line in lines], PUBLIC)
    assert (found.subject, found.verdict) == ("audit of bank", Verdict.OK)
    last = json.loads(lines[-2])["content"]
    assert found.text == f"1 tickets, 2 runs, 3 decisions, the last one 3: {last['digest']}"


def test_signatures_without_a_key_are_counted_not_believed_in_silence(lines: list[str]) -> None:
    found = prove(lines, {"bank": PUBLIC["bank"]})
    assert wrong(found) == {}
    assert [each.text for each in found if each.verdict is Verdict.WARNING] == ["3 signatures of shop were not checked"]
    with pytest.raises(ConfigError, match="name the ticket key of bank"):
        prove(lines, {"shop": PUBLIC["shop"]})


def test_party_with_several_keys_is_known_by_any_of_them(lines: list[str]) -> None:
    old = Ed25519PrivateKey.generate().public_key()
    assert wrong(prove(lines, {name: [old, *keys] for name, keys in PUBLIC.items()})) == {}
    assert f"line {len(lines)}" in wrong(prove(lines, {**PUBLIC, "bank": [old]}))


def removed(lines: list[str], at: int) -> tuple[list[str], int]:
    return [*lines[:at], *lines[at + 1 :]], at + 1


def doubled(lines: list[str], at: int) -> tuple[list[str], int]:
    return [*lines[: at + 1], *lines[at:]], at + 2


def swapped(lines: list[str], at: int) -> tuple[list[str], int]:
    at = min(at, len(lines) - 2)
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]], at + 1


def cut(lines: list[str], at: int) -> tuple[list[str], int]:
    return lines[:at], at + 1


def shortened(lines: list[str], at: int) -> tuple[list[str], int]:
    return [*lines[:at], lines[at][:-9]], at + 1


def spelled_otherwise(lines: list[str], at: int) -> tuple[list[str], int]:
    return [*lines[:at], lines[at].replace(":", ": ", 1), *lines[at + 1 :]], at + 1


def changed(lines: list[str], at: int) -> tuple[list[str], int]:
    line = json.loads(lines[at])
    name, value = sorted(line["content"].items())[-1]
    line["content"][name] = f"{value}0"
    return [*lines[:at], canonical(line), *lines[at + 1 :]], at + 1


DAMAGES = [removed, doubled, swapped, cut, shortened, spelled_otherwise, changed]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.sampled_from(DAMAGES), at=st.integers(0, 7))
def test_whatever_is_done_to_a_line_is_named_by_its_number(
    lines: list[str], damage: Callable[[list[str], int], tuple[list[str], int]], at: int
) -> None:
    damaged, number = damage(lines, at % len(lines))
    assert f"line {number}" in wrong(prove(damaged, PUBLIC))


@settings(max_examples=40)
@given(st.lists(st.text() | st.just('{"content":{},"digest":"","kind":"head","previous":""}'), max_size=4))
def test_any_text_is_refused_and_never_fails_otherwise(texts: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        assert wrong(prove(texts, PUBLIC))


def test_who_counts_all_digests_anew_cannot_sign_the_end(lines: list[str]) -> None:
    forged, last = [], "0" * 64
    for text in lines:
        line = json.loads(text)
        if line["kind"] == "decision" and line["content"]["seq"] == 3:
            line["content"]["actor"] = "somebody else"
        plain = {"kind": line["kind"], "content": line["content"], "previous": last}
        last = digest(plain)
        forged.append(canonical({**plain, "digest": last}))
    found = wrong(prove(forged, PUBLIC))
    assert found[f"line {len(lines)}"] == "bank has signed other lines than these"
    assert found[f"line {len(lines) - 1}"] == "audit row 3 does not fit the chain"


UNSIGNED = {"receipt": "", "peer_receipt": ""}


@pytest.mark.parametrize(
    ("row", "run", "why"),
    [
        (ticket_row(pipelines=("other",)), succeeded(), "its ticket is for other pipelines"),
        (ticket_row(), succeeded(ticket_id="t-2"), "there is no ticket of that name"),
        (ticket_row(), succeeded(initiated=False), "its ticket was granted by shop to bank"),
        (replace(ticket_row(), acceptance=None), succeeded(), "its ticket was not accepted"),
        (ticket_row(), succeeded(opened_ms=NOW_MS + 10_000_000), "it was opened outside of its ticket's time"),
        (
            replace(ticket_row(), revocation=tickets.revoke("t-1", KEYS["shop"], NOW_S - 900, "")),
            succeeded(),
            "its ticket had been revoked",
        ),
        (ticket_row(), replace(succeeded(), peer_receipt=""), "without both receipts"),
        (ticket_row(), replace(succeeded(), peer_receipt=succeeded(2).peer_receipt), "another run, ticket or party"),
        (
            ticket_row(),
            replace(succeeded(), peer_receipt=receipt("bank", succeeded())),
            "not a text signed with this key",
        ),
        (ticket_row(), replace(succeeded(), peer_receipt=receipt("shop", succeeded(), tasks={"psi": 1})), "differ in"),
        (replace(ticket_row(), revocation=tickets.revoke("t-1", KEYS["bank"], NOW_S, "")), succeeded(), "not a text"),
    ],
)
def test_run_that_no_ticket_covers_or_no_receipt_proves_is_named_though_its_party_signs(
    store: Store, row: TicketRow, run: RunRow, why: str
) -> None:
    keep(store, row, run)
    assert why in " ".join(wrong(prove(export(store), PUBLIC)).values())


def test_more_runs_than_a_ticket_allows_are_counted(store: Store) -> None:
    keep(store, ticket_row(limits={"runs": 1}), succeeded(1), succeeded(2))
    assert wrong(prove(export(store), PUBLIC)) == {"limits": "ticket t-1 allows 1 runs, and 2 have receipts"}


def test_run_that_is_left_out_or_was_never_decided_on_is_spoken_of(store: Store) -> None:
    store.tickets.put(ticket_row())
    store.runs.add(succeeded(1))
    store.audit.add("bank", "run.open", "noted", run_id="credit.2026-11-22.bank.1")
    found = prove(list(bundle(store, "bank", KEYS["bank"], NOW_MS + 1)), PUBLIC)
    assert wrong(found) == {}
    assert [each.text for each in found if each.verdict is Verdict.WARNING] == [
        f"no decision speaks of run {succeeded(1).run_id}",
        "line 4 decides on run credit.2026-11-22.bank.1, which is not in the file",
    ]


def test_chain_that_is_broken_in_the_store_is_not_exported(store: Store, tmp_path: Path) -> None:
    keep(store, ticket_row(), succeeded())
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = 'x'")
    with pytest.raises(DataCorrupt):
        export(store)


def cut_of(store: Store, clock: Clock, key: Ed25519PrivateKey = KEYS["bank"]) -> None:
    clock.now_ms += 1000
    store.audit.add("bank", "data.land", "noted")
    store.audit.cut("bank", clock.now_ms, lambda said: tickets.sign_cut({"iss": "bank", **said}, key))


def test_beginning_that_was_cut_off_is_stood_for_by_what_its_party_has_signed(store: Store, clock: Clock) -> None:
    keep(store, ticket_row(), succeeded())
    cut_of(store, clock)
    cut_of(store, clock)
    lines = export(store)
    found = prove(lines, PUBLIC)
    assert wrong(found) == {}
    assert "no decision speaks of run" in " ".join(each.text for each in found)
    without = [line for line in lines if '"audit.cut"' not in line]
    assert "the decisions before 4 are gone, and no signed cut says so" in wrong(prove(without, PUBLIC)).values()


def test_cut_that_another_has_signed_stands_for_nothing(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, ticket_row(), succeeded())
    cut_of(store, clock, KEYS["shop"])
    monkeypatch.setattr(AuditBook, "verify", lambda *_: None)  # the party lies
    said = " ".join(wrong(prove(export(store), PUBLIC)).values())
    assert "a cut of the chain: not a text signed with this key" in said
    assert "no signed cut says so" in said
