"""What a peer may make of a run: every message that it can send of one, honest or not, against a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks import errors, tickets
from fedtasks.clock import DAY_MS, now_ms
from fedtasks.store import ApprovalRow, HalfRow, RunCharge, RunRow
from fedtasks.tickets import load_ticket_key, sign_receipt
from fedtasks.wire.v1 import failure_pb2, run_pb2
from tests.support.gateways import PIPELINE, Member, shared_config, sign_ticket
from tests.support.runs import STEPS
from tests.support.sides import Side, half, side, update

RUN = f"{PIPELINE}.2026-11-21.bank.1"
RUNNING, SUCCEEDED, FAILED = run_pb2.STATE_RUNNING, run_pb2.STATE_SUCCEEDED, run_pb2.STATE_FAILED


class House:
    """The shop, of whom the bank asks; what a test changes is its clock, its ticket and its run."""

    def __init__(self, shop: Member, bank: Member) -> None:
        self.shop, self.bank = shop, bank
        self.now = now_ms()

    def open(self, side: Side, *, initiated: bool = False, **ticket: Any) -> None:
        """Let a run under a ticket of the shop's (of the bank's, if the shop initiated it) go on."""
        grantor, holder = (self.bank, self.shop) if initiated else (self.shop, self.bank)
        signed = replace(sign_ticket(grantor, holder, **ticket), peer="bank", granted=not initiated)
        side.store.tickets.put(signed)
        row = RunRow(
            RUN,
            PIPELINE,
            "2026-11-21",
            1,
            "bank",
            initiated,
            signed.ticket_id,
            "d",
            shared_config(),
            json.dumps([{"name": step.name, "kind": step.kind, "digest": step.digest} for step in STEPS]),
            PIPELINE,
            RUN,
            opened_ms=1,
        )
        approved = ApprovalRow(RUN, "approved", "approval", 1, 2, 3, "eve")
        side.runs.create(row, approved if tickets.peek(signed.grant).asks_for_a_person else None, RunCharge())


@pytest.fixture
def house(members: tuple[Member, Member]) -> House:
    bank, shop = members
    return House(shop, bank)


@pytest.fixture
def shop(house: House, tmp_path: Path) -> Iterator[Side]:
    with side(house.shop, tmp_path / "store.db", lambda: house.now) as made:
        yield made


def state(shop: Side) -> tuple[str, str]:
    """Return how the run stands, and why it failed."""
    row = shop.runs.run(RUN)
    return row.state, (row.failure or {}).get("code", "")


def refusals(shop: Side) -> list[tuple[str, str, str]]:
    rows = [row for row in shop.store.audit.list() if row.decision == "refused"]
    return [(row.actor, row.action, str(row.detail["code"])) for row in rows]


def charged(shop: Side) -> int:
    return shop.store.uses.total(shop.runs.run(RUN).ticket_id)["runs"]


def run_own(shop: Side, task: str, token: str) -> int:
    """Announce and end this side's half; return its attempt."""
    attempt = shop.own_halves.announce(RUN, task, token, 60).own.attempt
    shop.own_halves.succeed(RUN, task, attempt, {"counts": {"rows": 3}})
    return attempt


class Peer:
    """The bank's gateway, which may say anything."""

    def __init__(self, shop: Side) -> None:
        self.shop = shop
        self.version = shop.runs.run(RUN).peer_version

    def say(self, *halves: run_pb2.Half, state: int = RUNNING, **more: Any) -> None:
        self.version += 1
        self.shop.peer_halves.learn("bank", update(RUN, self.version, *halves, state=state, **more))


def end_well(house: House, shop: Side, peer: Peer, attempt: int = 1) -> None:
    """Let both sides do `train` and sign."""
    peer.say(half(attempt=attempt))
    token = f"t{attempt}"
    assert run_own(shop, "train", token) == attempt
    shop.runs.close(RUN)
    key = load_ticket_key(house.bank.party.gateway.ticket_key)
    account = {**shop.runs.account(shop.runs.run(RUN)), "party": "bank"}
    peer.say(half(attempt=attempt, state=SUCCEEDED), state=SUCCEEDED, receipt=sign_receipt(account, key))
    assert state(shop) == ("succeeded", "")


def signed_here(house: House, shop: Side) -> Peer:
    """Let the shop do its half and sign, and the bank be at its own."""
    house.open(shop)
    peer = Peer(shop)
    peer.say(half())
    run_own(shop, "train", "t1")
    shop.runs.close(RUN)
    return peer


