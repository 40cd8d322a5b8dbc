"""Ids are counted against the run's ticket before they are signed, at the party that signs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedtasks import errors, tickets
from fedtasks.clock import now_ms
from fedtasks.link.client import GatewayClient
from fedtasks.runtime.context import TaskContext
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.store import AuditRow
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import meet, open_run, wait_for_state

TASK = "psi"
KIND = "ids_blinded"
FILE = "f" * 64
Begin = Callable[..., tuple[str, str, int]]


@pytest.fixture
def begin(running: Pair) -> Begin:
    """Grant the bank a ticket and let both halves of the task meet; returns run, ticket and attempt."""

    def begin(partition: str = "2026-11-21", **limits: int) -> tuple[str, str, int]:
        if limits:
            granted = {"runs": 10, "concurrent_runs": 5, **limits}
            grant_ticket(running.shop, running.bank, limits=granted)
        with running.bank.client() as bank, running.shop.client() as shop:
            run = open_run(bank, f"manual-{partition}", partition=partition).run
            running.bank.airflow.runs[PIPELINE, f"manual-{partition}"] = {"state": "running"}
            open_run(shop, run.run_id, config_json="", peer="", partition="")
            return run.run_id, run.ticket_id, meet([bank, shop], run.run_id, TASK)

    return begin


def decisions(member: Member) -> list[AuditRow]:
    with member.store() as store:
        return store.audit.list(action="use.count")


def used(member: Member, ticket_id: str) -> int:
    with member.store() as store:
        return store.uses.total(ticket_id).get(KIND, 0)


def signer(client: GatewayClient, party_file: Path, run_id: str, attempt: int) -> TaskContext:
    config = TaskConfig(party_file, run_id, TASK, attempt, "bank", "bank", {})
    return GatewayContext(config, None, client)  # type: ignore[arg-type]


def test_ids_beyond_the_ticket_are_refused_and_not_charged(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=1000)
    with running.shop.client() as shop:
        context = signer(shop, running.shop.folder / "party.yaml", run_id, attempt)
        assert context.count_use(KIND, {FILE: 600}) == 600
        with pytest.raises(errors.TicketExhausted) as caught:
            context.count_use(KIND, {FILE: 500, "a": 501})
    assert caught.value.fields["clause"] == "limits.ids_blinded"
    assert used(running.shop, ticket_id) == 600
    allowed, refused = decisions(running.shop)
    facts = {"run_id": run_id, "task": TASK, "attempt": attempt, "kind": KIND, "ticket": ticket_id}
    assert (allowed.actor, allowed.decision) == ("shop", "allowed")
    assert allowed.detail == {**facts, "items": 1, "amount": 600, "charged": 600, "used": 600}
    assert refused.decision == "refused"
    expected = {**facts, "items": 2, "amount": 1001, "code": "TICKET_EXHAUSTED", "clause": "limits.ids_blinded"}
    assert refused.detail == expected
    with running.shop.store() as store:
        store.audit.verify()


def test_run_charged_again_after_a_restart_is_charged_once(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=1000, ids_blinded_per_day=1000)
    with running.shop.client() as shop:
        assert shop.count_use(run_id, TASK, attempt, KIND, {FILE: 700}).used == 700
        running.shop.stop()
        running.shop.start()
        assert shop.count_use(run_id, TASK, attempt, KIND, {FILE: 700}).used == 700
        assert shop.count_use(run_id, TASK, attempt, KIND, {FILE: 300}).used == 700
        assert shop.count_use(run_id, TASK, attempt, KIND, {FILE: 1000}).used == 1000
    assert used(running.shop, ticket_id) == 1000


def test_second_attempt_of_a_run_is_not_charged_again(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=1000)
    with running.bank.client() as bank, running.shop.client() as shop:
        shop.count_use(run_id, TASK, attempt, KIND, {FILE: 900})
        for client in (bank, shop):
            client.finish(run_id, TASK, attempt, failure=errors.LinkLost(), final=False)
        second = meet([bank, shop], run_id, TASK, token="2")
        assert shop.count_use(run_id, TASK, second, KIND, {FILE: 900}).used == 900
        with pytest.raises(errors.AttemptStale):
            shop.count_use(run_id, TASK, attempt, KIND, {FILE: 1000})
    assert used(running.shop, ticket_id) == 900
    assert decisions(running.shop)[-1].detail["code"] == "ATTEMPT_STALE"


def test_attempts_of_a_run_that_say_less_or_ask_another_file_only_add(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=2000)
    with running.bank.client() as bank, running.shop.client() as shop:
        assert shop.count_use(run_id, TASK, attempt, KIND, {FILE: 991}).charged == 991
        for client in (bank, shop):
            client.finish(run_id, TASK, attempt, failure=errors.LinkLost(), final=False)
        second = meet([bank, shop], run_id, TASK, token="2")
        assert shop.count_use(run_id, TASK, second, KIND, {FILE: 1}).charged == 991
        running.shop.stop()
        running.shop.start()
        found = shop.count_use(run_id, TASK, second, KIND, {FILE: 1, "a": 991})
        assert (found.charged, found.used) == (1982, 1982)
        with pytest.raises(errors.TicketExhausted):
            shop.count_use(run_id, TASK, second, KIND, {FILE: 1, "a": 1, "b": 19})
        assert shop.count_use(run_id, TASK, second, KIND, {}).charged == 1982
    assert used(running.shop, ticket_id) == 1982


def test_ids_beyond_the_day_are_refused_until_a_named_time(running: Pair, begin: Begin) -> None:
    first, ticket_id, attempt = begin(ids_blinded_per_day=1000)
    second, _, other = begin("2026-11-22")
    with running.shop.client() as shop:
        before_s = now_ms() // 1000
        shop.count_use(first, TASK, attempt, KIND, {FILE: 800})
        with pytest.raises(errors.TicketRateLimited, match=r"room_at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00") as caught:
            shop.count_use(second, TASK, other, KIND, {FILE: 300})
        assert shop.count_use(second, TASK, other, KIND, {FILE: 200}).used == 1000
    assert caught.value.fields["clause"] == "limits.ids_blinded_per_day"
    room_s = datetime.fromisoformat(caught.value.fields["room_at"]).timestamp()
    assert before_s + 86_400 <= room_s <= now_ms() / 1000 + 86_401
    assert [row.decision for row in decisions(running.shop)] == ["allowed", "refused", "allowed"]
    assert used(running.shop, ticket_id) == 1000


def test_holder_that_signs_counts_in_its_own_store(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=10)
    with running.bank.client() as bank:
        assert bank.count_use(run_id, TASK, attempt, KIND, {FILE: 10}).used == 10
        with pytest.raises(errors.TicketExhausted):
            bank.count_use(run_id, TASK, attempt, KIND, {FILE: 11})
    assert (used(running.bank, ticket_id), used(running.shop, ticket_id)) == (10, 0)


def test_runs_that_count_at_once_never_pass_the_limit(running: Pair, begin: Begin) -> None:
    runs = [begin(ids_blinded=1000), *(begin(f"2026-11-2{day}") for day in (2, 3, 4))]

    def charge(run: tuple[str, str, int]) -> bool:
        with running.shop.client() as shop:
            try:
                shop.count_use(run[0], TASK, run[2], KIND, {FILE: 400})
            except errors.TicketExhausted:
                return False
            return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(charge, runs)) == 2
    assert used(running.shop, runs[0][1]) == 800


def revoke(member: Member, ticket_id: str) -> None:
    with member.store() as store:
        row = store.tickets.get(ticket_id)
        assert row is not None
        key = tickets.load_ticket_key(member.party.gateway.ticket_key)
        revocation = tickets.revoke(ticket_id, key, now_ms() // 1000, "a test")
        store.tickets.put(dataclasses.replace(row, revocation=revocation, synced=False))


def test_ids_under_a_revoked_ticket_are_refused(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=1000)
    revoke(running.shop, ticket_id)
    with running.shop.client() as shop, pytest.raises(errors.TicketRevoked):
        shop.count_use(run_id, TASK, attempt, KIND, {FILE: 1})
    assert used(running.shop, ticket_id) == 0


def test_ids_of_a_run_that_has_ended_are_refused(running: Pair, begin: Begin) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=1000)
    with running.shop.client() as shop:
        shop.cancel_run(run_id, "wrong day")
        wait_for_state(shop, run_id, run_pb2.STATE_FAILED)
        with pytest.raises(errors.RunCancelled):
            shop.count_use(run_id, TASK, attempt, KIND, {FILE: 1})
    assert used(running.shop, ticket_id) == 0


@pytest.mark.parametrize("wrong", [{"kind": "runs"}, {"kind": ""}, {"amounts": {FILE: -1}}])
def test_use_that_nobody_counts_is_refused(running: Pair, begin: Begin, wrong: dict[str, Any]) -> None:
    run_id, ticket_id, attempt = begin(ids_blinded=1000)
    with running.shop.client() as shop, pytest.raises(errors.ConfigError):
        shop.count_use(run_id, TASK, attempt, **{"kind": KIND, "amounts": {FILE: 1}, **wrong})
    with running.shop.store() as store:
        assert store.uses.total(ticket_id) == {"runs": 1}
    assert decisions(running.shop)[-1].detail["code"] == "CONFIG_INVALID"
