"""Live lookups through two real gateways: what a ticket allows, what is counted, who is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedtasks import tickets
from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    LookupsNotServed,
    PeerUnknown,
    ProtocolViolated,
    TicketError,
    TicketExhausted,
    TicketMissing,
    TicketRateLimited,
    TicketRevoked,
    TicketScope,
)
from fedtasks.link.client import GatewayClient
from fedtasks.online.declaration import PIPELINE as ONLINE
from fedtasks.wire.v1 import lookup_pb2, worker_pb2
from tests.support.gateways import Member, Pair, grant_ticket

pytestmark = pytest.mark.timeout(120)

TAGS = [bytes([number]) * 16 for number in range(1, 9)]
KNOWN = frozenset(TAGS[::2])


@dataclass
class Worker:
    """Serves lookups of the bank in the shop's dataset, and remembers what it was asked."""

    policy: str = "matched"
    asked: list[bytes] = field(default_factory=list)

    def answer(self, tags: bytes) -> lookup_pb2.Answers:
        self.asked.append(tags)
        parts = [tags[start : start + 16] for start in range(0, len(tags), 16)]
        matched = bytes(part in KNOWN for part in parts) if self.policy != "nothing" else b""
        return lookup_pb2.Answers(policy=self.policy, matched=matched)


@contextmanager
def serving(shop: Member, worker: Worker, **offer: Any) -> Iterator[threading.Event]:
    """Let a worker serve; yields what is set each time that its gateway knows of it."""
    values = {"peer": "bank", "dataset": "customers", "key_id": "k1", "policy": worker.policy, **offer}
    attached = threading.Event()
    with shop.client() as client:
        arguments = (worker_pb2.Offer(**values), worker.answer, attached.set)
        thread = threading.Thread(target=client.serve_lookups, args=arguments, daemon=True)
        thread.start()
        assert attached.wait(30)
        yield attached
        client.close()
        thread.join(20)
        assert not thread.is_alive()


def lookup(*tags: bytes, sequence: int = 1, **fields: Any) -> lookup_pb2.Lookup:
    values = {"key_id": "k1", "stream": "s1", **fields}
    return lookup_pb2.Lookup(sequence=sequence, tags=b"".join(tags), **values)


def grant(shop: Member, bank: Member, answers: str = "matched", **limits: Any) -> str:
    return grant_ticket(
        shop,
        bank,
        pipelines=(ONLINE,),
        outputs={"answers": answers, "answer_columns": ("a",) if answers == "columns" else ()},
        limits=limits,
    )


def audit(member: Member, action: str) -> list[tuple[str, str]]:
    with member.store() as store:
        return [(row.decision, row.detail.get("code", "")) for row in store.audit.list(action=action)]


def uses(member: Member, ticket_id: str) -> int:
    with member.store() as store:
        return store.uses.total(ticket_id).get("lookups", 0)


@pytest.fixture
def bank(running: Pair) -> Member:
    return running.bank


@pytest.fixture
def shop(running: Pair) -> Member:
    return running.shop


@pytest.fixture
def client(bank: Member) -> Iterator[GatewayClient]:
    with bank.client() as opened:
        yield opened


def test_lookup_is_matched_by_the_peers_worker_and_counted(bank: Member, shop: Member, client: GatewayClient) -> None:
    ticket_id = grant(shop, bank)
    worker = Worker()
    with serving(shop, worker):
        first = client.look_up("shop", lookup(*TAGS[:3]))
        second = client.look_up("shop", lookup(*TAGS[3:], sequence=2, ticket_id=ticket_id, dataset="customers"))

    assert (first.ticket_id, first.dataset, first.answers.policy) == (ticket_id, "customers", "matched")
    assert first.answers.matched + second.answers.matched == bytes([1, 0, 1, 0, 1, 0, 1, 0])
    assert b"".join(worker.asked) == b"".join(TAGS)
    assert uses(shop, ticket_id) == 8
    assert audit(shop, "lookup.answer") == [("allowed", "")]
    assert audit(bank, "lookup.ask") == [("noted", "")]


def test_batch_that_is_asked_again_is_neither_charged_nor_matched_again(
    bank: Member, shop: Member, client: GatewayClient
) -> None:
    ticket_id = grant(shop, bank)
    worker = Worker()
    with serving(shop, worker):
        answers = [client.look_up("shop", lookup(*TAGS)).answers.matched for _ in range(3)]
        with pytest.raises(ProtocolViolated):
            client.look_up("shop", lookup(*TAGS[:1]))
    assert len(set(answers)) == len(worker.asked) == 1
    assert uses(shop, ticket_id) == len(TAGS)


def test_batch_that_nobody_answered_is_charged_once(bank: Member, shop: Member, client: GatewayClient) -> None:
    ticket_id = grant(shop, bank)
    calls: list[bytes] = []

    class Failing(Worker):
        def answer(self, tags: bytes) -> lookup_pb2.Answers:
            calls.append(tags)
            if len(calls) == 1:
                raise LookupsNotServed("the store is away")
            return super().answer(tags)

    with serving(shop, Failing()):
        with pytest.raises(LookupsNotServed):
            client.look_up("shop", lookup(*TAGS))
        assert client.look_up("shop", lookup(*TAGS)).answers.matched == bytes([1, 0] * 4)
    assert uses(shop, ticket_id) == len(TAGS)
    with pytest.raises(LookupsNotServed):
        client.look_up("shop", lookup(*TAGS, sequence=2))
    assert audit(shop, "lookup.answer")[-1] == ("refused", "LOOKUPS_NOT_SERVED")


