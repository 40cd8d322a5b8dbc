from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateways import Member, make_members, set_address


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Member, Member]]:
    """A bank and a shop whose gateways do not run; the bank cannot be reached."""
    bank, shop, _ = make_members(tmp_path_factory.mktemp("parties"))
    set_address(shop, "127.0.0.1:1")
    yield bank, shop
    for member in (bank, shop):
        member.close()
