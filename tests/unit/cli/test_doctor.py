"""`doctor` finds what is wrong, names a remedy, and no finding hides another."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks import identity
from fedtasks.config import load_party
from fedtasks.crypto import kernels
from fedtasks.doctor import party as doctor
from fedtasks.label_budget import ALL
from fedtasks.store import Labels, LabelSpendRow, Store
from tests.support.command_line import Run


@pytest.fixture
def findings(met: tuple[str, str], shop: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """A party with everything in place but its gateway and its Airflow; returns subject → finding."""
    monkeypatch.setattr(doctor.services, "PATIENCE_S", 0.1)
    (shop / "data").mkdir()
    table = pa.table({"person": ["a", "b"], "age": [1.0, 2.0], "region": ["n", "s"]})
    pq.write_table(table, shop / "data" / "customers.parquet")
    password = shop / "keys" / "airflow.password"
    password.touch(mode=0o600)
    password.write_text("secret", encoding="utf-8")
    Store.open(load_party(met[1]).store.url).close()
    return lambda: {finding.subject: finding for finding in doctor.examine(shop / "party.yaml")}


def verdict(finding: Any) -> str:
    return str(finding.verdict.value)


def test_doctor_finds_good_what_is_good(findings: Callable[[], dict[str, Any]]) -> None:
    found = findings()
    good = (
        "party.yaml",
        "TLS key",
        "ticket key",
        "worker secret",
        "Airflow password",
        "certificate",
        "store",
        "storage",
    )
    assert {name: verdict(found[name]) for name in (*good, "dataset customers")} == dict.fromkeys(
        (*good, "dataset customers"), "ok"
    )


@pytest.mark.parametrize(
    ("epsilon", "expected", "words"),
    [(10_000, "ok", "an AUC of at most 54.9 %"), (ALL, "note", "may have read every `bought` of `customers`")],
)
def test_doctor_says_what_a_peer_was_told_of_labels(
    findings: Callable[[], dict[str, Any]], met: tuple[str, str], epsilon: int, expected: str, words: str
) -> None:
    assert "labels" not in findings()
    with Store.open(load_party(met[1]).store.url) as store:
        told = LabelSpendRow(Labels("bank", "customers", "bought"), "x", epsilon, "train.d.1", "train")
        store.label_spends.spend(told, None)
    found = findings()["labels"]
    assert verdict(found) == expected
    assert words in found.text


def test_doctor_names_every_missing_service_with_a_remedy(findings: Callable[[], dict[str, Any]]) -> None:
    found = findings()
    for subject, words in (("Airflow", "AIRFLOW_UNREACHABLE"), ("gateway", "GATEWAY_UNREACHABLE")):
        assert verdict(found[subject]) == "wrong"
        assert words in found[subject].text
        assert found[subject].remedy


def open_to_all(shop: Path) -> None:
    (shop / "keys" / "ticket.key").chmod(0o644)


def foreign_certificate(shop: Path) -> None:
    identity.renew_certificate(shop / "keys", "bank")


def no_data(shop: Path) -> None:
    (shop / "data" / "customers.parquet").unlink()


def other_columns(shop: Path) -> None:
    pq.write_table(pa.table({"person": ["a"], "age": [1.0]}), shop / "data" / "customers.parquet")


def other_types(shop: Path) -> None:
    table = pa.table({"person": ["a"], "age": ["old"], "region": ["n"]})
    pq.write_table(table, shop / "data" / "customers.parquet")


def no_store(shop: Path) -> None:
    (shop / "store.db").unlink()


def storage_is_a_file(shop: Path) -> None:
    (shop / "storage").write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "subject", "words"),
    [
        (open_to_all, "ticket key", "chmod 600"),
        (foreign_certificate, "certificates", "PEER_IDENTITY"),
        (no_data, "dataset customers", "DATA_MISSING"),
        (other_columns, "dataset customers", "DATA_COLUMN_MISSING"),
        (other_types, "dataset customers", "DATA_COLUMN_TYPE"),
        (no_store, "store", "STORE_UNAVAILABLE"),
        (storage_is_a_file, "storage", "storage"),
    ],
)
def test_doctor_finds_the_damage_and_goes_on(
    findings: Callable[[], dict[str, Any]], shop: Path, damage: Callable[[Path], None], subject: str, words: str
) -> None:
    damage(shop)
    found = findings()
    assert verdict(found[subject]) == "wrong"
    assert words in f"{found[subject].text} {found[subject].remedy}"
    assert found[subject].remedy
    assert "gateway" in found


@pytest.mark.parametrize("place", ["storage", "store.db", "run"])
def test_doctor_says_who_may_read_what_is_this_party_s_alone(
    findings: Callable[[], dict[str, Any]], shop: Path, place: str
) -> None:
    assert verdict(findings()["other users"]) == "ok"
    path = shop / place
    path.mkdir(exist_ok=True) if place == "run" else None
    path.chmod(0o644 if path.is_file() else 0o755)
    names = {"store.db": "store", "run": "socket's folder"}
    found = findings()[f"privacy of {names.get(place, place)}"]
    assert verdict(found) == "wrong"
    assert "nobody as long as the folders above are closed" in found.text
    assert found.remedy == f"chmod -R go= {path}"


def test_doctor_warns_of_a_dataset_that_others_may_read(
    findings: Callable[[], dict[str, Any]], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.machine, "readers", lambda path: "every user of this machine" if path.is_file() else "")
    found = findings()["other users"]
    place = shop / "data" / "customers.parquet"
    assert (verdict(found), found.text) == ("warning", f"every user of this machine may read {place}")
    assert str(place) in found.remedy


def test_doctor_looks_at_the_webhook_as_at_a_secret(findings: Callable[[], dict[str, Any]], shop: Path) -> None:
    with (shop / "party.yaml").open("a", encoding="utf-8") as file:
        file.write("notify: {webhook_url_file: keys/webhook}\n")
    assert "chmod 600" in findings()["webhook's URL"].remedy
    webhook = shop / "keys" / "webhook"
    webhook.touch(mode=0o600)
    webhook.write_text("https://chat.example/hook", encoding="utf-8")
    assert verdict(findings()["webhook's URL"]) == "ok"


def test_doctor_looks_at_the_newest_partition(findings: Callable[[], dict[str, Any]], shop: Path) -> None:
    file = shop / "party.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("data/customers.parquet", '"data/customers/{partition}"'), encoding="utf-8")
    assert verdict(findings()["dataset customers"]) == "note"
    for day, columns in (("2026-11-20", {"person": ["a"]}), ("2026-11-21", {"person": ["a"], "age": [1.0]})):
        (shop / "data" / "customers" / day).mkdir(parents=True)
        pq.write_table(pa.table(columns), shop / "data" / "customers" / day / "part.parquet")
        (shop / "data" / "customers" / day / "_SUCCESS").touch()
    assert "DATA_COLUMN_MISSING" in findings()["dataset customers"].text
    table = pa.table({"person": ["a"], "age": [1.0], "region": ["n"]})
    pq.write_table(table, shop / "data" / "customers" / "2026-11-21" / "part.parquet")
    found = findings()["dataset customers"]
    assert verdict(found) == "ok"
    assert "2 partitions have landed; of 2026-11-21, 1 files" in found.text


def test_doctor_warns_of_a_listener_on_every_interface(run: Run, findings: Any, shop: Path) -> None:
    file = shop / "party.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("# listen:", "listen:"), encoding="utf-8")
    assert verdict(findings()["listener"]) == "warning"


@pytest.mark.parametrize(("limit", "expected", "outside"), [(1024, "warning", 512), (4096, "ok", 3072)])
def test_doctor_warns_of_few_descriptors_for_whoever_reaches_the_port(
    met: tuple[str, str], shop: Path, monkeypatch: pytest.MonkeyPatch, limit: int, expected: str, outside: int
) -> None:
    check, file = doctor.machine.CHECKS["open files"], shop / "party.yaml"
    assert not list(check(load_party(file)))  # it does not listen
    file.write_text(file.read_text(encoding="utf-8").replace("# listen:", "listen:"), encoding="utf-8")
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, limit))
    (found,) = check(load_party(file))
    assert verdict(found) == expected
    assert f"{outside} connections from outside" in found.text


def test_doctor_with_a_check_that_trips_reports_it_and_goes_on(
    findings: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(_: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setitem(doctor.services.CHECKS, "store", trip)
    found = findings()
    assert verdict(found["store"]) == "wrong"
    assert "boom" in found["store"].text
    assert "storage" in found


def test_doctor_exits_with_1_and_shows_icon_and_word(run: Run, findings: Any, met: tuple[str, str]) -> None:
    shown = run("doctor", "--party", met[1], expect=1)
    assert "✔ ok" in shown.out
    assert "✘ wrong" in shown.out


def test_doctor_of_a_file_that_does_not_load_says_only_that(run: Run, tmp_path: Path) -> None:
    (tmp_path / "party.yaml").write_text("name: 3\n", encoding="utf-8")
    (only,) = run("doctor", "--json", expect=1).json()
    assert (only["subject"], only["verdict"]) == ("party.yaml", "wrong")
    assert f"{tmp_path / 'party.yaml'}:1" in only["text"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_doctor_finds_a_storage_that_cannot_be_written(findings: Callable[[], dict[str, Any]], shop: Path) -> None:
    (shop / "storage").mkdir(mode=0o500)
    assert verdict(findings()["storage"]) == "wrong"


@pytest.mark.parametrize(
    ("there", "named", "expected", "words"),
    [
        (("ifma", "openssl", "portable"), "", "ok", "ifma: arithmetic in eight lanes"),
        (("avx512", "avx2", "openssl", "portable"), "", "ok", "avx512: arithmetic in eight lanes"),
        (("avx2", "openssl", "portable"), "", "ok", "avx2: arithmetic in four lanes"),
        (("openssl", "portable"), "", "ok", "openssl: "),
        (("ifma", "openssl", "portable"), "openssl", "warning", "ifma would be faster"),
        (("portable",), "", "warning", "several times faster"),
        (("portable",), "ifma", "wrong", "'ifma' does not run here"),
    ],
)
def test_doctor_says_which_kernel_runs(
    findings: Callable[[], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
    named: str,
    expected: str,
    words: str,
) -> None:
    monkeypatch.setattr(kernels, "available_kernels", lambda: there)
    monkeypatch.setenv(kernels.VARIABLE, named)

    found = findings()["kernel"]

    assert verdict(found) == expected
    assert re.search(words, found.text)
    assert expected == "ok" or found.remedy
