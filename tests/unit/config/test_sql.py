"""What party.yaml says of databases is refused where it could not be meant, by the name of the field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks.config import Dataset, EventTime, FeatureType, Format, Sql, TimeUnit, load_party
from fedtasks.errors import ConfigError

URL = "postgresql://reader@127.0.0.1/sales"
PARTY = """\
name: bank
gateway: {certificate: k, private_key: k, authority: k, ticket_key: k, worker_secret_file: k}
airflow: {url: "http://127.0.0.1:8080", user: fedtasks, password_file: k}
"""
DATASETS = """\
datasets:
  - {name: people, uri: "postgresql://reader@db.example/sales", id: id, features: {n: numeric},
     sql: {query: "SELECT * FROM people WHERE day = :partition", key: id, password_file: keys/password}}
"""


def declared(**fields: Any) -> Dataset:
    return Dataset(**{"name": "people", "uri": URL, "id": "id", "features": {"n": FeatureType.NUMERIC}, **fields})


TABLE = Sql(table="people")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "sql"),
        ({"uri": "people.parquet", "sql": TABLE}, "sql"),
        ({"uri": "postgresql://reader:secret@127.0.0.1/sales", "sql": TABLE}, "uri"),
        ({"uri": f"{URL}?password=secret", "sql": TABLE}, "uri"),
        ({"uri": f"{URL}/{{partition}}", "sql": TABLE}, "uri"),
        ({"sql": TABLE, "format": Format.CSV}, "format"),
        ({"sql": TABLE, "endings": (".dat",)}, "endings"),
        ({"sql": TABLE, "event_time": EventTime("at", TimeUnit.SECONDS)}, "event_time"),
    ],
)
def test_dataset_that_is_no_table_of_a_database_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        declared(**fields)
    assert raised.value.fields["field"] == field
    assert "secret" not in raised.value.detail


@pytest.mark.parametrize(
    "fields",
    [{}, {"table": "a", "query": "SELECT 1"}, {"table": "a..b"}, {"table": ".a"}, {"table": "a", "readers": 0}],
)
def test_section_that_names_no_rows_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Sql(**fields)


@pytest.mark.parametrize(
    ("query", "partitioned"),
    [
        ("SELECT * FROM a WHERE day = :partition", True),
        ("SELECT * FROM a WHERE day = (:partition)::date", True),
        ("SELECT day::partition FROM a", False),
        ("SELECT * FROM a WHERE x = 'x:partitions'", False),
    ],
)
def test_partition_stands_in_a_query_as_a_text(query: str, partitioned: bool) -> None:
    sql = Sql(query=query)
    assert sql.is_partitioned is partitioned
    assert ("'2026-11-21'" in sql.rows_of("2026-11-21")) is partitioned


def test_names_are_quoted_whatever_they_hold() -> None:
    assert Sql(table='crm.a"; DROP TABLE b; --').rows_of() == '"crm"."a""; DROP TABLE b; --"'
    assert Sql(query="SELECT 1; -- one").rows_of() == "(SELECT 1; -- one\n) AS rows"


def test_how_rows_are_read_is_no_matter_of_a_ticket_and_decides_what_a_run_reads() -> None:
    table, query = declared(sql=TABLE), declared(sql=Sql(query="SELECT * FROM people"))
    files = declared(uri="people.parquet")
    assert table.schema_digest == query.schema_digest == files.schema_digest
    assert len({each.declaration_digest for each in (table, query, files)}) == 3


def test_paths_and_copies_are_resolved_as_party_yaml_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "party.yaml"
    file.write_text(f"{PARTY}storage: storage\n{DATASETS}")
    (dataset,) = load_party(file).datasets
    assert dataset.sql == replace(
        dataset.sql,
        password_file=tmp_path / "keys" / "password",
        copies=f"file://{tmp_path}/storage/tables/people",
    )
    assert dataset.is_partitioned
    assert dataset.partition_place == (f"file://{tmp_path}/storage/tables/people", "")
