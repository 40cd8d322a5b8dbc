"""A gateway with two peers, of which one takes what it is sent and never answers: the other must not notice."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtasks import identity, tickets
from fedtasks.clock import now_ms
from fedtasks.config import Peer
from fedtasks.errors import PeerUnreachable
from fedtasks.gateway.backlogs import Backlogs
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.reconciler import OBSTACLE_MS, Reconciler
from fedtasks.gateway.server import Gateway
from fedtasks.store import LandingRow, RunRow, Store
from fedtasks.wire.v1 import peer_pb2, ticket_pb2, worker_pb2
from tests.support.gateways import PARTY, PIPELINE, Member, make_members, set_address, sign_ticket
from tests.support.report_rows import make_half, make_run

PROMPT_S = 5.0
"""What peers are told takes hundredths of a second; one that is silent is waited for thirty."""

SILENT, HEALTHY = PEERS = "able", "shop"
TOLD = {"ticket_update", "run_update", "landed", "preflight"}
"""What a gateway tells its peers by itself, and asks them."""


@dataclass
class Connected:
    """A connection with a peer, which answers or does not, and remembers what it was asked."""

    peer: Peer
    answers: bool
    asked: set[str] = field(default_factory=set)
    is_connected: bool = True
    dialled: bool = False
    version: str = "0"
    clock_skew_s: float = 0.0
    failure: None = None
    since_ms: int = 0

    async def request(self, _: float = 30.0, **body: Any) -> peer_pb2.Envelope:
        self.asked |= body.keys()
        if not self.answers:
            await asyncio.Event().wait()
        return peer_pb2.Envelope()


class _Gateway(Gateway):
    def _connection(self, peer: Peer, _: Changes) -> Any:
        return Connected(peer, answers=peer.name != SILENT)


class Quiet:
    """An Airflow in which nothing happens."""

    origin = ""

    async def state(self, *_: object) -> str:
        return "running"

    async def set_note(self, *_: object) -> None: ...

    async def require_ready(self, _: str) -> None: ...

    async def update_asset(self, *_: object) -> None: ...

    def page(self, *_: object) -> str:
        return ""


def bank_of_two(folder: Path) -> tuple[Member, Member, Member]:
    """Lay out a bank whose first peer is the silent one."""
    bank, shop, _ = make_members(folder)
    set_address(shop, "127.0.0.1:1")
    able = Member(SILENT, folder / SILENT)
    able.folder.mkdir()
    identity.create_identity(able.folder / "keys", able.name)
    (able.folder / "keys" / "airflow.password").write_text("x")
    key = tickets.public_text(tickets.load_ticket_key(able.folder / "keys" / "ticket.key").public_key())
    values = {"airflow": able.airflow.url, "authority": able.folder / "keys" / "authority.pem", "ticket_key": key}
    (able.folder / "party.yaml").write_text(
        PARTY.format(name=SILENT, listen="", peer="bank", address="", dataset="d", **values).replace(
            str(values["authority"]), str(bank.folder / "keys" / "authority.pem")
        )
    )
    file = bank.folder / "party.yaml"
    block = f"  - name: {SILENT}\n    authority: {values['authority']}\n    ticket_key: {key}\n"
    file.write_text(file.read_text().replace("peers:\n", f"peers:\n{block}"))
    return bank, shop, able


def wish(peer: str) -> worker_pb2.RequestTicketRequest:
    """Return what a person asks a peer for."""
    asked = ticket_pb2.TicketRequest(request_id=f"r-{peer}", pipelines=[PIPELINE], role="leader", days=1)
    return worker_pb2.RequestTicketRequest(peer=peer, request=asked)


def fill(store: Store, bank: Member, peers: list[Member]) -> None:
    """Leave something to tell of every kind for each peer, the silent one's first."""
    for number, peer in enumerate(peers, 1):
        row = sign_ticket(bank, peer)
        store.tickets.put(row.__class__(**{**row.__dict__, "synced": False}))
        run_id = f"{PIPELINE}.2026-11-21.bank.{number}"
        run: RunRow = make_run(
            number,
            run_id=run_id,
            pipeline=PIPELINE,
            dag_id=PIPELINE,
            peer=peer.name,
            ticket_id=row.ticket_id,
            opened_ms=now_ms(),
        )
        assert store.runs.add(run)
        store.halves.put(make_half("psi", "waiting", run_id=run_id, since_ms=now_ms() - 2 * OBSTACLE_MS), bump=True)
    for day in ("2026-11-20", "2026-11-21"):
        store.landings.add(LandingRow("bank", "loans", day, 1, now_ms()))


def test_peer_that_never_answers_holds_up_no_news_for_the_others(tmp_path: Path) -> None:
    bank, shop, able = bank_of_two(tmp_path)

    async def play(store: Store) -> tuple[set[str], set[str]]:
        parts = _Gateway(bank.party)._assemble(store, Quiet(), 1)  # type: ignore[arg-type]
        silent, healthy = (parts.base.connections[name] for name in (SILENT, HEALTHY))
        expected = TOLD | {"ticket_request"}
        work = asyncio.gather(Reconciler(parts).run(), *(parts.preflights.request_ticket(wish(name)) for name in PEERS))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROMPT_S):
                    while not expected <= healthy.asked:  # type: ignore[attr-defined]
                        await asyncio.sleep(0.02)
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        return silent.asked, healthy.asked  # type: ignore[attr-defined]

    try:
        with bank.store() as store:
            fill(store, bank, [able, shop])
            silent, healthy = asyncio.run(play(store))
    finally:
        for member in (bank, shop, able):
            member.close()
    assert "ticket_update" in silent, "the silent peer was asked too"
    assert healthy == TOLD | {"ticket_request"}


def test_backlog_does_each_thing_once_and_goes_on_after_what_fails() -> None:
    done: list[tuple[str, int]] = []

    async def do(name: str, item: int) -> None:
        done.append((name, item))
        if item == 2:
            raise PeerUnreachable("not now")
        if item == 3:
            raise ValueError("never")
        if name == "slow":
            await asyncio.Event().wait()

    async def play() -> None:
        backlogs: Backlogs[int] = Backlogs(("slow", "quick"))
        for item in (1, 2, 2, 3, 4):
            backlogs.add("slow", item)
            backlogs.add("quick", item)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await backlogs.work_off(do)

    asyncio.run(play())
    assert [item for name, item in done if name == "quick"] == [1, 2, 3, 4]
    assert [item for name, item in done if name == "slow"] == [1]
