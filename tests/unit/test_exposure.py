"""What others could see of a party: traffic in plain text, files that other users may read."""

from __future__ import annotations

import grp
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedtasks.config import S3, Airflow, Dataset, FeatureType, Gateway, Hdfs, Party, Spark, Sql, Store
from fedtasks.exposure import plain_traffic, readers

KEYS = Path("/keys")
PARTY = Party(
    name="bank",
    gateway=Gateway(KEYS, KEYS, KEYS, KEYS, KEYS, workers="unix:///run/fedtasks/workers.sock"),
    airflow=Airflow("http://127.0.0.1:8080", "fedtasks", KEYS),
    storage="file:///storage",
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; those of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def subjects(party: Party) -> list[str]:
    findings = list(plain_traffic(party))
    assert all(finding.verdict.value == "warning" and finding.remedy for finding in findings)
    return [finding.subject for finding in findings]


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1:9464", []), ("0.0.0.0:9464", ["gateway.observed"])])
def test_figures_for_all_to_read_are_spoken_of(address: str, expected: list[str]) -> None:
    assert subjects(replace(PARTY, gateway=replace(PARTY.gateway, observed=address))) == expected


def test_party_on_one_machine_has_nothing_in_plain_text() -> None:
    assert subjects(PARTY) == []


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("http://airflow.example:8080", True),
        ("http://10.0.0.7", True),
        ("https://airflow.example", False),
        ("http://localhost:8080", False),
        ("http://127.0.0.2:8080", False),
        ("http://[::1]:8080", False),
    ],
)
def test_airflow_over_http_on_another_host_draws_a_warning(url: str, is_plain: bool) -> None:
    assert bool(subjects(replace(PARTY, airflow=Airflow(url, "fedtasks", KEYS)))) is is_plain


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("postgresql://me@db.example/fedtasks", True),
        ("postgresql://me@10.0.0.7:5432/fedtasks?sslmode=prefer", True),
        ("postgresql://me@127.0.0.1/fedtasks?host=db.example", True),
        ("postgresql://me@db.example/fedtasks?sslmode=disable", True),
        ("postgresql://me@db.example/fedtasks?sslmode=require", False),
        ("postgresql+psycopg2://me@db.example/fedtasks?sslmode=verify-full&sslrootcert=/ca.pem", False),
        ("postgresql://me@localhost/fedtasks", False),
        ("postgresql:///fedtasks?host=/run/postgresql", False),
        ("sqlite:///store.db", False),
    ],
)
def test_database_without_tls_on_another_host_draws_a_warning(url: str, is_plain: bool) -> None:
    assert bool(subjects(replace(PARTY, store=Store(url)))) is is_plain


def test_hdfs_and_spark_on_other_hosts_draw_warnings() -> None:
    spark = Spark(master="spark://master.example:7077")
    assert subjects(replace(PARTY, hdfs=Hdfs("namenode:9870"), spark=spark)) == [
        "HDFS's connection",
        "Spark's connections",
    ]
    encrypted = replace(spark, conf={"spark.network.crypto.enabled": "true"})
    assert subjects(replace(PARTY, hdfs=Hdfs("127.0.0.1:9870"), spark=encrypted)) == []


def test_s3_and_datasets_of_databases_in_plain_text_draw_warnings() -> None:
    def reads(uri: str) -> Party:
        table = Dataset("loans", uri, "id", {"n": FeatureType.NUMERIC}, sql=Sql(table="loans"))
        return replace(PARTY, datasets=(table,))

    assert subjects(reads("postgresql://me@db.example/shop?sslmode=disable")) == ["dataset loans"]
    assert subjects(reads("postgresql://me@db.example/shop?sslmode=prefer")) == ["dataset loans"]
    for uri in ("me@db.example/shop", "me@db.example/shop?sslmode=require", "me@127.0.0.1/shop?sslmode=disable"):
        assert subjects(reads(f"postgresql://{uri}")) == []
    assert subjects(replace(PARTY, s3=S3("http://minio.example:9000"))) == ["S3's connection"]
    for endpoint in ("", "https://minio.example:9000", "http://127.0.0.1:9000"):
        assert subjects(replace(PARTY, s3=S3(endpoint))) == []


@pytest.mark.parametrize(
    ("above", "mode", "who"),
    [
        (0o755, 0o644, "every user of this machine"),
        (0o711, 0o604, "every user of this machine"),
        (0o700, 0o644, ""),
        (0o755, 0o600, ""),
        (0o755, 0o640, "group"),
        (0o750, 0o640, "group"),
        (0o750, 0o644, "group"),
        (0o700, 0o640, ""),
    ],
)
def test_readers_of_a_file_are_those_whom_the_folders_above_let_through(
    open_folder: Path, above: int, mode: int, who: str
) -> None:
    folder = open_folder / "data"
    folder.mkdir()
    file = folder / "loans.csv"
    file.touch()
    file.chmod(mode)
    folder.chmod(above)
    expected = f"group {grp.getgrgid(file.stat().st_gid).gr_name}" if who == "group" else who
    assert readers(file) == expected


def test_nobody_reads_what_is_not_there(tmp_path: Path) -> None:
    assert readers(tmp_path / "none") == ""
