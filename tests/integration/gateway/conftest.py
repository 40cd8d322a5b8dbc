from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedtasks.gateway import control_stream
from tests.support.gateways import Pair, make_members, set_address
from tests.support.proxy import Proxy


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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gateways give up at once on a peer that is away."""
    monkeypatch.setattr(control_stream, "CONNECT_S", 0.5)


@pytest.fixture
def running(pair: Pair) -> Pair:
    """Both parties with their gateways up."""
    pair.bank.start()
    pair.shop.start()
    return pair
