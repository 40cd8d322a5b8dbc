"""Who is reached at a gateway, and where the others reach one that listens everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedtasks.config import Party
from fedtasks.gateway import seating as module
from fedtasks.gateway.seating import Seating
from fedtasks.store import TermRow
from tests.support.gateways import make_members

OTHER = TermRow(3, 0, "another, process 1", {"listen": "10.1.2.3:7400"})


@pytest.fixture
def party(tmp_path: Path) -> Party:
    bank, shop, _ = make_members(tmp_path)
    for member in (bank, shop):
        member.airflow.close()
    return bank.party


def test_gateway_that_stands_by_is_reachable_once_it_knows_another_that_is_active(party: Party) -> None:
    seating = Seating(party)
    assert not seating.is_reachable
    seating._know(OTHER)
    assert seating.is_reachable
    assert seating._active_at("listen") == "10.1.2.3:7400"
    assert seating._active_at("workers") == ""


def test_gateway_never_passes_on_to_itself(party: Party) -> None:
    seating = Seating(party)
    seating._term = OTHER.term
    seating._know(OTHER)
    assert not seating.is_reachable
    assert seating._active_at("listen") == ""


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("0.0.0.0:7400", "10.9.8.7:7400"),
        ("[::]:7400", "10.9.8.7:7400"),
        ("127.0.0.2:7400", "127.0.0.2:7400"),
        ("[fd00::1]:7400", "[fd00::1]:7400"),
        ("gateway.bank.example:7400", "gateway.bank.example:7400"),
    ],
)
def test_others_are_told_the_address_that_they_reach(address: str, seen: str) -> None:
    assert module._seen_by_others(address, "10.9.8.7") == seen


def test_ports_that_the_system_chooses_and_sockets_are_not_passed_on(party: Party) -> None:
    gateway = replace(party.gateway, listen="0.0.0.0:7400", tunnels="0.0.0.0:0")
    assert module._served(gateway) == {"listen": "0.0.0.0:7400"}
