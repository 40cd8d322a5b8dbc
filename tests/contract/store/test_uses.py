"""What every store promises of what runs use of their tickets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest

from fedtasks.errors import TicketExhausted, TicketMissing, TicketRateLimited
from fedtasks.store import Charged, Store
from tests.support.stores import NOW, TICKET, Database, opened, run_together

HOUR = 3_600_000


DAY = 24 * HOUR


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ticking(database: Database, clock: Clock) -> Iterator[Store]:
    """A store whose clock the test sets, with one ticket."""
    with opened(database, clock=clock) as store:
        store.tickets.put(TICKET)
        yield store


def test_uses_of_several_runs_add_up_by_kind(store: Store) -> None:
    store.tickets.put(TICKET)
    store.tickets.put(replace(TICKET, ticket_id="t-2"))
    assert store.uses.count("t-1", "r1", "runs", 1, None) == 1
    assert store.uses.count("t-1", "r2", "runs", 1, 2) == 2
    assert store.uses.count("t-1", "r2", "ids_blinded", 2**40, None) == 2**40
    assert store.uses.count("t-2", "r3", "runs", 1, 1) == 1
    assert store.uses.total("t-1") == {"ids_blinded": 2**40, "runs": 2}


def test_use_of_the_same_run_again_costs_only_what_it_rose(store: Store) -> None:
    store.tickets.put(TICKET)
    totals = [store.uses.count("t-1", "r1", "ids", amount, 100) for amount in (40, 40, 70, 10, 100)]
    assert totals == [40, 40, 70, 70, 100]
    assert store.uses.total("t-1") == {"ids": 100}


def test_use_beyond_the_limit_is_refused_and_not_written(store: Store) -> None:
    store.tickets.put(TICKET)
    store.uses.count("t-1", "r1", "ids", 60, 100)
    for run_id, amount in (("r1", 101), ("r2", 41)):
        with pytest.raises(TicketExhausted) as caught:
            store.uses.count("t-1", run_id, "ids", amount, 100)
        expected = {"clause": "limits.ids", "limit": "100", "used": "60", "asked": str(amount)}
        assert caught.value.fields == expected
    assert store.uses.total("t-1") == {"ids": 60}


def test_use_of_a_run_already_charged_passes_a_full_ticket(store: Store) -> None:
    store.tickets.put(TICKET)
    store.uses.count("t-1", "r1", "runs", 1, 1)
    assert store.uses.count("t-1", "r1", "runs", 1, 1) == 1


def test_use_released_is_free_again(store: Store) -> None:
    store.tickets.put(TICKET)
    store.uses.count("t-1", "r1", "runs", 1, 2)
    store.uses.count("t-1", "r2", "runs", 1, 2)
    store.uses.release("t-1", "r1")
    assert store.uses.total("t-1") == {"runs": 1}
    assert store.uses.count("t-1", "r3", "runs", 1, 2) == 2


def test_use_of_an_unknown_ticket_is_refused(store: Store) -> None:
    with pytest.raises(TicketMissing):
        store.uses.count("t-1", "r1", "runs", 1, None)


def test_use_of_a_negative_amount_is_a_mistake(store: Store) -> None:
    store.tickets.put(TICKET)
    with pytest.raises(ValueError, match="negative"):
        store.uses.count("t-1", "r1", "runs", -1, None)


def test_use_beyond_the_day_is_refused_until_the_named_time(ticking: Store, clock: Clock) -> None:
    for hour, run_id, amount in ((0, "r1", 40), (3, "r2", 50)):
        clock.now = NOW + hour * HOUR
        ticking.uses.count("t-1", run_id, "ids", amount, 1000, 100)
    clock.now = NOW + 5 * HOUR
    with pytest.raises(TicketRateLimited) as caught:
        ticking.uses.count("t-1", "r3", "ids", 60, 1000, 100)
    room_at = caught.value.fields.pop("room_at")
    assert caught.value.fields == {"clause": "limits.ids_per_day", "limit": "100", "used": "90", "asked": "60"}
    assert caught.value.retryable
    # 40 leave after a day, then 50 + 60 is still too much; 50 leave three hours later.
    assert datetime.fromisoformat(room_at).timestamp() * 1000 == NOW + 3 * HOUR + DAY
    clock.now = NOW + 3 * HOUR + DAY - 1
    with pytest.raises(TicketRateLimited):
        ticking.uses.count("t-1", "r3", "ids", 60, 1000, 100)
    clock.now += 1
    assert ticking.uses.count("t-1", "r3", "ids", 60, 1000, 100) == 150
    assert ticking.uses.total("t-1", since_ms=clock.now - DAY) == {"ids": 60}


def test_use_of_more_than_a_day_holds_is_refused_for_good(ticking: Store) -> None:
    with pytest.raises(TicketExhausted) as caught:
        ticking.uses.count("t-1", "r1", "ids", 101, None, 100)
    assert caught.value.fields["clause"] == "limits.ids_per_day"
    assert not caught.value.retryable
    assert ticking.uses.total("t-1") == {}


def test_use_charged_before_passes_a_full_day_and_does_not_renew_it(ticking: Store, clock: Clock) -> None:
    ticking.uses.count("t-1", "r1", "ids", 100, None, 100)
    clock.now = NOW + 23 * HOUR
    assert ticking.uses.count("t-1", "r1", "ids", 100, None, 100) == 100
    clock.now = NOW + DAY
    assert ticking.uses.count("t-1", "r2", "ids", 100, None, 100) == 200


def test_uses_that_are_added_count_on_top_and_keep_both_limits(ticking: Store, clock: Clock) -> None:
    assert [ticking.uses.add("t-1", "r1", "lookups", 40, 200, 100) for _ in range(2)] == [40, 80]
    with pytest.raises(TicketRateLimited):
        ticking.uses.add("t-1", "r1", "lookups", 21, 200, 100)
    assert ticking.uses.add("t-1", "r2", "lookups", 20, 200, 100) == 100
    clock.now += DAY + 1
    assert ticking.uses.add("t-1", "r3", "lookups", 100, 200, 100) == 200
    with pytest.raises(TicketExhausted):
        ticking.uses.add("t-1", "r4", "lookups", 1, 200, 1000)
    assert ticking.uses.total("t-1") == {"lookups": 200}


# --------------------------------------------------------------------------------------------------------------- items
def test_item_is_charged_by_the_most_that_was_said_of_it(store: Store) -> None:
    store.tickets.put(TICKET)
    said = [
        ({"a": 991}, 991),
        ({"a": 1}, 991),
        ({"b": 991}, 1982),
        ({"b": 1, "c": 991}, 2973),
        ({}, 2973),
        ({"a": 990, "b": 992, "c": 0, "d": 0}, 2974),
    ]
    assert [store.uses.count_items("t-1", "r1", "ids", amounts, None) for amounts, _ in said] == [
        Charged(run=total, ticket=total) for _, total in said
    ]
    assert store.uses.total("t-1") == {"ids": 2974}


def test_items_of_several_runs_and_kinds_are_charged_apart(store: Store) -> None:
    store.tickets.put(TICKET)
    store.tickets.put(replace(TICKET, ticket_id="t-2"))
    assert store.uses.count_items("t-1", "r1", "ids", {"a": 5, "b": 2**40}, None) == Charged(2**40 + 5, 2**40 + 5)
    assert store.uses.count_items("t-1", "r2", "ids", {"a": 5}, None) == Charged(5, 2**40 + 10)
    assert store.uses.count_items("t-1", "r2", "other", {"a": 3}, None) == Charged(3, 3)
    assert store.uses.count_items("t-2", "r1", "ids", {"a": 1}, None) == Charged(1, 1)
    assert store.uses.count("t-1", "r2", "ids", 4, None) == 2**40 + 14
    store.uses.release("t-1", "r1")
    assert store.uses.total("t-1") == {"ids": 9, "other": 3}


def test_items_beyond_a_limit_are_refused_together(ticking: Store, clock: Clock) -> None:
    ticking.uses.count_items("t-1", "r1", "ids", {"a": 60}, 100, 80)
    with pytest.raises(TicketExhausted) as caught:
        ticking.uses.count_items("t-1", "r1", "ids", {"a": 61, "b": 40}, 100)
    assert caught.value.fields == {"clause": "limits.ids", "limit": "100", "used": "60", "asked": "101"}
    with pytest.raises(TicketRateLimited) as limited:
        ticking.uses.count_items("t-1", "r1", "ids", {"b": 11, "c": 10}, 100, 80)
    assert limited.value.fields["clause"] == "limits.ids_per_day"
    assert ticking.uses.total("t-1") == {"ids": 60}
    assert ticking.uses.count_items("t-1", "r1", "ids", {"a": 60, "b": 20}, 100, 80) == Charged(80, 80)
    clock.now += DAY
    assert ticking.uses.total("t-1", since_ms=clock.now - DAY) == {}
    # What was charged on another day stays charged, and is not counted for this one.
    assert ticking.uses.count_items("t-1", "r1", "ids", {"a": 1, "b": 1, "d": 20}, 100, 20) == Charged(100, 100)
    assert ticking.uses.total("t-1", since_ms=clock.now - DAY) == {"ids": 20}


def test_item_of_a_negative_amount_is_a_mistake(store: Store) -> None:
    store.tickets.put(TICKET)
    with pytest.raises(ValueError, match="negative: -2"):
        store.uses.count_items("t-1", "r1", "ids", {"a": 3, "b": -2}, None)
    assert store.uses.total("t-1") == {}


def test_items_of_one_run_counted_by_several_processes_add_up(database: Database) -> None:
    code = """
