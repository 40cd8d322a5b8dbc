"""The page on backups, line by line: copied while a gateway serves, put back, and noticed by both sides."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import write_atomically
from fedtasks.errors import StoreRestored
from fedtasks.gateway.recollections import RESTORED
from fedtasks.reports.party import overview
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.postgres import PostgresServer, find_binaries
from tests.support.runs import open_run, wait_for, wait_for_state

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backup.md"


def lines(name: str) -> str:
    """Return the commands of the page that stand under a name."""
    found = re.search(rf"<!-- tried: {name} -->\n```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, name
    return found[1]


def do(name: str, member: Member) -> None:
    """Carry out the commands of the page as whoever keeps a party does."""
    store = member.party.store
    places = {"PARTY": str(member.folder), "BACKUP": str(member.folder / "copy" / "tonight"), "STORE": store.url}
    if store.password_file is not None:
        places["PGPASSWORD"] = store.password_file.read_text().strip()
    path = f"{find_binaries()}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", lines(name)], env=os.environ | places | {"PATH": path}, check=True, timeout=60)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest, pair: Pair) -> Iterator[str]:
    """Let the shop keep its state in such a store."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    with PostgresServer() as server:
        file = pair.shop.folder / "party.yaml"
        store = f"store: {{url: '{server.create_database()}', password_file: '{server.password_file}'}}\n"
        file.write_text(file.read_text() + store)
        yield "postgresql"
        pair.shop.stop()  # before its store does


def publish(member: Member) -> RunStorage:
    """Let an earlier run have left a file."""
    storage = RunStorage(member.party.storage, "credit.2026-01-01.bank.1")
    write_atomically(f"{storage.attempt('align', 1)}/rows.bin", b"rows")
    storage.publish("align", 1, rows=1, facts={})
    return storage


def test_copy_that_was_put_back_is_noticed_by_both_sides_and_told(pair: Pair, kind: str) -> None:
    pair.bank.start()
    pair.shop.start()
    storage = publish(pair.shop)
    ticket = grant_ticket(pair.shop, pair.bank)
    for dag_run_id in ("before", "manual-1"):
        pair.bank.airflow.runs[PIPELINE, dag_run_id] = {"state": "running"}
    with pair.bank.client() as bank:
        before = open_run(bank, "before", partition="2026-11-20").run.run_id

        do(f"copy {kind}", pair.shop)
        lost = open_run(bank).run.run_id
        pair.shop.stop()
        shutil.rmtree(pair.shop.folder / "storage")
        for part in (kind, "storage"):
            do(f"restore {part}", pair.shop)
        pair.shop.start()

        run = wait_for_state(bank, lost, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.party) == (StoreRestored.code, "shop")
        assert bank.get_run(before).run.state == run_pb2.STATE_RUNNING
    storage.published("align").verify()
    with pair.shop.store() as store:
        # The bank may have learnt by its news being refused, before both compare what they remember.
        wait_for(lambda: store.audit.list(action=RESTORED))
        assert store.audit.list(action=RESTORED)[0].detail["store"] == "shop"
        assert store.uses.total(ticket) == {"runs": 2}  # what the lost run had used counts again
        needs = overview(store, pair.shop.party, {PIPELINE}, 0)["needs"]
        assert [need["kind"] for need in needs].count("store_restored") == 1
    with pair.shop.client() as shop, pytest.raises(StoreRestored):
        shop.get_run(lost)


def test_copy_holds_secrets_and_is_its_owners_alone(pair: Pair) -> None:
    publish(pair.shop)
    do("copy sqlite", pair.shop)
    found = list((pair.shop.folder / "copy").rglob("*"))
    assert {path.name for path in found} >= {"store.db", "party.tar", "rows.bin"}
    assert not [path for path in found if path.stat().st_mode & 0o077]
