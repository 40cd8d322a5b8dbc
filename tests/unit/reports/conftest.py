"""A store with runs in it, as two gateways would have left them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.store import Store
from tests.support.report_rows import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with nothing in it: copying it is quicker than making another."""
    file = tmp_path_factory.mktemp("store") / "store.db"
    Store.open(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, clock: Clock) -> Iterator[Store]:
    shutil.copy(empty_store, tmp_path)
    with Store.open(f"sqlite:///{tmp_path}/store.db", migrate=False, clock=clock) as opened:
        yield opened
