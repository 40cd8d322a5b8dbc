"""`ticket`: what is signed, what is refused, what waits for the gateway."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedtasks import tickets
from fedtasks.config import load_party
from fedtasks.gateway.tickets import Tickets
from fedtasks.store import Labels, LabelSpendRow, Store
from fedtasks.tickets.clauses import clauses, complete
from fedtasks.wire.v1 import peer_pb2
from tests.support.command_line import Run
from tests.support.tickets import HEADER, claims_of, signed

POISON = "\x1b[2J\x9b31m\u202e\ud800"
"""Clears a terminal, colours it, turns what follows, and cannot be encoded."""


def test_ticket_issue_signs_what_was_asked(run: Run, met: tuple[str, str]) -> None:
    options = ["--columns", "age", "--pipeline", "train", "--pipeline", "score", "--role", "client", "--days", "2"]
    options += [
        "--runs",
        "3",
        "--concurrent",
        "2",
        "--key-bits",
        "4096",
        "--min-intersection",
        "7",
        "--epochs",
        "9",
        "--pad-rows",
        "1000",
        "--trees",
        "50",
        "--min-leaf-rows",
        "30",
        "--first-tree",
        "leader",
        "--scores",
        "both",
        "--ids-blinded",
        "5000000",
        "--ids-blinded-per-day",
        "100000",
        "--intersection",
        "client",
        "--label-protection",
        "none",
        "--label-leak",
        "70",
    ]
    run("ticket", "issue", "--to", "bank", "--dataset", "customers", *options, "--party", met[1])
    shop = load_party(met[1])
    with Store.open(shop.store.url) as store:
        (row,) = store.tickets.list()
        (decision,) = store.audit.list()
    grant = tickets.read(row.grant, tickets.load_ticket_key(shop.gateway.ticket_key).public_key())
    assert (row.peer, row.granted, row.synced, row.acceptance) == ("bank", True, False, None)
    assert (grant.grantor, grant.holder, grant.pipelines, grant.roles) == (
        "shop",
        "bank",
        ("train", "score"),
        ("client",),
    )
    assert grant.datasets == (tickets.DatasetScope("customers", shop.dataset("customers").schema_digest, ("age",)),)
    assert grant.expires_s - grant.not_before_s == 2 * 86_400
    said = {
        "limits.runs": 3,
        "limits.concurrent_runs": 2,
        "limits.epochs": 9,
        "limits.trees": 50,
        "limits.ids_blinded": 5_000_000,
        "limits.ids_blinded_per_day": 100_000,
        "outputs.intersection": "client",
        "outputs.scores": "both",
        "floor.key_bits": 4096,
        "floor.min_intersection": 7,
        "floor.pad_rows": 1000,
        "floor.min_leaf_rows": 30,
        "floor.first_tree": "leader",
        "floor.label_protection": "none",
        "limits.label_leak": 70,
    }
    assert grant.bounds == complete(said)
    assert (decision.actor, decision.action, decision.detail["ticket"]) == ("shop", "ticket.issued", grant.ticket_id)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"--to": "mill"}, "PEER_UNKNOWN"),
        ({"--dataset": "cars"}, "CONFIG_INVALID"),
        ({"--columns": "age,salary"}, "CONFIG_INVALID"),
        ({"--role": "king"}, "CONFIG_INVALID"),
        ({"--answer-columns": "age"}, "CONFIG_INVALID"),
        ({"--answers": "columns", "--answer-columns": "salary"}, "CONFIG_INVALID"),
    ],
)
def test_ticket_issue_with_a_wrong_value_stores_nothing(
    run: Run, met: tuple[str, str], change: dict[str, str], code: str
) -> None:
    options = {"--to": "bank", "--dataset": "customers", "--pipeline": "train", **change}
    flat = [word for pair in options.items() for word in pair]
    assert run("ticket", "issue", *flat, "--party", met[1], expect=1).err.startswith(f"{code} · ")
    assert run("ticket", "list", "--json", "--party", met[1]).json() == []


@pytest.mark.parametrize("name", [name for name, clause in clauses().items() if clause.option])
def test_ticket_issue_has_an_option_for_each_clause_and_refuses_what_no_ticket_can_say(
    run: Run, met: tuple[str, str], name: str
) -> None:
    clause = clauses()[name]
    options = ("--to", "bank", "--dataset", "customers", "--pipeline", "train", "--party", met[1])
    if not clause.only_with:
        wrong = "nobody" if clause.choices else str(clause.least - 1)
        assert clause.option in run("ticket", "issue", *options, clause.option, wrong, expect=2).err
    assert clause.option in run("ticket", "issue", "--help").out


def test_ticket_accept_from_a_file_counter_signs_it(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    run("ticket", "accept", "t", "--party", met[0])
    bank, shop = (load_party(file) for file in met)
    with Store.open(bank.store.url) as store:
        row = store.tickets.get(ticket_id)
        assert [decision.action for decision in store.audit.list()] == ["ticket.accepted"]
    assert row is not None
    assert row.acceptance is not None
    assert (row.peer, row.granted, row.synced) == ("shop", False, False)
    tickets.verify_acceptance(row.acceptance, row.grant, tickets.public_from_text(shop.peer("bank").ticket_key))


def test_ticket_commands_tell_as_json_what_they_have_done(run: Run, met: tuple[str, str]) -> None:
    asked = ("--to", "bank", "--dataset", "customers", "--pipeline", "train", "--out", "t")
    issued = run("ticket", "issue", *asked, "--json", "--party", met[1]).json()
    accepted = run("ticket", "accept", "t", "--json", "--party", met[0]).json()
    revoked = run("ticket", "revoke", issued["ticket_id"], "--reason", "x", "--json", "--party", met[1]).json()
    assert accepted == {"ticket_id": issued["ticket_id"], "granted_by": "shop", "warnings": []}
    assert revoked == {"ticket_id": issued["ticket_id"], "reason": "x"}


def test_whoever_grants_accepts_or_reviews_a_ticket_is_told_that_labels_can_be_read(
    run: Run, met: tuple[str, str]
) -> None:
    asked = ("--to", "bank", "--dataset", "customers", "--pipeline", "train", "--out", "t")
    issued = run("ticket", "issue", *asked, "--label-protection", "none", "--party", met[1]).out
    accepted = run("ticket", "accept", "t", "--party", met[0]).out
    ticket_id = run("ticket", "list", "--json", "--party", met[0]).json()[0]["ticket_id"]
    shown = run("ticket", "show", ticket_id, "--party", met[0]).out
    plain = run("ticket", "issue", *asked, "--party", met[1]).out
    for text in (issued, accepted, shown):
        assert "the follower can read the labels of all train rows" in " ".join(text.split())
    assert "can read" not in plain


def test_whoever_changes_a_ticket_leaves_the_same_record(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    run("ticket", "accept", "t", "--party", met[0])
    run("ticket", "revoke", ticket_id, "--reason", "over", "--party", met[1])
    bank, shop = (load_party(file) for file in met)
    with Store.open(bank.store.url) as banks, Store.open(shop.store.url) as shops:
        held, granted = banks.tickets.get(ticket_id), shops.tickets.get(ticket_id)
        assert held is not None
        assert granted is not None
        revoked = peer_pb2.TicketUpdate(ticket_id=ticket_id, grant=granted.grant, revocation=granted.revocation)
        accepted = peer_pb2.TicketUpdate(ticket_id=ticket_id, grant=held.grant, acceptance=held.acceptance)
        Tickets.of(bank, banks).learn("shop", revoked)
        Tickets.of(shop, shops).learn("bank", accepted)
        told = [[(row.actor, row.action, row.detail) for row in store.audit.list()] for store in (banks, shops)]
    of_bank, of_shop = ({"ticket": ticket_id, "peer": peer} for peer in ("shop", "bank"))
    assert told[0] == [
        ("bank", "ticket.accepted", of_bank),
        ("shop", "ticket.revoked", {**of_bank, "reason": "over"}),
    ]
    assert told[1] == [
        ("shop", "ticket.issued", of_shop),
        ("shop", "ticket.revoked", {**of_shop, "reason": "over"}),
        ("bank", "ticket.accepted", of_shop),
    ]


def test_ticket_accept_twice_signs_once(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    run("ticket", "accept", "t", "--party", met[0])
    run("ticket", "accept", ticket_id, "--party", met[0])
    assert len(run("audit", "list", "--json", "--party", met[0]).json()) == 1


def test_ticket_accept_of_our_own_or_a_forged_ticket_is_refused(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    own = run("ticket", "accept", ticket_id, "--party", met[1], expect=1)
    head, body, signature = Path("t").read_text(encoding="ascii").strip().split(".")
    Path("forged").write_text(f"{head}.{body}.{signature[::-1]}", encoding="ascii")
    forged = run("ticket", "accept", "forged", "--party", met[0], expect=1)
    assert own.err.startswith("TICKET_INVALID · it was granted to bank")
    assert "none of our peers has signed" in forged.err
    assert run("ticket", "list", "--json", "--party", met[0]).json() == []


def test_ticket_accept_of_an_expired_ticket_is_refused(
    run: Run, met: tuple[str, str], ticket_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_ns = time.time_ns() + 31 * 86_400 * 10**9
    monkeypatch.setattr("fedtasks.clock.time.time_ns", lambda: late_ns)
    assert run("ticket", "accept", "t", "--party", met[0], expect=1).err.startswith("TICKET_EXPIRED · ")


def test_ticket_list_follows_a_ticket_through_its_life(
    run: Run, met: tuple[str, str], ticket_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(file: str) -> str:
        return str(run("ticket", "list", "--json", "--party", file).json()[0]["state"])

    assert state(met[1]) == "issued"
    run("ticket", "accept", "t", "--party", met[0])
    assert state(met[0]) == "accepted"
    with monkeypatch.context() as patched:
        late = time.time() + 31 * 86_400
        patched.setattr("fedtasks.cli.tickets.time.time", lambda: late)
        assert state(met[0]) == "expired"
    run("ticket", "revoke", ticket_id, "--reason", "contract ended", "--party", met[1])
    assert state(met[1]) == "revoked"


def test_ticket_revoke_is_signed_with_its_reason_and_waits_for_the_gateway(
    run: Run, met: tuple[str, str], ticket_id: str
) -> None:
    run("ticket", "revoke", ticket_id, "--reason", "contract ended", "--party", met[1])
    shop = load_party(met[1])
    with Store.open(shop.store.url) as store:
        row = store.tickets.get(ticket_id)
        actions = [decision.action for decision in store.audit.list()]
    assert row is not None
    assert row.revocation is not None
    assert not row.synced
    key = tickets.load_ticket_key(shop.gateway.ticket_key).public_key()
    assert tickets.verify_revocation(row.revocation, ticket_id, key) == "contract ended"
    assert actions == ["ticket.issued", "ticket.revoked"]
    assert "contract ended" in run("ticket", "show", ticket_id, "--party", met[1]).out


def test_ticket_revoke_by_the_holder_is_refused(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    run("ticket", "accept", "t", "--party", met[0])
    refused = run("ticket", "revoke", ticket_id, "--reason", "x", "--party", met[0], expect=1)
    assert "only shop, who granted it" in refused.err


def test_ticket_show_of_an_unknown_ticket_is_one_line_of_the_registry(run: Run, met: tuple[str, str]) -> None:
    refused = run("ticket", "show", "none", "--party", met[0], expect=1)
    code, what, remedy = refused.err.strip().split(" · ")
    assert (code, "`none`" in what, remedy[:3]) == ("TICKET_MISSING", True, "Nam")


def test_ticket_show_tells_scope_and_use(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    shop = load_party(met[1])
    with Store.open(shop.store.url) as store:
        store.uses.count(ticket_id, "train.d.1", "runs", 1, None)
    shown = run("ticket", "show", ticket_id, "--json", "--party", met[1]).json()
    assert shown["used"] == {"runs": 1}
    assert shown["datasets"][0]["columns"] == ["age", "region"]
    assert shown["roles"] == ["leader"]


def test_ticket_show_tells_how_much_of_the_labels_was_told(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    shop = load_party(met[1])
    assert run("ticket", "show", ticket_id, "--json", "--party", met[1]).json()["labels"] == []
    with Store.open(shop.store.url) as store:
        row = LabelSpendRow(Labels("bank", "customers", "bought"), "x", 10_000, "train.d.1", "train")
        store.label_spends.spend(row, None)
    (labels,) = run("ticket", "show", ticket_id, "--json", "--party", met[1]).json()["labels"]
    assert (labels["label"], labels["told"], labels["limit"], labels["left"]) == ("bought", 54.9, 60, 58)
    shown = " ".join(run("ticket", "show", ticket_id, "--party", met[1]).out.split())
    assert "bank was told what lets it read `bought` of `customers` with an AUC of at most 54.9 %" in shown


def test_ticket_show_tells_ids_blinded_ever_and_within_the_day(run: Run, met: tuple[str, str]) -> None:
    limits = ["--ids-blinded", "1000", "--ids-blinded-per-day", "200"]
    run(
        *("ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", "train", *limits),
        *("--intersection", "size", "--party", met[1]),
    )
    (listed,) = run("ticket", "list", "--json", "--party", met[1]).json()
    url = load_party(met[1]).store.url
    two_days_ago = int((time.time() - 2 * 86_400) * 1000)
    with Store.open(url, clock=lambda: two_days_ago) as store:
        store.uses.count(listed["ticket_id"], "train.d.1", "ids_blinded", 150, 1000, 200)
    with Store.open(url) as store:
        store.uses.count(listed["ticket_id"], "train.d.2", "ids_blinded", 70, 1000, 200)
    shown = run("ticket", "show", listed["ticket_id"], "--json", "--party", met[1]).json()
    assert (shown["limits"]["ids_blinded"], shown["limits"]["ids_blinded_per_day"]) == (1000, 200)
    assert (shown["used"], shown["used_last_24h"]) == ({"ids_blinded": 220}, {"ids_blinded": 70})
    assert shown["outputs"]["intersection"] == "size"
    words = run("ticket", "show", listed["ticket_id"], "--party", met[1]).out
    assert "used_last_24h.ids_blinded" in words


def test_tickets_of_a_removed_peer_do_not_hide_the_others(run: Run, met: tuple[str, str], ticket_id: str) -> None:
    shop = load_party(met[1])
    with Store.open(shop.store.url) as store:
        row = store.tickets.get(ticket_id)
        assert row is not None
        store.tickets.put(replace(row, ticket_id="stranger", peer="gone", granted=False))
    states = {row["ticket_id"]: row["state"] for row in run("ticket", "list", "--json", "--party", met[1]).json()}
    assert states[ticket_id] == "issued"
    assert states["stranger"].startswith("unreadable: ")


def test_ticket_decline_is_signed_with_its_reason_and_shown_as_declined(
    run: Run, met: tuple[str, str], ticket_id: str
) -> None:
    bank, shop = (load_party(file) for file in met)
    with Store.open(bank.store.url) as banks, Store.open(shop.store.url) as shops:
        granted = shops.tickets.get(ticket_id)
        assert granted is not None
        Tickets.of(bank, banks).learn("shop", peer_pb2.TicketUpdate(ticket_id=ticket_id, grant=granted.grant))
    decline = ("ticket", "decline", ticket_id, "--reason", "too many columns")
    assert run(*decline, "--json", "--party", met[0]).json() == {"ticket_id": ticket_id, "reason": "too many columns"}
    run("ticket", "decline", ticket_id, "--party", met[0])
    (listed,) = run("ticket", "list", "--json", "--party", met[0]).json()
    assert listed["state"] == "declined"
    assert "too many columns" in run("ticket", "show", ticket_id, "--party", met[0]).out
    assert run("ticket", "accept", ticket_id, "--party", met[0], expect=1).err.startswith("TICKET_DECLINED · ")
    assert "only bank" in run("ticket", "decline", ticket_id, "--party", met[1], expect=1).err


@pytest.mark.parametrize(
    "change",
    [{"exp": 10**4299}, {"exp": 10**13}, {"pipelines": [POISON]}, {"approval": POISON}, {POISON: 1}],
    ids=["digits", "year", "pipeline", "approval", "claim"],
)
def test_store_that_holds_poison_is_listed_with_that_row_as_unreadable(
    run: Run, met: tuple[str, str], ticket_id: str, change: dict[str, object]
) -> None:
    shop = load_party(met[1])
    key = tickets.load_ticket_key(shop.gateway.ticket_key)
    with Store.open(shop.store.url) as store:
        row = store.tickets.get(ticket_id)
        assert row is not None
        poisoned = signed(HEADER, json.dumps({**claims_of(row.grant), **change}).encode(), key)
        store.tickets.put(replace(row, ticket_id="poison", grant=poisoned))
        store.audit.add("shop", "ticket.offered", "noted", reason=POISON[:-1], until=10**4000)
    states = {row["ticket_id"]: row["state"] for row in run("ticket", "list", "--json", "--party", met[1]).json()}
    assert states == {ticket_id: "issued", "poison": "unreadable: TICKET_INVALID"}
    shown = [
        run("ticket", "list", "--party", met[1]).out,
        run("ticket", "show", "poison", "--party", met[1], expect=1).err,
        run("audit", "list", "--party", met[1]).out,
        run("audit", "list", "--json", "--party", met[1]).out,
    ]
    for text in shown:
        assert all(line.isprintable() for line in text.splitlines())
        text.encode()
    assert run("audit", "list", "--json", "--party", met[1]).json()[-1]["detail"]["reason"] == POISON[:-1]
    wide = run("audit", "list", "--party", met[1]).out
    assert "".join(wide.split()).count("0") >= 4000


def test_nothing_that_a_command_says_is_cut(run: Run, met: tuple[str, str]) -> None:
    shop = load_party(met[1])
    long = "x" * 2000 + "decides"
    with Store.open(shop.store.url) as store:
        store.audit.add("shop", "note", "noted", text=long)
    shown = run("audit", "list", "--party", met[1]).out
    assert "…" not in shown
    assert shown.count("x") >= 2000