with Store.open(url, password_file) as store:
    meet()
    for number in range(20):
        store.uses.count_items("t-1", "r1", "ids", {f"{name}.{number}": 5, "same": number}, None)
        try:
            store.uses.count_items("t-1", "r1", "other", {f"{name}.{number}": 3}, 181)
            say("charged")
        except TicketExhausted:
            pass
"""
    with opened(database) as store:
        store.tickets.put(TICKET)
        charged = run_together(database, code, 4)
        assert len(charged) == 60  # 60 × 3 ≤ 181 < 61 × 3
        assert store.uses.total("t-1") == {"ids": 4 * 20 * 5 + 19, "other": 180}


def test_uses_within_any_day_never_pass_the_limit_per_day(ticking: Store, clock: Clock) -> None:
    chance = random.Random(7)
    amounts: dict[str, int] = {}
    charges: list[tuple[int, int]] = []
    refused = 0
    for _ in range(150):
        clock.now += chance.randrange(6 * HOUR)
        run_id = f"r{chance.randrange(20)}"
        amount = amounts.get(run_id, 0) + chance.randrange(-5, 40)
        try:
            ticking.uses.count("t-1", run_id, "ids", max(amount, 0), None, 100)
        except TicketRateLimited:
            refused += 1
            continue
        charges.append((clock.now, max(amount - amounts.get(run_id, 0), 0)))
        amounts[run_id] = max(amount, amounts.get(run_id, 0))
        assert sum(rise for at_ms, rise in charges if at_ms > clock.now - DAY) <= 100
    assert ticking.uses.total("t-1") == {"ids": sum(amounts.values())}
    assert 10 < refused < 140


@pytest.mark.parametrize("bounds", ["10, None", "None, 10"], ids=["ever", "per day"])
def test_uses_counted_by_several_processes_never_pass_the_limit(database: Database, bounds: str) -> None:
    code = """
bounds = BOUNDS
with Store.open(url, password_file) as store:
    meet()
    for ticket in range(40):
        for number in range(2):
            try:
                store.uses.count(str(ticket), f"{name}.{number}", "ids", 3, *bounds)
                say(ticket)
            except (TicketExhausted, TicketRateLimited):
                pass
"""
    with opened(database) as store:
        for number in range(40):
            store.tickets.put(replace(TICKET, ticket_id=str(number)))
        counted = run_together(database, code.replace("BOUNDS", bounds), 4)
        for number in range(40):
            assert counted.count(number) == 3  # 3 × 3 ≤ 10 < 4 × 3
            assert store.uses.total(str(number)) == {"ids": 9}