# --------------------------------------------------------------------------------------------------- what a peer says
NESTED = '{"a":' * 3_000 + "1" + "}" * 3_000
BAD = {
    "a state that there is not": {"state": 77},
    "a run that waits": {"state": run_pb2.STATE_WAITING},
    "no state": {"state": 0},
    "a version beyond the database": {"version": 2**64 - 1},
    "a half in a state that there is not": {"halves": [half(state=99)]},
    "a half without a state": {"halves": [half(state=0)]},
    "a task of another pipeline": {"halves": [half("mine")]},
    "a task that is no name": {"halves": [half("train\x1b[2J")]},
    "a task beyond all names": {"halves": [half("train" * 10_000)]},
    "a task with a NUL": {"halves": [half("train\0")]},
    "a shard of no number": {"halves": [half("train[٣]")]},
    "a task twice": {"halves": [half(), half()]},
    "too many tasks": {"halves": [half(f"psi.send[{number}]") for number in range(2_501)]},
    "attempt 2 before attempt 1": {"halves": [half(attempt=2)]},
    "attempt 0": {"halves": [half(attempt=0)]},
    "the last attempt of all": {"halves": [half(attempt=2**32 - 1)]},
    "an outcome that is no JSON": {"halves": [half(state=SUCCEEDED, outcome_json="{")]},
    "an outcome that is no object": {"halves": [half(state=SUCCEEDED, outcome_json="[]")]},
    "an outcome nested deep": {"halves": [half(state=SUCCEEDED, outcome_json=NESTED)]},
    "an outcome with half a character": {"halves": [half(state=SUCCEEDED, outcome_json=r'{"a":"\ud800"}')]},
    "an outcome that is not finite": {"halves": [half(state=SUCCEEDED, outcome_json='{"a":NaN}')]},
    "a time before all time": {"halves": [half(since_ms=-1)]},
    "a time that no calendar has": {"halves": [half(until_ms=2**62)]},
    "a failure at such a time": {"failure": failure_pb2.Failure(code="X", at_ms=2**62), "state": FAILED},
    "progress, which is nobody else's": {"halves": [half(progress_json="{}")]},
    "a receipt with a NUL": {"receipt": "a\0b"},
    "a receipt without end": {"receipt": "a" * 300_000},
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_gateway_says_of_a_run_ends_it(house: House, shop: Side, case: str) -> None:
    house.open(shop)
    said = dict(BAD[case])
    message = update(RUN, said.pop("version", 1), *said.pop("halves", []), **said)  # type: ignore[call-overload]
    with pytest.raises(errors.ProtocolViolated):
        shop.peer_halves.learn("bank", message)
    assert state(shop) == ("failed", "PROTOCOL_VIOLATED")
    assert shop.store.halves.list(RUN) == []
    assert [run.run_id for run in shop.store.runs.unacked("bank")] == [RUN]  # the peer is told


def test_the_same_violation_again_is_refused_again(house: House, shop: Side) -> None:
    house.open(shop)
    for _ in range(3):
        with pytest.raises(errors.ProtocolViolated):
            shop.peer_halves.learn("bank", update(RUN, 5, half(attempt=9)))
    assert shop.store.halves.list(RUN) == []


def test_attempts_that_fall_are_refused(house: House, shop: Side) -> None:
    house.open(shop)
    peer = Peer(shop)
    peer.say(half())
    run_own(shop, "train", "a")
    peer.say(half(attempt=2))
    with pytest.raises(errors.ProtocolViolated) as caught:
        peer.say(half(attempt=1))
    assert caught.value.fields["field"] == "train.attempt"


def test_receipt_that_the_peer_has_not_signed_ends_the_run(house: House, shop: Side) -> None:
    peer = signed_here(house, shop)
    peer.say(half(state=SUCCEEDED), state=SUCCEEDED, receipt="a.b.c")
    assert state(shop) == ("failed", "SIGNATURE_WRONG")


@pytest.mark.parametrize("run_id", ["none.2026-11-21.bank.1", RUN, "a\0b", "x" * 100_000, "läufe", ""])
def test_run_of_another_peer_and_no_run_are_answered_alike(house: House, shop: Side, run_id: str) -> None:
    house.open(shop)
    answers = []
    for ask in (
        lambda: shop.runs.run_with("cafe", run_id),
        lambda: shop.peer_halves.learn("cafe", update(run_id, 1)),
    ):
        with pytest.raises(errors.RunUnknown) as caught:
            ask()
        answers.append((caught.value.code, caught.value.public))
    assert set(answers) == {("RUN_UNKNOWN", errors.RunUnknown.summary)}
    assert state(shop) == ("running", "")


# ----------------------------------------------------------------------------------------------------------- attempts
def test_peer_may_have_a_task_repeated_as_often_as_the_ticket_says(house: House, shop: Side) -> None:
    house.open(shop, limits={"attempts": 2, "runs": 10})
    peer = Peer(shop)
    for attempt in (1, 2, 3):
        peer.say(half(attempt=attempt))
        assert run_own(shop, "train", f"t{attempt}") == attempt
    peer.say(half(attempt=4))
    assert state(shop) == ("failed", "ATTEMPTS_EXHAUSTED")
    assert refusals(shop) == [("bank", "run.repeat", "ATTEMPTS_EXHAUSTED")]
    failure = shop.runs.run(RUN).failure
    assert failure is not None
    assert "limits.attempts" in failure["text"]


@pytest.mark.parametrize("initiated", [False, True])
@pytest.mark.parametrize("renewed", [True, False])
def test_attempts_that_go_on_from_what_was_kept_are_no_repeats_however_many_outages_there_are(
    house: House, shop: Side, initiated: bool, renewed: bool
) -> None:
    house.open(shop, initiated=initiated)
    peer = Peer(shop)
    for attempt in range(1, 9):
        peer.say(half(attempt=attempt))
        if state(shop)[0] == "failed":
            break
        shop.own_halves.announce(RUN, "train", f"t{attempt}", 60.0, renewed=renewed and attempt > 1)
        again = shop.own_halves.announce(RUN, "train", f"t{attempt}", 60.0, renewed=renewed and attempt > 1)
        assert again.own.attempt == attempt  # asked twice, counted once
        shop.own_halves.start(RUN, "train", attempt)
        shop.own_halves.fail(RUN, "train", attempt, errors.LinkLost("cut"), final=False)
    assert state(shop) == (("running", "") if renewed else ("failed", "ATTEMPTS_EXHAUSTED"))


def test_attempts_are_bounded_on_the_side_that_holds_the_ticket_too(house: House, shop: Side) -> None:
    house.open(shop, initiated=True)
    peer = Peer(shop)
    for attempt in range(1, 6):
        peer.say(half(attempt=attempt))
        if attempt < 5:
            run_own(shop, "train", f"t{attempt}")
    assert state(shop) == ("failed", "ATTEMPTS_EXHAUSTED")


def test_what_follows_a_repeated_task_is_counted_with_it(house: House, shop: Side) -> None:
    house.open(shop, limits={"attempts": 1, "runs": 10})
    peer = Peer(shop)
    for task in ("psi", "train"):
        peer.say(*(half(done, state=SUCCEEDED) for done in ("psi",) if done != task), half(task))
        run_own(shop, task, "1")
    peer.say(half("psi", state=SUCCEEDED), half("train", attempt=2))
    run_own(shop, "train", "2")
    peer.say(half("psi", attempt=2), half("train", attempt=2, state=SUCCEEDED))  # its repetition would repeat `train`
    assert state(shop) == ("failed", "ATTEMPTS_EXHAUSTED")
    failure = shop.runs.run(RUN).failure
    assert failure is not None
    assert failure["task"] == "train"


def test_attempt_of_a_peer_that_calls_its_run_done_counts_all_the_same(house: House, shop: Side) -> None:
    house.open(shop, limits={"attempts": 1, "runs": 10})
    peer = Peer(shop)
    for attempt in (1, 2):
        peer.say(half(attempt=attempt))
        run_own(shop, "train", f"t{attempt}")
    peer.say(half(attempt=3), state=SUCCEEDED)
    assert state(shop) == ("failed", "ATTEMPTS_EXHAUSTED")


def test_a_night_of_cut_links_and_killed_workers_stays_within_the_default(house: House, shop: Side) -> None:
    """Both sides' two automatic retries, used up in turns, are less than what a ticket allows by default."""
    house.open(shop)
    peer = Peer(shop)
    peer.say(half())
    shop.own_halves.announce(RUN, "train", "s1", 60)
    shop.own_halves.start(RUN, "train", 1)
    peer.say(half(state=FAILED))  # killed, and tried again
    peer.say(half(attempt=2))
    shop.own_halves.fail(RUN, "train", 1, errors.PeerRestarted(), final=False)
    shop.own_halves.announce(RUN, "train", "s2", 60)
    shop.own_halves.start(RUN, "train", 2)
    shop.own_halves.fail(RUN, "train", 2, errors.LinkLost(), final=False)  # the link, on both sides
    assert shop.own_halves.announce(RUN, "train", "s3", 60).own.attempt == 3
    peer.say(half(attempt=3))
    assert shop.runs.meeting(RUN, "train").ready
    assert state(shop) == ("running", "")


def test_half_whose_worker_dies_before_anybody_came_keeps_its_attempt(house: House, shop: Side) -> None:
    house.open(shop)
    for token in ("1", "2", "3"):
        assert shop.own_halves.announce(RUN, "train", token, 60).own.attempt == 1
    Peer(shop).say(half())
    assert shop.runs.meeting(RUN, "train").ready


# ---------------------------------------------------------------------------------------------------------- reopenings
def test_run_that_the_peer_lets_go_on_is_charged_once_more(house: House, shop: Side) -> None:
    house.open(shop, limits={"runs": 2})
    peer = Peer(shop)
    end_well(house, shop, peer)
    signed = shop.runs.run(RUN)
    peer.say(half(attempt=2))
    assert (state(shop), charged(shop)) == (("running", ""), 2)
    (row,) = shop.store.audit.list(action="run.reopen")
    assert (row.actor, row.decision, row.detail["charged"]) == ("bank", "allowed", 1)
    assert row.detail["receipts"] == {"own": signed.receipt, "peer": signed.peer_receipt}

    shop.peer_halves.learn("bank", update(RUN, peer.version, half(attempt=2)))  # once more, as after a lost answer
    peer.say(half(attempt=2))
    assert charged(shop) == 2

    end_well(house, shop, peer, 2)
    with pytest.raises(errors.TicketExhausted) as caught:
        peer.say(half(attempt=3))
    assert caught.value.fields["clause"] == "limits.runs"
    assert (state(shop), charged(shop)) == (("succeeded", ""), 2)
    assert shop.runs.run(RUN).receipt  # what was signed stays


def test_run_whose_files_were_removed_goes_on_on_neither_side_and_costs_nothing(house: House, shop: Side) -> None:
    house.open(shop, limits={"runs": 5})
    assert not shop.store.runs.mark_removed(RUN)  # it goes on
    peer = Peer(shop)
    end_well(house, shop, peer)
    assert shop.store.runs.mark_removed(RUN)
    before = shop.runs.run(RUN), shop.store.halves.list(RUN)
    with pytest.raises(errors.RunRemoved):
        peer.say(half(attempt=2))
    with pytest.raises(errors.RunRemoved):
        shop.own_halves.announce(RUN, "train", "cleared", 60)
    assert (shop.runs.run(RUN), shop.store.halves.list(RUN)) == before
    assert charged(shop) == 1
    shop.runs.refused(RUN, errors.RunRemoved())  # what the gateway of whoever asks makes of it
    assert state(shop) == ("succeeded", "")


def test_charge_outlives_a_gateway_that_dies_before_it_has_answered(house: House, shop: Side, tmp_path: Path) -> None:
    house.open(shop, limits={"runs": 5})
    peer = Peer(shop)
    end_well(house, shop, peer)
    learn = shop.store.halves.learn
    message = update(RUN, peer.version + 1, half(attempt=2))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    shop.store.halves.learn = die  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        shop.peer_halves.learn("bank", message)
    shop.store.halves.learn = learn  # type: ignore[method-assign]
    with side(house.shop, tmp_path / "store.db") as restarted:
        restarted.peer_halves.learn("bank", message)
        assert (state(restarted), charged(restarted)) == (("running", ""), 2)
        theirs = restarted.store.halves.get(RUN, "train", False)
        assert theirs is not None
        assert theirs.attempt == 2


def test_run_that_goes_on_may_be_repeated_as_often_again(house: House, shop: Side) -> None:
    house.open(shop, limits={"runs": 5, "attempts": 1})
    peer = Peer(shop)
    for attempt in (1, 2):
        peer.say(half(attempt=attempt))
        run_own(shop, "train", f"t{attempt}")
    peer.say(half(attempt=3))
    assert state(shop) == ("failed", "ATTEMPTS_EXHAUSTED")
    peer.say(half(attempt=3, state=FAILED), state=FAILED)
    peer.say(half(attempt=3))  # cleared by a person, at the price of one run
    assert (state(shop), charged(shop)) == (("running", ""), 2)
    assert run_own(shop, "train", "t3") == 3
    peer.say(half(attempt=4))
    assert state(shop) == ("running", "")


def expire(house: House, shop: Side) -> None:
    house.now += DAY_MS


def revoke(house: House, shop: Side) -> None:
    row = shop.store.tickets.get(shop.runs.run(RUN).ticket_id)
    assert row is not None
    key = load_ticket_key(house.shop.party.gateway.ticket_key)
    shop.store.tickets.put(replace(row, revocation=tickets.revoke(row.ticket_id, key, now_ms() / 1000, "a test")))


def narrow(house: House, shop: Side) -> None:
    """Put a ticket in the place of the run's, of the same id, whose floor is above the run's settings."""
    row = shop.store.tickets.get(shop.runs.run(RUN).ticket_id)
    assert row is not None
    grant = replace(tickets.peek(row.grant), floor={"pad_rows": 10})
    key = load_ticket_key(house.shop.party.gateway.ticket_key)
    shop.store.tickets.put(replace(row, grant=tickets.issue(grant, key)))


def declare_more(house: House, shop: Side) -> None:
    party = shop.runs._base.party
    wider = replace(party.datasets[0], features={**party.datasets[0].features, "b": party.datasets[0].features["a"]})
    object.__setattr__(party, "datasets", (wider,))


def occupy(house: House, shop: Side) -> None:
    run = shop.runs.run(RUN)
    shop.store.runs.add(replace(run, run_id="other", dag_run_id="other", state="running", number=7))


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (expire, "TICKET_EXPIRED"),
        (revoke, "TICKET_REVOKED"),
        (narrow, "FLOOR_VIOLATED"),
        (declare_more, "TICKET_SCOPE"),
        (occupy, "TICKET_BUSY"),
    ],
)
def test_run_goes_on_only_within_all_of_its_ticket(house: House, shop: Side, prepare: Any, code: str) -> None:
    house.open(shop, limits={"runs": 5, "concurrent_runs": 1})
    peer = Peer(shop)
    end_well(house, shop, peer)
    before = shop.runs.run(RUN)
    prepare(house, shop)
    with pytest.raises(errors.FedtasksError) as caught:
        peer.say(half(attempt=2))
    assert caught.value.code == code
    assert shop.runs.run(RUN) == before


