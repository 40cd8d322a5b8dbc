from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway.parties import Member, make_members, set_address
from tests.proxy import Proxy


class Pair:
    """Bank and shop, whose gateways meet through a proxy."""

    def __init__(self, bank: Member, shop: Member, proxy: Proxy) -> None:
        self.bank = bank
        self.shop = shop
        self.proxy = proxy


@pytest.fixture
def pair(tmp_path: object) -> Iterator[Pair]:
    """Both parties, laid out, not started."""
    bank, shop, listen = make_members(tmp_path)  # type: ignore[arg-type]
    proxy = Proxy(listen)
    set_address(shop, proxy.address)
    try:
        yield Pair(bank, shop, proxy)
    finally:
        shop.close()
        bank.close()
        proxy.close()


@pytest.fixture
def running(pair: Pair) -> Pair:
    """Both parties with their gateways up."""
    pair.bank.start()
    pair.shop.start()
    return pair
