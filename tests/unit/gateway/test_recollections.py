"""A store that was lost or restored from an older copy is noticed by both sides; what it had granted counts again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedtasks.clock import now_ms
from fedtasks.errors import FedtasksError, ProtocolViolated, RunUnknown, StoreRestored, TicketExhausted, from_code
from fedtasks.gateway import recollections
from fedtasks.gateway.party_file import PartyFile
from fedtasks.gateway.recollections import RESTORED, Recollections
from fedtasks.label_budget import ALL
from fedtasks.store import HalfRow, Labels, RunCharge, RunRow
from fedtasks.wire.v1 import peer_pb2
from tests.support.gateways import PIPELINE, Member, shared_config, sign_ticket
from tests.support.sides import Side, side, update

STEPS = '[{"name": "train", "kind": "", "digest": ""}]'


UNPROTECTED = {"label_protection": "none", "max_label_leak": 100}


class _Connection:
    """The conversation with the other house, which answers at once."""

    def __init__(self) -> None:
        self.conversation: object | None = object()
        self.peer_store_id = "greeted"
        self.compared = asyncio.Event()
        self.clock_skew_s = 0.0
        self.other: House | None = None
        self.asked = 0

    async def request(self, **body: Any) -> peer_pb2.Envelope:
        assert self.other is not None
        self.asked += 1
        try:
            return peer_pb2.Envelope(
                recalled=await self.other.recollections.answer(self.other.peer, body["remembered"])
            )
        except FedtasksError as error:
            raise from_code(error.code, error.public) from error


class _Airflow:
    """DAG runs that all go on until they are failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    async def state(self, _dag_id: str, dag_run_id: str) -> str:
        return "failed" if dag_run_id in self.failed else "running"

    async def fail(self, _dag_id: str, dag_run_id: str) -> None:
        self.failed.append(dag_run_id)