def test_run_that_the_peer_lets_go_on_asks_the_person_again_first(house: House, shop: Side) -> None:
    house.open(shop, approval="person", limits={"runs": 5})
    peer = Peer(shop)
    end_well(house, shop, peer)
    peer.say(half(attempt=2))
    approval = shop.store.approvals.get(RUN)
    assert approval is not None
    assert (approval.state, approval.decided_by) == ("asked", "")
    with pytest.raises(errors.ApprovalPending):
        shop.own_halves.announce(RUN, "train", "t2", 60)
    shop.own_halves.announce(RUN, "approve", "a2", 60)
    shop.own_halves.decide(RUN, approved=True, decided_by="eve", reason="")
    assert shop.own_halves.announce(RUN, "train", "t2", 60).own.attempt == 2


def test_task_cleared_by_own_people_of_the_granting_side_is_audited_and_free(house: House, shop: Side) -> None:
    house.open(shop, limits={"runs": 1})
    peer = Peer(shop)
    end_well(house, shop, peer)
    assert shop.own_halves.announce(RUN, "train", "cleared", 60).own.attempt == 2
    assert (state(shop), charged(shop)) == (("running", ""), 1)
    (row,) = shop.store.audit.list(action="run.reopen")
    assert (row.actor, row.decision, row.detail["charged"]) == ("shop", "noted", 0)


