"""A gateway serves the store that it has served before, or says why not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fedtasks.errors import StoreReplaced
from fedtasks.gateway.known_store import adopt, open_known, require_known
from fedtasks.gateway.server import Gateway
from fedtasks.store import Store
from tests.support.gateways import Member, make_members, set_address


@pytest.fixture
def shop(tmp_path: Path) -> Member:
    bank, shop, _ = make_members(tmp_path)
    bank.close()
    set_address(shop, "127.0.0.1:1")
    shop.airflow.close()
    return shop


def marker(shop: Member) -> Path:
    return shop.folder / "storage" / "store-of-shop.json"


def test_first_store_is_remembered_for_its_owner_alone_and_opens_again(shop: Member) -> None:
    for _ in range(2):
        open_known(shop.party).close()
    assert [path.stat().st_mode & 0o077 for path in (marker(shop), marker(shop).parent)] == [0, 0]


def test_emptied_database_is_refused_and_stays_empty_until_it_is_adopted(shop: Member) -> None:
    open_known(shop.party).close()
    file = shop.folder / "store.db"
    file.unlink()
    with pytest.raises(StoreReplaced, match="empty"):
        asyncio.run(Gateway(shop.party).serve())
    assert not file.exists()
    store_id = adopt(shop.party)
    with open_known(shop.party) as store:
        assert store.identity.get() == store_id
        assert [row.action for row in store.audit.list()] == ["store.adopted"]


def test_another_store_in_its_place_is_refused_even_after_a_command_has_migrated_it(shop: Member) -> None:
    open_known(shop.party).close()
    (shop.folder / "store.db").unlink()
    with Store.open(shop.party.store.url) as store:
        store.identity.get()
        with pytest.raises(StoreReplaced):
            require_known(shop.party, store)
    with pytest.raises(StoreReplaced, match="another store") as caught:
        open_known(shop.party)
    assert "fedtasks store adopt" in str(caught.value)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_marker_that_cannot_be_read_keeps_no_gateway_from_starting(shop: Member, damage: str) -> None:
    open_known(shop.party).close()
    marker(shop).write_text(damage)
    open_known(shop.party).close()


def test_storage_that_cannot_be_written_keeps_no_gateway_from_starting(shop: Member) -> None:
    (shop.folder / "storage").write_text("a file")
    open_known(shop.party).close()
