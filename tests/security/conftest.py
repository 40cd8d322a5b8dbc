"""The campaign's parties; at the end, one JSON object of what became of all inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateways import Member, make_members, set_address
from tests.support.hostile import TALLY, HostilePeer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.security)


def pytest_unconfigure() -> None:
    if TALLY.inputs or TALLY.executions:
        print(TALLY.report())


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Member, Member, str]]:
    """The bank's gateway, which listens; the shop, whose keys the attacker has; where the bank listens."""
    victim, attacker, listen = make_members(tmp_path_factory.mktemp("campaign"))
    set_address(attacker, listen)
    victim.start()
    try:
        yield victim, attacker, listen
    finally:
        victim.close()
        attacker.close()


@pytest.fixture
def hostile(bank: tuple[Member, Member, str]) -> Iterator[HostilePeer]:
    victim, attacker, listen = bank
    peer = HostilePeer(attacker, victim, listen)
    yield peer
    peer.close()