def test_holder_follows_the_granting_side_without_a_charge_but_within_its_attempts(house: House, shop: Side) -> None:
    house.open(shop, initiated=True, limits={"runs": 1, "attempts": 2})
    peer = Peer(shop)
    end_well(house, shop, peer)
    for attempt in (2, 3):
        peer.say(half(attempt=attempt))
        assert (state(shop), charged(shop)) == (("running", ""), 1)
        end_well(house, shop, peer, attempt)
    peer.say(half(attempt=4))
    assert state(shop) == ("failed", "ATTEMPTS_EXHAUSTED")


def test_run_that_the_peer_does_not_let_go_on_ends_with_its_clause(house: House, shop: Side) -> None:
    house.open(shop, initiated=True)
    shop.runs.refused(RUN, errors.TicketExhausted("A limit of the ticket is used up (clause=limits.runs)"))
    row = shop.runs.run(RUN)
    assert row.failure is not None
    assert (row.state, row.failure["code"], row.failure["party"]) == ("failed", "TICKET_EXHAUSTED", "bank")
    assert "limits.runs" in row.failure["text"]


def test_receipt_says_how_many_attempts_each_task_took(house: House, shop: Side) -> None:
    house.open(shop)
    peer = Peer(shop)
    peer.say(half(), half("close_run"))
    run_own(shop, "train", "1")
    run_own(shop, "close_run", "1")
    peer.say(half(attempt=2), half("close_run"))
    run_own(shop, "train", "2")
    assert shop.runs.account(shop.runs.run(RUN))["attempts"] == {"train": 2}


