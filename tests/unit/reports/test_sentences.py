"""Every error of the registry, said on both sides: the same sentence, true from where it is read."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from fedtasks.cli.output import error_line
from fedtasks.errors import (
    CertificateEnds,
    ConfigError,
    FedtasksError,
    Parties,
    PeerDagMissing,
    PeerFailed,
    PeerPaused,
    PeerUnknown,
    TicketScope,
    leaves,
)
from fedtasks.reports.dag_runs import failure_report
from fedtasks.reports.status import advice_of_check, explained, refusal_words, words_of
from fedtasks.store import RefusalRow

BANK, SHOP = "bank", "shop"
SIDES = ((BANK, SHOP), (SHOP, BANK))
LEAVES = list(leaves())

every_leaf = pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)

# Words that mean one thing on one side and another on the other.
_WHERE = re.compile(
    r"(?i)\bhere\b|\bthere\b(?! is| are)|\b(ours|theirs)\b"
    r"|\b(this|the other|that) (side|half|gateway|airflow|party(?!\.yaml))\b"
)
_DANGLING = re.compile(r"^\w+ (it|them|this|these|those)\b")


def row(leaf: type[FedtasksError], at: str, **facts: Any) -> dict[str, Any]:
    """A failure as the store of either party has it."""
    return {"code": leaf.code, "text": leaf(field="x").public, "party": at, "task": "train", "at_ms": 1} | facts


@every_leaf
def test_error_says_the_same_on_both_sides_and_names_who_must_act(leaf: type[FedtasksError]) -> None:
    for at, holder in product((BANK, SHOP), repeat=2):
        told = [explained(row(leaf, at), party, peer, holder=holder) for party, peer in SIDES]
        assert words_of(told[0]) == words_of(told[1])
        said, act, remedy = words_of(told[0]), told[0].act, told[0].remedy
        assert not _WHERE.search(said), said
        assert "{" not in said
        assert act in {BANK, SHOP, f"{BANK} and {SHOP}", f"{SHOP} and {BANK}", ""}
        if act:
            assert said.startswith(f"{act} must act · Failed at {at} · train · {leaf.code}")
        else:
            assert remedy.startswith("Nothing to do")
        # It speaks to whoever must act, who is not told to turn to themselves.
        assert not re.search(rf"(?i)\b(ask|let) {act or '-'}\b", remedy), remedy


@every_leaf
def test_remedy_stands_alone(leaf: type[FedtasksError]) -> None:
    for said in (leaf.summary, leaf.advice(Parties(own=BANK, peer=SHOP, grantor=SHOP, holder=BANK))):
        assert re.match(r"[A-Z`]|bank |shop ", said), said
        assert not _WHERE.search(said), said
        assert not said.endswith((".", " ", ":", ";", ",")), said
        assert said == " ".join(said.split())
        assert not _DANGLING.match(said), said


@every_leaf
def test_error_without_names_calls_the_parties_by_their_roles(leaf: type[FedtasksError]) -> None:
    for said in (str(leaf()), error_line(leaf())):
        assert "{" not in said
        assert leaf.advice() in said


@every_leaf
def test_refusal_says_who_refused_and_who_must_act(leaf: type[FedtasksError]) -> None:
    for at in (BANK, SHOP):
        refusal = RefusalRow("train", "manual", "train", "2026-11-21", SHOP, row(leaf, at, refuser=SHOP), 0)
        said = refusal_words(refusal, BANK)
        assert "Refused by shop" in said
        assert not _WHERE.search(said), said


@every_leaf
def test_failure_of_the_peer_asks_of_it_what_its_own_side_reads(leaf: type[FedtasksError]) -> None:
    ours = row(PeerFailed, SHOP, cause=leaf.code, text=f"{leaf.code}: {leaf.summary}")
    here, there = explained(ours, BANK, SHOP, holder=BANK), explained(row(leaf, SHOP), SHOP, BANK, holder=BANK)
    assert (here.act, here.remedy, here.failing) == (there.act, there.remedy, there.failing)
    assert here.code == PeerFailed.code


def test_refusal_for_a_dag_that_the_peer_has_paused_is_the_peers_and_so_is_the_remedy() -> None:
    refusal = RefusalRow("train", "manual", "train", "2026-11-21", SHOP, row(PeerPaused, SHOP, refuser=SHOP), 0)
    said = refusal_words(refusal, BANK)
    assert said.startswith("shop must act · Refused by shop · PEER_PAUSED · ")
    assert said.endswith("Unpause the DAG in shop's Airflow")


@pytest.mark.parametrize("leaf", [ConfigError, TicketScope])
def test_refusal_for_what_was_typed_asks_of_nobody_but_who_typed_it(leaf: type[FedtasksError]) -> None:
    refusal = RefusalRow("train", "manual", "train", "2026-11-21", SHOP, row(leaf, BANK, refuser=SHOP), 0)
    assert refusal_words(refusal, BANK).startswith("bank must act · Refused by shop · ")


def test_remedy_of_a_preflight_names_the_airflow_that_the_check_is_about() -> None:
    assert advice_of_check(PeerDagMissing.code, "shop: DAG", BANK, SHOP) == (
        "shop: Deploy the same DAG file in shop's Airflow"
    )
    assert advice_of_check(PeerDagMissing.code, "bank: DAG", BANK, SHOP) == (
        "bank: Deploy the same DAG file in bank's Airflow"
    )
    assert advice_of_check(CertificateEnds.code, "shop: certificate", BANK, SHOP).startswith(
        "shop: Renew the certificate"
    )


def test_who_ended_a_dag_run_is_said_to_their_own_party_alone() -> None:
    failure = {"code": "RUN_CANCELLED", "text": "The run was cancelled", "party": BANK, "by": "eve"}
    assert "by eve in bank's Airflow" in words_of(explained(failure, BANK, SHOP))
    assert failure_report(failure, BANK, SHOP)["text"] == "The run was cancelled · by eve in bank's Airflow"


def test_peer_that_does_not_know_this_party_must_act_itself() -> None:
    assert explained(row(PeerUnknown, SHOP), BANK, SHOP).act == SHOP
