from __future__ import annotations

from pathlib import Path

import pytest

from fedtasks.errors import ConfigError
from fedtasks.laptop import people
from fedtasks.laptop.demo import prepare


def test_prepare_refuses_a_folder_that_no_demo_made(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(ConfigError, match="--folder"):
        prepare(tmp_path)
    assert (tmp_path / "letters").read_text() == "dear"


def test_prepare_removes_what_an_earlier_demo_left(tmp_path: Path) -> None:
    for party in prepare(tmp_path / "demo"):
        party.folder.mkdir()
        party.airflow.close()
    for party in prepare(tmp_path / "demo"):
        assert not party.folder.exists()
        party.airflow.close()


def test_people_overlap_and_each_side_has_its_own() -> None:
    both = people.load()
    bank, shop = set(both.bank[people.ID]), set(both.shop[people.ID])
    assert len(bank & shop) == people.SHARED
    assert bank - shop
    assert shop - bank
    assert len(bank) == len(both.bank)
    assert set(both.bank) == {people.ID, people.LABEL, *people.BANK_FEATURES}
    assert set(both.shop) == {people.ID, *people.SHOP_FEATURES}