# ------------------------------------------------------------------------------------------------------------ receipts
def signed_by_bank(house: House, shop: Side) -> str:
    """Return the bank's receipt of a run as the shop sees it."""
    key = load_ticket_key(house.bank.party.gateway.ticket_key)
    return sign_receipt({**shop.runs.account(shop.runs.run(RUN)), "party": "bank"}, key)


def test_receipt_is_withdrawn_when_a_task_is_repeated_that_it_speaks_of(house: House, shop: Side) -> None:
    peer = signed_here(house, shop)
    assert shop.runs.snapshot(RUN).receipt
    peer.say(half(attempt=2))
    assert run_own(shop, "train", "t2") == 2
    assert not shop.runs.snapshot(RUN).receipt
    shop.runs.close(RUN)
    peer.say(half(attempt=2, state=SUCCEEDED), receipt=signed_by_bank(house, shop))
    assert state(shop) == ("succeeded", "")


def test_receipt_stays_when_its_run_is_only_closed_again(house: House, shop: Side) -> None:
    signed_here(house, shop)
    shop.own_halves.announce(RUN, "close_run", "c2", 60)
    assert shop.runs.snapshot(RUN).receipt


def test_run_that_is_cancelled_when_the_peer_has_both_receipts_has_succeeded(house: House, shop: Side) -> None:
    peer = signed_here(house, shop)
    receipt = signed_by_bank(house, shop)
    shop.runs.stop(RUN, "a person")
    assert state(shop) == ("failed", "RUN_CANCELLED")
    peer.say(half(state=SUCCEEDED), state=SUCCEEDED, receipt=receipt)
    assert state(shop) == ("succeeded", "")
    assert shop.runs.snapshot(RUN).receipt
    ends = [row.detail["state"] for row in shop.store.audit.list(action="run.end")]
    assert ends == ["failed", "succeeded"]


