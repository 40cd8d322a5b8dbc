"""A party of which a year has passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.clock import now_ms
from fedtasks.store import Store
from tests.support.aged import Aged
from tests.support.halves import party_of
from tests.support.stores import make_empty_store


@pytest.fixture
def aged(tmp_path: Path) -> Iterator[Aged]:
    make_empty_store(tmp_path / "store.db")
    now = now_ms()
    with Store.open(f"sqlite:///{tmp_path}/store.db", migrate=False, clock=lambda: now) as store:
        yield Aged(party_of(tmp_path, "leader"), store, now)
