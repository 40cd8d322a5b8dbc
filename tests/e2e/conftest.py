"""A bank and a shop with everything they have in real life: gateways, Airflows, keys, stores, data, a ticket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.laptop.demo import DAGS, introduce, prepare, start, stop
from fedtasks.laptop.demo_run import PIPELINE, wait_for
from tests.support.processes import same_umask
from tests.support.proxy import Proxy
from tests.support.two_airflows import BROKEN, MISSING, NIGHTLY, PREDICT, TREES, World, running


def make_dags(folder: Path) -> tuple[Path, Path]:
    """Make both parties' DAG folders: the bank has two DAGs more, of which the shop lacks one and broke the other."""
    declaration = (DAGS / f"{PIPELINE}.py").read_text()
    bank, shop = folder / "bank-dags", folder / "shop-dags"
    for one in (bank, shop):
        one.mkdir()
        for name in (PIPELINE, NIGHTLY, TREES, PREDICT):
            (one / f"{name}.py").write_text((DAGS / f"{name}.py").read_text())
    for name in (MISSING, BROKEN):
        (bank / f"{name}.py").write_text(_renamed(declaration, name))
    (shop / f"{BROKEN}.py").write_text(_renamed(declaration, BROKEN) + '\nraise RuntimeError("half an edit")\n')
    return bank, shop


def _renamed(declaration: str, name: str) -> str:
    renamed = declaration.replace(f'"{PIPELINE}"', f'"{name}"')
    assert renamed != declaration
    return renamed


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both parties up, the ticket accepted, the DAGs unpaused."""
    folder: Path = tmp_path_factory.mktemp("parties")
    with same_umask():
        bank, shop = prepare(folder / "two", dags=make_dags(folder))
        introduce(bank, shop)
        assert bank.listen is not None
        proxy = Proxy(bank.listen)
        file = shop.file
        file.write_text(file.read_text().replace(bank.listen, proxy.address))
        try:
            start((bank, shop), (PIPELINE, NIGHTLY, MISSING, BROKEN, TREES, PREDICT))
            yield World(bank, shop, proxy)
        finally:
            stop((bank, shop))
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
