"""A store with runs in it, as two gateways would have left them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.store import Store
from tests.support.report_rows import Clock
from tests.support.stores import make_empty_store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    make_empty_store(tmp_path / "store.db")
    with Store.open(f"sqlite:///{tmp_path}/store.db", migrate=False, clock=clock) as opened:
        yield opened
