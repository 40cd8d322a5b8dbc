"""What sets a party up, several of them in one process: nothing is overwritten, nothing is left by half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.crypto.schemes import Scheme
from fedtasks.errors import ConfigError
from fedtasks.identity import read_card
from fedtasks.setup.party import Founded, add_peer, found, make_card, make_psi_key


def make(folder: Path, name: str, listen: str | None = None) -> Founded:
    return found(
        name,
        folder / name,
        listen=listen,
        airflow_url="http://127.0.0.1:8080",
        airflow_user="me",
        airflow_password_file="keys/airflow.password",
    )


def test_parties_of_one_process_know_each_other_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, shop = make(tmp_path, "bank", "127.0.0.1:7500"), make(tmp_path, "shop")
    monkeypatch.chdir("/")
    monkeypatch.setenv("FEDTASKS_PARTY", str(bank.file))
    assert add_peer(shop.file, read_card(bank.card)) == "127.0.0.1:7500"
    assert add_peer(bank.file, read_card(shop.card)) is None
    parties = [load_party(made.file) for made in (bank, shop)]
    assert [[peer.name for peer in party.peers] for party in parties] == [["shop"], ["bank"]]
    assert parties[0].gateway.ticket_key != parties[1].gateway.ticket_key


def test_found_twice_changes_nothing(tmp_path: Path) -> None:
    first = make(tmp_path, "bank")
    before = first.file.read_bytes(), read_card(first.card)
    with pytest.raises(ConfigError, match="never overwritten"):
        make(tmp_path, "bank")
    assert (first.file.read_bytes(), read_card(first.card)) == before


@pytest.mark.parametrize(
    ("listen", "address"), [("0.0.0.0:7400", None), ("[::]:7400", None), ("10.1.2.3:7400", "10.1.2.3:7400")]
)
def test_card_names_no_address_that_nobody_can_dial(tmp_path: Path, listen: str, address: str | None) -> None:
    made = make(tmp_path, "bank", listen)
    assert read_card(made.card).address == address
    make_card(made.file, tmp_path / "other.yaml", "gateway.example:1")
    assert read_card(tmp_path / "other.yaml").address == "gateway.example:1"


def test_peer_that_is_known_or_this_party_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    bank, shop = make(tmp_path, "bank"), make(tmp_path, "shop")
    add_peer(bank.file, read_card(shop.card))
    before = bank.file.read_bytes()
    for card, problem in ((shop.card, "is a peer already"), (bank.card, "your own card")):
        with pytest.raises(ConfigError, match=problem):
            add_peer(bank.file, read_card(card))
    assert bank.file.read_bytes() == before


def test_peer_that_party_yaml_cannot_take_leaves_no_authority_behind(tmp_path: Path) -> None:
    bank, shop = make(tmp_path, "bank"), make(tmp_path, "shop")
    with pytest.raises(ConfigError):
        add_peer(bank.file, read_card(shop.card), "no address")
    assert list((tmp_path / "bank" / "peers").iterdir()) == []
    assert load_party(bank.file).peers == ()


def test_psi_key_is_named_in_party_yaml_private_and_made_once(tmp_path: Path) -> None:
    made = make(tmp_path, "shop")
    key, key_id = make_psi_key(made.file, Scheme.OPRF)
    assert load_party(made.file).psi_oprf_key == key
    assert os.stat(key).st_mode & 0o777 == 0o600
    assert key_id
    with pytest.raises(ConfigError, match="never overwritten"):
        make_psi_key(made.file, Scheme.OPRF)
