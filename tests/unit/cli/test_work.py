"""`audit`, `store`, `psi`, `task`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.errors import StoreReplaced
from fedtasks.gateway.known_store import open_known
from fedtasks.store import Store
from tests.support.command_line import Run


def test_audit_verify_finds_a_changed_row(run: Run, met: tuple[str, str], ticket_id: str, tmp_path: Path) -> None:
    import sqlite3

    assert "whole up to decision 1" in run("audit", "verify", "--party", met[1]).out
    (decision,) = run("audit", "list", "--json", "--party", met[1]).json()
    told = run("audit", "verify", "--json", "--party", met[1]).json()
    assert (told["whole"], told["rows"], len(told["digest"])) == (True, decision["seq"], 64)
    connection = sqlite3.connect(tmp_path / "shop" / "store.db")
    with connection:
        connection.execute("UPDATE audit SET actor = 'nobody'")
    connection.close()
    assert run("audit", "verify", "--party", met[1], expect=1).err.startswith("DATA_CORRUPT · ")


def test_store_adopt_lets_a_gateway_serve_another_store_once_somebody_has_said_yes(run: Run, bank: Path) -> None:
    party = load_party(bank / "party.yaml")
    open_known(party).close()
    Path(party.store.url.removeprefix("sqlite:///")).unlink()
    file = str(bank / "party.yaml")
    run("store", "adopt", "--party", file, stdin="n\n", expect=1)
    with pytest.raises(StoreReplaced):
        open_known(party)
    adopted = run("store", "adopt", "--yes", "--json", "--party", file).json()
    with open_known(party) as store:
        assert store.identity.get() == adopted["store_id"]


def test_store_migrate_makes_the_store_current(run: Run, bank: Path) -> None:
    run("store", "migrate", "--party", "bank/party.yaml")
    Store.open(load_party(bank / "party.yaml").store.url, migrate=False).close()


def test_party_comes_from_the_environment(run: Run, bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTASKS_PARTY", str(bank / "party.yaml"))
    assert run("ticket", "list", "--json").json() == []


def test_psi_keygen_writes_a_private_key_and_names_it(run: Run, bank: Path) -> None:
    run("psi", "keygen", "--bits", "2048", "--party", "bank/party.yaml")
    key = load_party(bank / "party.yaml").psi_key
    assert key is not None
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    run("psi", "keygen", "--party", "bank/party.yaml", expect=1)
    assert key.read_bytes() == before


def test_psi_keygen_of_the_other_scheme_stands_beside_it(run: Run, bank: Path) -> None:
    run("psi", "keygen", "--bits", "2048", "--party", "bank/party.yaml")
    run("psi", "keygen", "--scheme", "oprf", "--party", "bank/party.yaml")
    party = load_party(bank / "party.yaml")
    assert party.psi_key is not None
    assert party.psi_oprf_key is not None
    assert party.psi_oprf_key.stat().st_mode & 0o777 == 0o600
    assert run("psi", "keygen", "--scheme", "elgamal", "--party", "bank/party.yaml", expect=1).err.count("blind_rsa")


def test_psi_keygen_refuses_a_length_for_oprf(run: Run, bank: Path) -> None:
    run("psi", "keygen", "--scheme", "oprf", "--bits", "3072", "--party", "bank/party.yaml", expect=1)
    assert not (bank / "keys" / "psi-oprf.key").exists()


def test_psi_keygen_that_is_too_short_changes_nothing(run: Run, bank: Path) -> None:
    before = (bank / "party.yaml").read_bytes()
    assert run("psi", "keygen", "--bits", "1024", "--party", "bank/party.yaml", expect=1).err.startswith("KEY_WEAK · ")
    assert (bank / "party.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "entry",
    ["/tmp/evil.py:main", "os.system", "a:b:c", "../x:main", "os:path.join", "no_such_module:main", "json:none"],
)
def test_task_run_refuses_what_is_not_an_importable_name(run: Run, bank: Path, entry: str) -> None:
    task = {"run_id": "credit.day.1", "task": "step", "attempt": 1, "peer": "shop", "leader": "bank", "settings": {}}
    config = {**task, "party": str(bank / "party.yaml"), "datasets": {"bank": "customers"}}
    (bank / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run("task", "run", entry, "bank/config.json", expect=1)
    failure = json.loads((bank / "failure.json").read_text(encoding="utf-8"))
    assert failure["code"] == "CONFIG_INVALID"
    assert entry.partition(":")[0] in failure["detail"]


def test_task_run_reports_a_broken_configuration_beside_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    run("task", "run", "json:dumps", "config.json", expect=1)
    failure = json.loads((tmp_path / "failure.json").read_text(encoding="utf-8"))
    assert failure["code"] == "CONFIG_INVALID"
