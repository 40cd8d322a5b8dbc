"""`init`, `identity`, `peer`: keys are never overwritten, trust is asked for, party.yaml keeps its comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fedtasks import identity, tickets
from fedtasks.config import load_party
from fedtasks.errors import ConfigError
from fedtasks.setup.party_file import with_peer
from tests.support.command_line import Run


def test_init_writes_a_party_that_loads(bank: Path) -> None:
    party = load_party(bank / "party.yaml")
    assert (party.name, party.gateway.listen, party.gateway.workers) == (
        "bank",
        "127.0.0.1:7500",
        f"unix://{bank.absolute()}/run/workers.sock",
    )
    assert tickets.load_ticket_key(party.gateway.ticket_key)
    assert identity.read_card(bank / "bank.card.yaml").address == "127.0.0.1:7500"


def test_init_takes_every_option(run: Run, tmp_path: Path) -> None:
    options = [
        "--workers",
        "127.0.0.1:7777",
        "--airflow-url",
        "https://airflow.example/x",
        "--airflow-user",
        "fed: user",
    ]
    run(
        "init",
        "mill",
        "--folder",
        "m",
        *options,
        "--airflow-password-file",
        "secrets/af",
        "--address",
        "mill.example:1",
    )
    party = load_party(tmp_path / "m" / "party.yaml")
    assert party.gateway.workers == "127.0.0.1:7777"
    assert party.gateway.listen is None
    assert (party.airflow.url, party.airflow.user) == ("https://airflow.example/x", "fed: user")
    assert party.airflow.password_file == tmp_path / "m" / "secrets" / "af"
    assert identity.read_card(tmp_path / "m" / "mill.card.yaml").address == "mill.example:1"


def test_init_on_every_interface_puts_no_address_on_the_card(run: Run, tmp_path: Path) -> None:
    run("init", "mill", "--folder", "m", "--listen", "0.0.0.0:7400")
    assert identity.read_card(tmp_path / "m" / "mill.card.yaml").address is None


def test_init_never_overwrites(run: Run, bank: Path) -> None:
    before = {path: path.read_bytes() for path in bank.rglob("*") if path.is_file()}
    refused = run("init", "bank", "--folder", "bank", expect=1)
    assert "never overwritten" in refused.err
    assert {path: path.read_bytes() for path in bank.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments", [["init", "Bad Name"], ["init", "good", "--workers", "10.0.0.1"], ["init", "good", "--listen", "x"]]
)
def test_init_with_a_wrong_value_writes_nothing(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    refused = run(*arguments, "--folder", "new", expect=1)
    assert refused.err.startswith("CONFIG_INVALID · ")
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == []


def test_identity_card_is_the_one_that_init_wrote(run: Run, bank: Path) -> None:
    run("identity", "card", "--out", "again.yaml", "--party", "bank/party.yaml")
    assert identity.read_card(Path("again.yaml")) == identity.read_card(bank / "bank.card.yaml")


def test_identity_renew_keeps_the_authority(run: Run, met: tuple[str, str]) -> None:
    bank, shop = (load_party(file) for file in met)
    before = bank.gateway.certificate.read_bytes()
    run("identity", "renew", "--party", met[0])
    after = bank.gateway.certificate.read_bytes()
    assert after != before
    identity.leaf_belongs_to(after, shop.peer("bank"))


def test_peer_add_trusts_the_card_and_keeps_comments(run: Run, bank: Path, shop: Path) -> None:
    before = (bank / "party.yaml").read_text(encoding="utf-8")
    run(
        "peer",
        "add",
        str(shop / "shop.card.yaml"),
        "--address",
        "shop.example:7400",
        "--yes",
        "--party",
        "bank/party.yaml",
    )
    after = (bank / "party.yaml").read_text(encoding="utf-8")
    peer = load_party(bank / "party.yaml").peer("shop")
    shown = identity.read_card(shop / "shop.card.yaml")
    assert (peer.ticket_key, peer.address) == (shown.ticket_key, "shop.example:7400")
    assert peer.authority.read_text(encoding="ascii") == shown.authority
    assert [line for line in before.splitlines() if "#" in line] == [line for line in after.splitlines() if "#" in line]


def test_peer_add_asks_and_a_no_changes_nothing(run: Run, bank: Path, shop: Path) -> None:
    before = (bank / "party.yaml").read_bytes()
    asked = run("peer", "add", str(shop / "shop.card.yaml"), "--party", "bank/party.yaml", stdin="n\n", expect=1)
    assert identity.read_card(shop / "shop.card.yaml").fingerprint in asked.out
    assert (bank / "party.yaml").read_bytes() == before
    assert not (bank / "peers").exists()


def test_peer_add_with_the_right_fingerprint_does_not_ask(run: Run, bank: Path, shop: Path) -> None:
    fingerprint = identity.read_card(shop / "shop.card.yaml").fingerprint.replace(" ", "").upper()
    run("peer", "add", str(shop / "shop.card.yaml"), "--fingerprint", fingerprint, "--party", "bank/party.yaml")
    assert load_party(bank / "party.yaml").peer("shop")


def test_peer_add_with_another_fingerprint_is_refused(run: Run, bank: Path, shop: Path) -> None:
    fingerprint = identity.read_card(bank / "bank.card.yaml").fingerprint
    card = str(shop / "shop.card.yaml")
    refused = run("peer", "add", card, "--fingerprint", fingerprint, "--party", "bank/party.yaml", expect=1)
    assert refused.err.startswith("PEER_IDENTITY · ")
    assert load_party(bank / "party.yaml").peers == ()


def test_peer_add_twice_or_oneself_is_refused(run: Run, met: tuple[str, str], bank: Path, shop: Path) -> None:
    before = (bank / "party.yaml").read_bytes()
    again = run("peer", "add", str(shop / "shop.card.yaml"), "--yes", "--party", met[0], expect=1)
    itself = run("peer", "add", str(bank / "bank.card.yaml"), "--yes", "--party", met[0], expect=1)
    assert "is a peer already" in again.err
    assert "your own card" in itself.err
    assert (bank / "party.yaml").read_bytes() == before


def test_peer_add_into_a_file_that_would_not_load_restores_everything(run: Run, bank: Path, shop: Path) -> None:
    file = bank / "party.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("peers: []", "peers: [ ] # none"), encoding="utf-8")
    card = str(shop / "shop.card.yaml")
    before = file.read_bytes()
    run("peer", "add", card, "--address", "nowhere", "--yes", "--party", str(file), expect=1)
    assert file.read_bytes() == before
    assert list((bank / "peers").iterdir()) == []
    assert [path.name for path in bank.iterdir() if path.name.startswith(".")] == []


PEER = {"name": "mill", "authority": "peers/mill.pem", "ticket_key": "abc="}


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n",
        "a: 1\npeers: []\nb: 2\n",
        "peers: []  # nobody yet\nb: 2\n",
        "peers:\nb: 2\n",
        "peers:",
        "peers:\n- name: x\n  address: h:1 # here\n\n# about b\nb: 2\n",
        "peers:\n    - name: x\n      address: h:1\n    # the last one\nb: 2\n",
        "peers:\n  - {name: x, address: 'h:1'}\nb: 2",
        "b: 2\npeers:\n  - name: x",
        "peers:\n  - name: |\n      x\n\nb: 2\n",
    ],
)
def test_with_peer_appends_whatever_the_list_looks_like(text: str) -> None:
    before = yaml.safe_load(text)
    added = with_peer(text, Path("party.yaml"), PEER)
    assert yaml.safe_load(added) == {**before, "peers": [*(before.get("peers") or []), PEER]}
    assert re.findall(r"#.*", added) == re.findall(r"#.*", text)


def test_with_peer_refuses_a_list_on_one_line() -> None:
    with pytest.raises(ConfigError, match="one `-` for each peer"):
        with_peer("peers: [{name: x}]\n", Path("party.yaml"), PEER)


def test_peer_list_without_a_gateway_says_so(run: Run, met: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedtasks.cli.setup.PATIENCE_S", 0.1)
    (row,) = run("peer", "list", "--json", "--party", met[1]).json()
    assert (row["name"], row["address"], row["state"]) == ("bank", "127.0.0.1:7500", "gateway not running")