def test_lookups_go_on_after_both_gateways_have_restarted(bank: Member, shop: Member, client: GatewayClient) -> None:
    grant(shop, bank)
    worker = Worker()
    with serving(shop, worker) as attached:
        client.look_up("shop", lookup(*TAGS[:1]))
        attached.clear()
        for member in (shop, bank):
            member.stop()
            member.start()
        assert attached.wait(30)

        def ask() -> bytes:
            return bytes(client.look_up("shop", lookup(*TAGS, sequence=2)).answers.matched)

        assert patiently(ask) == bytes([1, 0] * 4)


def patiently(ask: Callable[[], bytes]) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except (LookupsNotServed, TicketError):
            raise
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def refused(client: GatewayClient, error: type[Exception], clause: str = "", **fields: Any) -> None:
    with pytest.raises(error) as caught:
        client.look_up("shop", lookup(*TAGS[:2], **fields))
    if clause:
        assert caught.value.fields.get("clause", "") == clause or clause in str(caught.value)  # type: ignore[attr-defined]


def test_without_a_ticket_for_lookups_nothing_is_asked(bank: Member, shop: Member, client: GatewayClient) -> None:
    other = grant_ticket(shop, bank)
    worker = Worker()
    with serving(shop, worker):
        refused(client, TicketMissing)
        refused(client, TicketScope, "pipelines", ticket_id=other, dataset="customers")
        refused(client, TicketMissing, sequence=2, ticket_id="another", dataset="customers")
    assert worker.asked == []
    assert {code for decision, code in audit(shop, "lookup.answer") if decision == "refused"} == {
        "TICKET_SCOPE",
        "TICKET_MISSING",
    }


@pytest.mark.parametrize(
    ("granted", "offered", "clause"),
    [
        ("nothing", {"policy": "matched"}, "outputs.answers"),
        ("matched", {"policy": "columns", "columns": ["a"]}, "outputs.answers"),
        ("columns", {"policy": "columns", "columns": ["b"]}, "outputs.answer_columns"),
    ],
)
def test_worker_that_would_let_out_more_than_the_ticket_allows_is_not_asked(
    bank: Member, shop: Member, client: GatewayClient, granted: str, offered: dict[str, Any], clause: str
) -> None:
    ticket_id = grant(shop, bank, granted)
    worker = Worker(offered["policy"])
    with serving(shop, worker, **offered):
        refused(client, TicketScope, clause)
    assert worker.asked == []
    assert uses(shop, ticket_id) == 0


def test_policy_nothing_answers_not_even_how_many(bank: Member, shop: Member, client: GatewayClient) -> None:
    grant(shop, bank, "nothing")
    worker = Worker("nothing")
    with serving(shop, worker):
        answers = client.look_up("shop", lookup(*TAGS)).answers
    assert answers == lookup_pb2.Answers(policy="nothing")
    assert len(worker.asked) == 1


def test_limits_of_lookups_are_kept_before_anything_is_matched(
    bank: Member, shop: Member, client: GatewayClient
) -> None:
    ticket_id = grant(shop, bank, lookups=10, lookups_per_day=5)
    worker = Worker()
    with serving(shop, worker):
        client.look_up("shop", lookup(*TAGS[:4]))
        with pytest.raises(TicketRateLimited):
            client.look_up("shop", lookup(*TAGS[:2], sequence=2))
        client.look_up("shop", lookup(*TAGS[:1], sequence=3))
        with pytest.raises(TicketExhausted):
            client.look_up("shop", lookup(*TAGS[:6], sequence=4))
    assert uses(shop, ticket_id) == 5
    assert len(worker.asked) == 2


def test_revoked_ticket_ends_lookups_at_once(bank: Member, shop: Member, client: GatewayClient) -> None:
    ticket_id = grant(shop, bank)
    with serving(shop, Worker()):
        client.look_up("shop", lookup(*TAGS))
        key = tickets.load_ticket_key(shop.party.gateway.ticket_key)
        with shop.store() as store:
            row = store.tickets.get(ticket_id)
            assert row is not None
            revocation = tickets.revoke(ticket_id, key, time.time(), "enough")
            store.tickets.put(type(row)(**{**vars(row), "revocation": revocation}))
        refused(client, TicketRevoked, sequence=2, ticket_id=ticket_id, dataset="customers")


def test_tags_of_another_key_and_batches_of_a_wrong_size_are_refused(
    bank: Member, shop: Member, client: GatewayClient
) -> None:
    ticket_id = grant(shop, bank)
    worker = Worker()
    with serving(shop, worker):
        refused(client, ConfigDiffers, "key_id", key_id="k2")
        for tags in (b"", b"x" * 17, b"x" * 16 * 1001):
            with pytest.raises(ProtocolViolated):
                client.look_up("shop", lookup(tags, sequence=9))
    assert worker.asked == []
    assert uses(shop, ticket_id) == 0


@pytest.mark.parametrize(
    ("offer", "error"),
    [
        ({"peer": "stranger"}, PeerUnknown),
        ({"dataset": "unknown"}, ConfigError),
        ({"policy": "everything"}, ConfigError),
        ({"policy": "columns"}, ConfigError),
    ],
)
def test_offer_that_makes_no_sense_is_refused(shop: Member, bank: Member, offer: dict[str, Any], error: type) -> None:
    values = {"peer": "bank", "dataset": "customers", "key_id": "k1", "policy": "matched", **offer}
    with shop.client() as client, pytest.raises(error):
        client.serve_lookups(worker_pb2.Offer(**values), Worker().answer, lambda: None)
