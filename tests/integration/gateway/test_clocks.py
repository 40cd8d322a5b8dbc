"""A clock that jumps while two gateways talk: both say so, at once and everywhere, and again when it is put right."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks import errors
from fedtasks.clock import now_ms
from fedtasks.doctor import party as doctor
from fedtasks.gateway import reconciler, skew
from fedtasks.reports.party import overview
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for

JUMP_MS = 600_000


class Jumping:
    """A clock that a test sets wrong."""

    ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


def skew_s(member: Member) -> float:
    with member.client() as client:
        (peer,) = client.peers().peers
    return peer.clock_skew_s if peer.connected else float("nan")


def needs(member: Member) -> list[str]:
    with member.store() as store:
        return [need["kind"] for need in overview(store, member.party, {PIPELINE}, now_ms())["needs"]]


def check(member: Member, peer: str) -> Any:
    with member.client() as client:
        return next(each for each in client.preflight(peer) if each.name == "clock")


@pytest.fixture
def clock(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Jumping:
    """The shop's clock, of two gateways that talk."""
    monkeypatch.setattr(skew, "EVERY_S", 0.2)
    clock = Jumping()
    pair.bank.start()
    pair.shop.start(clock)
    wait_for(lambda: abs(skew_s(pair.bank)) < 5 and abs(skew_s(pair.shop)) < 5)
    return clock


def test_clock_that_jumps_is_seen_by_both_sides_without_a_new_conversation(
    pair: Pair, clock: Jumping, caplog: pytest.LogCaptureFixture
) -> None:
    grant_ticket(pair.shop, pair.bank)
    clock.ahead_ms = JUMP_MS
    wait_for(lambda: abs(skew_s(pair.bank) - 600) < 5 and abs(skew_s(pair.shop) + 600) < 5)
    assert "the clock of shop differs by 600 s; 60 s are allowed" in caplog.text
    found = next(each for each in doctor.examine(pair.bank.folder / "party.yaml") if each.subject == "peer shop")
    assert found.verdict is doctor.Verdict.WRONG
    assert "CLOCK_SKEW its clock differs by 600 s" in found.text
    seen = check(pair.bank, "shop")
    assert (seen.ok, seen.code) == (False, "CLOCK_SKEW")
    wait_for(lambda: "clock_skew" in needs(pair.bank))
    with pair.bank.client() as bank, pytest.raises(errors.ClockSkew):
        open_run(bank)
    clock.ahead_ms = 0
    wait_for(lambda: abs(skew_s(pair.bank)) < 5 and abs(skew_s(pair.shop)) < 5)
    wait_for(lambda: "clock_skew" not in needs(pair.bank))
    with pair.bank.client() as bank:
        assert open_run(bank).run.run_id


def test_note_of_a_run_that_waits_says_that_the_clocks_differ(
    pair: Pair, clock: Jumping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "OBSTACLE_MS", 0)
    grant_ticket(pair.shop, pair.bank)
    with pair.bank.client() as bank:
        run_id = open_run(bank).run.run_id
        pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        clock.ahead_ms = JUMP_MS
        wait_for(lambda: abs(skew_s(pair.bank) - 600) < 5)
        bank.announce(run_id, "train", "1", 60)
    wait_for(lambda: "the clocks differ by 600" in str(pair.bank.airflow.runs[PIPELINE, "manual-1"].get("note")))
    assert "Synchronise both clocks" in pair.bank.airflow.runs[PIPELINE, "manual-1"]["note"]