@pytest.mark.parametrize("told", ["running", "differs"])
def test_run_that_is_cancelled_before_the_peer_has_both_receipts_stays_so(house: House, shop: Side, told: str) -> None:
    peer = signed_here(house, shop)
    receipt = signed_by_bank(house, shop)
    shop.runs.stop(RUN, "a person")
    if told == "differs":
        key = load_ticket_key(house.bank.party.gateway.ticket_key)
        account = {**shop.runs.account(shop.runs.run(RUN)), "party": "bank", "tasks": {}}
        peer.say(half(state=SUCCEEDED), state=SUCCEEDED, receipt=sign_receipt(account, key))
    else:
        peer.say(half(state=SUCCEEDED), receipt=receipt)
    assert state(shop) == ("failed", "RUN_CANCELLED")


def test_run_that_is_cancelled_before_it_was_signed_has_not_succeeded_whatever_the_peer_says(
    house: House, shop: Side
) -> None:
    house.open(shop)
    peer = Peer(shop)
    peer.say(half())
    run_own(shop, "train", "t1")
    shop.runs.stop(RUN, "a person")
    peer.say(half(state=SUCCEEDED), state=SUCCEEDED, receipt=signed_by_bank(house, shop))
    assert state(shop) == ("failed", "RUN_CANCELLED")