class House:
    """One of two parties; its store can be copied, and put back."""

    def __init__(self, member: Member, peer: str, file: Path) -> None:
        self.member, self.peer, self.file = member, peer, file
        self.connection, self.airflow = _Connection(), _Airflow()
        self._stack = ExitStack()
        self.open()

    async def compare(self) -> None:
        """Compare with the other house if that is due."""
        await self.recollections.compare(self.peer, cast("Any", self.connection))

    def open(self) -> None:
        self.side: Side = self._stack.enter_context(side(self.member, self.file))
        base = dataclasses.replace(
            self.side.runs._base,
            connections={self.peer: cast("Any", self.connection)},
            changes=_NoChanges,
            airflow=cast("Any", self.airflow),
        )
        self.recollections = Recollections(base, self.side.runs)

    def close(self) -> None:
        self._stack.close()

    def copy(self) -> Path:
        """Return a copy of the store as it is now."""
        target = self.file.with_suffix(f".{len(list(self.file.parent.iterdir()))}.copy")
        with closing(sqlite3.connect(self.file)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
        return target

    def restore(self, copy: Path | None) -> None:
        """Put a copy in the place of the store, or nothing."""
        self.close()
        for beside in self.file.parent.glob(f"{self.file.name}*"):
            if not beside.name.endswith(".copy"):
                beside.unlink()
        if copy is not None:
            shutil.copy(copy, self.file)
            self.file.chmod(0o600)
        self._stack = ExitStack()
        self.open()

    def state(self, run: RunRow) -> tuple[str, str, str]:
        row = self.side.store.runs.get(run.run_id)
        if row is None:
            return "", "", ""
        failure = row.failure or {}
        return row.state, failure.get("code", ""), failure.get("party", "")


_NoChanges = cast("Any", SimpleNamespace(notify=lambda *_: None))


class Houses:
    """The bank, which asks, and the shop, which has granted."""

    def __init__(self, bank: Member, shop: Member, folder: Path) -> None:
        for name in ("bank", "shop"):
            (folder / name).mkdir()
        self.bank = House(bank, "shop", folder / "bank" / "store.db")
        self.shop = House(shop, "bank", folder / "shop" / "store.db")
        self.bank.connection.other, self.shop.connection.other = self.shop, self.bank
        self.ticket = sign_ticket(shop, bank, limits={"runs": 3, "concurrent_runs": 3})
        self.shop.side.store.tickets.put(self.ticket)
        self.bank.side.store.tickets.put(dataclasses.replace(self.ticket, peer="shop", granted=False))

    def run(self, number: int) -> RunRow:
        """Let both sides enter a run, as admission does: the side that is asked first."""
        name = f"{PIPELINE}.2026-11-21.bank.{number}"
        texts = ("d", shared_config(), STEPS, PIPELINE, name)
        row = RunRow(name, PIPELINE, "2026-11-21", number, "bank", False, self.ticket.ticket_id, *texts, opened_ms=1)
        row = dataclasses.replace(row, opened_ms=now_ms())
        self.shop.side.runs.create(row, None, RunCharge(3, None, 3))
        mine = dataclasses.replace(row, peer="shop", initiated=True)
        self.bank.side.runs.create(mine)
        self.tell(mine)
        return mine

    def tell(self, run: RunRow) -> None:
        """Let both tell each other how the run stands."""
        for here, there in ((self.bank, self.shop), (self.shop, self.bank)):
            news = here.side.runs.snapshot(run.run_id)
            there.side.peer_halves.learn(there.peer, news)
            here.side.runs.acknowledged(run.run_id, news.version)

    def compare(self) -> None:
        """Let both compare, as at the beginning of a conversation."""

        async def work() -> None:
            for house in (self.bank, self.shop):
                house.connection.conversation = object()
            for _ in range(2):
                await asyncio.gather(self.bank.compare(), self.shop.compare())

        asyncio.run(work())

    def charged(self) -> int:
        return self.shop.side.store.uses.total(self.ticket.ticket_id).get("runs", 0)


@pytest.fixture
def houses(members: tuple[Member, Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Houses]:
    monkeypatch.setattr(recollections, "PAUSE_MS", 0)
    bank, shop = members
    made = Houses(bank, shop, tmp_path)
    yield made
    made.bank.close()
    made.shop.close()


def restored(house: House) -> list[str]:
    """Return whose store was found restored, as a house's audit has it."""
    return [row.detail["store"] for row in house.side.store.audit.list(action=RESTORED)]


def test_stores_that_have_lost_nothing_are_compared_without_consequence(houses: Houses) -> None:
    run = houses.run(1)
    houses.compare()
    houses.compare()
    assert houses.bank.state(run) == houses.shop.state(run) == ("running", "", "")
    assert restored(houses.bank) == restored(houses.shop) == []
    seen = houses.bank.side.store.peers.get("shop")
    assert seen is not None
    assert (seen.store_id, seen.store_runs) == (houses.shop.side.store.identity.get(), 1)
    assert seen.restored_ms is None


def test_run_that_a_restored_store_does_not_know_ends_on_both_sides_and_is_charged(houses: Houses) -> None:
    copy = houses.shop.copy()
    run = houses.run(1)
    houses.compare()
    houses.shop.restore(copy)
    assert houses.charged() == 0
    houses.compare()
    assert houses.bank.state(run) == ("failed", "STORE_RESTORED", "shop")
    with pytest.raises(StoreRestored, match="no longer knows"):  # what its own tasks are told
        houses.shop.side.runs.run(run.run_id)
    with pytest.raises(RunUnknown):
        houses.shop.side.runs.run_with("bank", run.run_id)
    assert houses.charged() == 1
    assert houses.shop.airflow.failed == [run.run_id]  # which was started for it
    assert restored(houses.shop) == ["shop"]
    assert restored(houses.bank) == ["shop"]
    seen = houses.bank.side.store.peers.get("shop")
    assert seen is not None
    assert seen.restored_ms is not None


@pytest.mark.parametrize("repeats", [("bank", "shop"), ("shop", "bank")], ids=["its own", "the peer's"])
def test_repetition_that_a_restored_store_has_forgotten_keeps_no_end_from_being_told(
    houses: Houses, repeats: tuple[str, str]
) -> None:
    run = houses.run(1)
    sides = {"bank": houses.bank.side, "shop": houses.shop.side}
    for name in repeats:
        sides[name].own_halves.announce(run.run_id, "train", f"first {name}", 60.0)
    houses.tell(run)
    copy = houses.bank.copy()
    for name in repeats:
        sides[name].own_halves.announce(run.run_id, "train", f"second {name}", 60.0)
        houses.tell(run)
    houses.tell(run)
    houses.bank.restore(copy)
    houses.compare()
    houses.tell(run)
    assert houses.bank.state(run) == houses.shop.state(run) == ("failed", "STORE_RESTORED", "bank")
    for house in (houses.bank, houses.shop):
        row = house.side.store.runs.get(run.run_id)
        assert row is not None
        assert row.peer_state == "failed"


def test_limits_of_a_ticket_do_not_start_anew_in_a_restored_store(houses: Houses) -> None:
    copy = houses.shop.copy()
    runs = [houses.run(number) for number in (1, 2)]
    for house in (houses.bank, houses.shop):  # they have ended long ago
        for run in runs:
            house.side.store.runs.change(run.run_id, state="succeeded", closed_ms=1, at_rest=True)
    houses.compare()
    houses.shop.restore(copy)
    houses.compare()
    assert houses.charged() == 2
    houses.compare()
    assert houses.charged() == 2
    houses.run(3)
    with pytest.raises(TicketExhausted):
        houses.run(4)


@pytest.mark.parametrize(("kind", "expected"), [("split_nn", ALL), ("secureboost", 0)])
def test_lost_run_is_charged_what_a_run_of_its_pipeline_may_tell_of_labels(
    houses: Houses, monkeypatch: pytest.MonkeyPatch, kind: str, expected: int
) -> None:
    labels = Labels("bank", "customers", "bought")
    (dataset,) = houses.shop.side.runs._base.party.datasets
    labelled = dataclasses.replace(
        houses.shop.side.runs._base.party, datasets=(dataclasses.replace(dataset, label="bought"),)
    )
    monkeypatch.setattr(PartyFile, "party", property(lambda _: labelled))
    config = json.loads(shared_config()) | {"leader": "shop", "steps": {"train": UNPROTECTED if expected else {}}}
    changes = {"config_json": json.dumps(config), "steps_json": STEPS.replace('"kind": ""', f'"kind": "{kind}"')}
    known = houses.run(1)
    houses.shop.side.store.runs.change(known.run_id, **changes)
    copy = houses.shop.copy()
    houses.run(2)
    houses.compare()
    houses.shop.restore(copy)
    for _ in range(2):  # what is compared again is charged once
        houses.compare()
        assert houses.shop.side.store.label_spends.total(labels) == expected
    assert houses.bank.side.store.label_spends.list() == []


def test_peer_may_ask_for_nothing_before_it_has_told_what_it_remembers(houses: Houses) -> None:
    houses.shop.connection.compared.clear()
    asyncio.run(houses.bank.compare())
    assert houses.shop.connection.compared.is_set()
    assert not houses.bank.connection.compared.is_set()


def test_run_of_which_a_restored_store_knows_less_than_the_peer_ends_on_both_sides(houses: Houses) -> None:
    run = houses.run(1)
    copy = houses.shop.copy()
    houses.shop.side.store.halves.put(HalfRow(run.run_id, "train", True, 1, "running"), bump=True)
    houses.tell(run)
    houses.shop.restore(copy)
    houses.compare()
    assert houses.shop.state(run) == ("failed", "STORE_RESTORED", "shop")
    assert houses.shop.side.store.runs.unacked("bank")  # and is told as news
    houses.tell(run)
    assert houses.bank.state(run) == ("failed", "STORE_RESTORED", "shop")


def test_holder_that_has_lost_its_store_ends_what_the_other_side_still_has(houses: Houses) -> None:
    copy = houses.bank.copy()
    run = houses.run(1)
    houses.bank.restore(copy)
    houses.compare()
    assert houses.shop.state(run) == ("failed", "STORE_RESTORED", "bank")
    with pytest.raises(StoreRestored):
        houses.bank.side.runs.run(run.run_id)
    assert houses.charged() == 1


def test_run_that_ended_long_ago_ends_in_a_store_that_has_forgotten_its_end(houses: Houses) -> None:
    run = houses.run(1)
    copy = houses.shop.copy()
    for house in (houses.bank, houses.shop):
        house.side.store.runs.change(run.run_id, bump=True)
    houses.tell(run)
    houses.bank.side.store.runs.change(run.run_id, state="succeeded", closed_ms=1)
    houses.shop.restore(copy)
    houses.compare()
    assert houses.shop.state(run) == ("failed", "STORE_RESTORED", "shop")
    assert houses.bank.state(run)[0] == "succeeded"


def test_emptied_store_is_another_one_and_grants_nothing(houses: Houses) -> None:
    run = houses.run(1)
    houses.compare()
    houses.shop.restore(None)
    houses.compare()
    assert houses.bank.state(run) == ("failed", "STORE_RESTORED", "shop")
    assert houses.shop.side.store.tickets.list() == []


def test_run_that_the_initiator_has_yet_to_enter_is_no_loss(houses: Houses) -> None:
    run = houses.run(1)
    late = dataclasses.replace(run, run_id=f"{PIPELINE}.2026-11-21.bank.2", number=2, dag_run_id="other")
    houses.shop.side.runs.create(dataclasses.replace(late, peer="bank", initiated=False), None, RunCharge(3, None, 3))
    houses.compare()
    assert houses.shop.state(late) == ("running", "", "")
    assert houses.bank.side.store.lost_runs.by_peer() == {}


def test_revocation_that_a_restored_store_has_lost_comes_back_from_the_holder(houses: Houses) -> None:
    copy = houses.shop.copy()
    houses.shop.side.runs._base.tickets.revoke(houses.ticket.ticket_id, "no longer", "ann")
    revoked = houses.shop.side.store.tickets.get(houses.ticket.ticket_id)
    assert revoked is not None
    message = peer_pb2.TicketUpdate(
        ticket_id=revoked.ticket_id, grant=revoked.grant, revocation=revoked.revocation or ""
    )
    houses.bank.side.runs._base.tickets.learn("shop", message)
    houses.shop.restore(copy)
    houses.shop.side.runs._base.tickets.learn("bank", message)
    again = houses.shop.side.store.tickets.get(revoked.ticket_id)
    assert again is not None
    assert again.revocation == revoked.revocation


@pytest.mark.parametrize(
    "lie",
    [
        peer_pb2.Remembered(store=peer_pb2.StoreMark(store_id="../etc")),
        peer_pb2.Remembered(store=peer_pb2.StoreMark(store_id="a", runs=1 << 60)),
        peer_pb2.Remembered(runs=[peer_pb2.RememberedRun(run_id="a\nb")]),
        peer_pb2.Remembered(runs=[peer_pb2.RememberedRun(run_id="a", ticket_id="\0")]),
        peer_pb2.Remembered(runs=[peer_pb2.RememberedRun(run_id="a")] * 201),
    ],
    ids=["a store of no name", "too many runs", "no run", "no ticket", "too much at once"],
)
def test_what_no_gateway_remembers_is_refused(houses: Houses, lie: peer_pb2.Remembered) -> None:
    with pytest.raises(ProtocolViolated):
        asyncio.run(houses.shop.recollections.answer("bank", lie))
    assert houses.shop.side.store.lost_runs.by_peer() == {}


def test_peer_that_makes_up_runs_charges_nobody_but_itself_and_not_without_end(
    houses: Houses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recollections, "MAX_LOST", 5)
    ticket = houses.ticket.ticket_id

    def tell(*runs: peer_pb2.RememberedRun) -> list[str]:
        answer = asyncio.run(houses.shop.recollections.answer("bank", peer_pb2.Remembered(runs=runs)))
        return list(answer.unknown)

    for run_id, named in (("x.1.bank.1", ticket), (f"{PIPELINE}.1.shop.1", ticket), (f"{PIPELINE}.1.bank.1", "other")):
        assert tell(peer_pb2.RememberedRun(run_id=run_id, ticket_id=named)) == [run_id]
    assert houses.charged() == 0
    many = [peer_pb2.RememberedRun(run_id=f"{PIPELINE}.1.bank.{n}", ticket_id=ticket) for n in range(2, 50)]
    tell(*many)
    tell(*many)
    assert houses.charged() == 2
    assert houses.shop.side.store.lost_runs.total("bank") == 5
    far = houses.run(1)
    with pytest.raises(ProtocolViolated):
        tell(peer_pb2.RememberedRun(run_id=far.run_id, version=1 << 40))
    assert houses.shop.state(far)[0] == "running"


def test_run_of_another_peer_is_told_apart_from_none_by_nobody(houses: Houses) -> None:
    run = houses.run(1)
    houses.shop.side.store.runs.change(run.run_id, peer="third")
    told = peer_pb2.Remembered(runs=[peer_pb2.RememberedRun(run_id=run.run_id, version=99)])
    answer = asyncio.run(houses.shop.recollections.answer("bank", told))
    assert list(answer.unknown) == [run.run_id]
    assert houses.shop.state(run)[0] == "running"
    assert houses.shop.side.store.lost_runs.by_peer() == {}


def test_news_of_a_run_that_were_stored_but_not_followed_are_followed_when_they_are_repeated(houses: Houses) -> None:
    """The store went away between two transactions; the peer has been told that, and says it again."""
    run = houses.run(1)
    news = update(run.run_id, 9, state=4)
    failing = houses.shop.side.store.runs.change
    houses.shop.side.store.runs.change = _away_at_the_peers_version(failing)  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        houses.shop.side.peer_halves.learn("bank", news)
    houses.shop.side.store.runs.change = failing  # type: ignore[method-assign]
    houses.shop.side.peer_halves.learn("bank", news)
    assert houses.shop.state(run)[:2] == ("failed", "PEER_FAILED")


def _away_at_the_peers_version(change: Any) -> Any:
    def failing(run_id: str, **columns: Any) -> RunRow:
        if "peer_version" in columns:
            raise ConnectionError
        return cast("RunRow", change(run_id, **columns))

    return failing
