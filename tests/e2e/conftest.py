"""A bank and a shop with everything they have in real life: gateways, Airflows, keys, stores, data, a ticket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.laptop.demo import PIPELINE, grant, introduce, prepare, start, wait_for
from fedtasks.laptop.party import LocalParty
from tests.proxy import Proxy


class World:
    """Both parties; the shop dials the bank through a proxy that a test can cut."""

    def __init__(self, bank: LocalParty, shop: LocalParty, proxy: Proxy) -> None:
        self.bank = bank
        self.shop = shop
        self.proxy = proxy


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both parties up, the ticket accepted, the DAGs unpaused."""
    folder: Path = tmp_path_factory.mktemp("parties")
    bank, shop = prepare(folder / "two")
    introduce(bank, shop)
    assert bank.listen is not None
    proxy = Proxy(bank.listen)
    file = shop.file
    file.write_text(file.read_text().replace(bank.listen, proxy.address))
    try:
        start((bank, shop))
        grant(bank, shop)
        yield World(bank, shop, proxy)
    finally:
        for party in (bank, shop):
            party.stop()
        proxy.close()


@pytest.fixture
def opened(world: World) -> Iterator[World]:
    """The same world; whatever a test closed is open again afterwards."""
    yield world
    world.proxy.mend()
    for party in (world.bank, world.shop):
        party.unpause(PIPELINE)
        party.set_pool_slots(128)
    wait_for(lambda: not running(world), 60, "both sides to be at rest")


def running(world: World) -> list[str]:
    """Return the DAG runs that have not ended."""
    return [
        run["dag_run_id"]
        for party in (world.bank, world.shop)
        for run in party.dag_runs(PIPELINE)
        if run["state"] not in ("success", "failed")
    ]