def test_task_that_the_peer_repeats_before_it_learns_of_the_success_lets_the_run_go_on(
    house: House, shop: Side
) -> None:
    peer = signed_here(house, shop)
    peer.say(half(state=SUCCEEDED), receipt=signed_by_bank(house, shop))
    assert (state(shop), charged(shop)) == (("succeeded", ""), 1)
    peer.say(half(attempt=2))
    assert (state(shop), charged(shop)) == (("running", ""), 2)


def test_closing_waits_for_no_half_of_a_peer_that_has_signed(house: House, shop: Side) -> None:
    house.open(shop)
    peer = Peer(shop)
    peer.say(half(), half("close_run"))
    run_own(shop, "train", "t1")
    shop.own_halves.announce(RUN, "close_run", "c1", 60)
    peer.say(half(state=SUCCEEDED), half("close_run", state=SUCCEEDED), receipt=signed_by_bank(house, shop))
    meeting = shop.own_halves.announce(RUN, "close_run", "c2", 60)
    assert (meeting.own.attempt, meeting.peer.attempt, meeting.ready) == (2, 1, True)


# ------------------------------------------------------------------------------------------------------------- charges
@pytest.mark.parametrize("is_known", [False, True], ids=["unknown to it", "known to it"])
def test_run_that_ends_before_its_asker_has_entered_it_costs_nothing(house: House, shop: Side, is_known: bool) -> None:
    house.open(shop)
    shop.runs.triggered(RUN)
    if is_known:
        Peer(shop).say()
    shop.runs.stop(RUN, "a person")
    assert shop.store.uses.total(shop.runs.run(RUN).ticket_id).get("runs", 0) == int(is_known)


def test_charge_stays_of_a_run_of_which_a_restored_store_has_forgotten_what_the_peer_had_said(
    house: House, shop: Side
) -> None:
    house.open(shop)
    shop.runs.triggered(RUN)
    shop.runs.lost_by("shop", RUN)
    assert (state(shop), charged(shop)) == (("failed", "STORE_RESTORED"), 1)


def test_run_whose_charge_was_taken_back_is_charged_when_own_people_let_it_go_on(house: House, shop: Side) -> None:
    house.open(shop)
    shop.runs.triggered(RUN)
    shop.own_halves.announce(RUN, "train", "t1", 60)
    shop.runs.stop(RUN, "a person")
    assert charged_or_none(shop) == 0
    shop.runs.rest(RUN)
    shop.own_halves.announce(RUN, "train", "t2", 60)
    assert (state(shop), charged_or_none(shop)) == (("running", ""), 1)


def charged_or_none(shop: Side) -> int:
    return shop.store.uses.of_run(shop.runs.run(RUN).ticket_id, RUN).get("runs", 0)


# -------------------------------------------------------------------------------------------------------- declarations
def test_run_taken_up_again_reads_the_dataset_as_the_gateway_knows_it_now(house: House, shop: Side) -> None:
    house.open(shop)
    (dataset,) = house.shop.party.datasets
    assert shop.runs.declare(RUN).dataset_digest == dataset.declaration_digest
    declare_more(house, shop)
    with pytest.raises(errors.TicketScope):
        shop.runs.declare(RUN)
    assert shop.runs.run(RUN).dataset_digest == dataset.declaration_digest


def test_half_of_the_peer_that_is_known_is_not_written_again(house: House, shop: Side) -> None:
    house.open(shop)
    peer = Peer(shop)
    peer.say(half())
    written: list[HalfRow] = []
    learn = shop.store.halves.learn

    def note(run_id: str, rows: Sequence[HalfRow], **columns: Any) -> RunRow:
        written.extend(rows)
        return learn(run_id, rows, **columns)

    shop.store.halves.learn = note  # type: ignore[method-assign]
    peer.say(half())
    assert written == []


def test_no_of_a_person_that_the_store_took_only_half_of_ends_the_run_when_it_is_repeated(
    house: House, shop: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.open(shop, approval="person")
    shop.store.approvals.change(RUN, state="asked", decided_ms=None, decided_by="")

    def away(*_: Any) -> None:
        raise errors.StoreUnavailable("away")

    answer = {"approved": False, "decided_by": "ann", "reason": "not today"}
    with monkeypatch.context() as patched:
        patched.setattr(shop.runs, "end", away)
        with pytest.raises(errors.StoreUnavailable):
            shop.own_halves.decide(RUN, **answer)
    assert state(shop) == ("running", "")
    shop.own_halves.decide(RUN, **answer)
    assert state(shop) == ("failed", "APPROVAL_REJECTED")
