"""Tables and queries of a real PostgreSQL as datasets: the rows of one moment, each once, for a whole run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.checks import Verdict
from fedtasks.config import Dataset, Feature, FeatureType, IdType, Sql, load_party
from fedtasks.data import partitions
from fedtasks.data.copies import check_database, copied, copy_rows, readable
from fedtasks.data.databases import Snapshot, snapshot
from fedtasks.data.storage import filesystem
from fedtasks.data.tables import list_parts, read_rows
from fedtasks.doctor import examine_data
from fedtasks.doctor.services import _datasets
from fedtasks.errors import (
    ColumnMissing,
    ColumnType,
    ConfigError,
    DataCorrupt,
    DataMissing,
    FedtasksError,
    FileForbidden,
    FileInvalid,
    StorageUnavailable,
)
from tests.integration.psi_case import Case, bank
from tests.integration.psi_halves import FOLLOWER, LEADER
from tests.support.postgres import PostgresServer
from tests.support.s3 import BUCKET, S3Server

DAY = "2026-11-21"
VISITS = {"visits": FeatureType.NUMERIC}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.create_database()


@pytest.fixture
def execute(server: PostgresServer, url: str) -> Callable[[str], None]:
    def executed(statement: str) -> None:
        with closing(psycopg2.connect(url, password=server.password)) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)

    return executed


@pytest.fixture
def declare(server: PostgresServer, url: str, tmp_path: Path) -> Callable[..., Dataset]:
    def declared(features: dict[str, Any] = VISITS, *, uri: str = url, id_column: str = "id", **said: Any) -> Dataset:
        fields: dict[str, Any] = {"password_file": server.password_file, "copies": f"file://{tmp_path}/tables/people"}
        if "query" not in said:
            fields["table"] = "people"
        sql = Sql(**(fields | said))
        return Dataset("people", uri, id_column, features, id_type=IdType.INTEGER, sql=sql)

    return declared


def rows_of(dataset: Dataset, *keys: str) -> pa.Table:
    return pa.Table.from_batches(batch for part in list_parts(dataset, keys) for batch in read_rows(dataset, part))


TYPES = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE people ("The id" uuid, small smallint, large bigint, exact numeric(30, 2), real8 float8, real4 real,
  truth bool, "say; hi" text, padded char(6), feeling mood, born date, seen timestamptz, noted timestamp,
  clock time, fact jsonb, raw bytea, items text[], codes int[], amounts numeric[]);
INSERT INTO people VALUES
  ('6f1e0000-0000-4000-8000-00000000000a', 7, 9007199254740993, 12345.60, 0.1, 0.5, true, 'é', 'ab', 'sad',
   '2026-01-02', '2026-01-02 03:04:05+02', '2026-01-02 03:04:05', '01:02', '{"a": 1}', 'xyz', '{a,b}', '{1,2}',
   '{1.50,2}'),
  ('6f1e0000-0000-4000-8000-00000000000b', NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL);
"""


def test_columns_of_every_type_are_read_as_they_are_in_files(
    execute: Callable[[str], None], declare: Callable[..., Dataset]
) -> None:
    execute(TYPES)
    features: dict[str, Any] = {
        "small": FeatureType.NUMERIC,
        "exact": FeatureType.NUMERIC,
        "real8": FeatureType.NUMERIC,
        "real4": FeatureType.NUMERIC,
        "truth": FeatureType.CATEGORICAL,
        "say; hi": FeatureType.CATEGORICAL,
        "padded": FeatureType.CATEGORICAL,
        "feeling": FeatureType.CATEGORICAL,
        "born": FeatureType.DAYS,
        "seen": FeatureType.HOUR,
        "noted": FeatureType.HOUR,
        "clock": FeatureType.CATEGORICAL,
        "fact": FeatureType.CATEGORICAL,
        "raw": FeatureType.CATEGORICAL,
        "large": FeatureType.CATEGORICAL,
        "items": Feature(FeatureType.SEQUENCE, length=3),
        "codes": Feature(FeatureType.SEQUENCE, length=3),
        "amounts": Feature(FeatureType.VECTOR, width=2),
    }
    dataset = dataclasses.replace(declare(features, id_column="The id"), id_type=IdType.STRING)

    first, second = sorted(rows_of(dataset).to_pylist(), key=lambda row: str(row["__fedtasks_id"]))

    assert list(first.values()) == [
        *("6f1e0000-0000-4000-8000-00000000000a", 7.0, 12345.6, 0.1, 0.5, "1", "é", "ab", "sad", 20455.0, 1.0, 3.0),
        *("01:02:00", '{"a": 1}', "xyz", "9007199254740993", ["a", "b"], ["1", "2"], [1.5, 2.0]),
    ]
    assert list(second.values())[1:] == [None] * 18


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 99), max_size=60),
    readers=st.integers(1, 3),
)
def test_ranges_of_any_key_give_each_row_once(
    execute: Callable[[str], None], declare: Callable[..., Dataset], keys: list[int | None], readers: int
) -> None:
    values = "".join(f", ({place}, {'NULL' if key is None else key})" for place, key in enumerate(keys))
    execute("DROP TABLE IF EXISTS people; CREATE TABLE people (id int, k bigint)")
    execute(f"INSERT INTO people VALUES (-1, 0){values}")

    with readable(declare({"k": FeatureType.NUMERIC}, key="k", readers=readers)) as dataset:
        found = rows_of(dataset)

    assert sorted(map(int, found.column("__fedtasks_id").to_pylist())) == list(range(-1, len(keys)))


def test_rows_are_those_of_one_moment_whoever_reads_them(
    execute: Callable[[str], None], declare: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute("CREATE TABLE people AS SELECT g AS id, g AS visits FROM generate_series(1, 5000) g")
    count = Snapshot.count

    def counted(rows: Snapshot) -> int:
        """Let the table change between the count and the reading."""
        found = count(rows)
        execute("INSERT INTO people VALUES (9000, 1); DELETE FROM people WHERE id < 100; UPDATE people SET visits = 0")
        return found

    monkeypatch.setattr(Snapshot, "count", counted)
    dataset = copied(declare(key="id"), f"file://{tmp_path}/run")

    before = rows_of(dataset)

    assert before.num_rows == 5000
    assert sum(before.column("visits").to_pylist()) == 5000 * 5001 / 2
    assert rows_of(dataset).equals(before), "the run reads its copy"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir() if path.is_dir()} == {0o700}
    monkeypatch.undo()
    with snapshot(dataset) as now:
        assert now.count() == 4902


def test_partitions_are_copied_as_they_land_and_stay(
    execute: Callable[[str], None], declare: Callable[..., Dataset]
) -> None:
    execute(
        "CREATE TABLE people AS SELECT g AS id, g AS visits, date '2026-11-20' + g % 3 AS day"
        " FROM generate_series(1, 30) g"
    )
    query = "SELECT *, '1'::text AS partition FROM people WHERE day = :partition -- of a day"
    dataset = declare(query=query, key="id", readers=2)
    assert partitions.landed(dataset) == []

    assert partitions.land(dataset, DAY) == 10
    execute("UPDATE people SET visits = 0")
    assert partitions.land(dataset, DAY) == 10
    assert partitions.land(dataset, "2026-12-24") == 0

    assert partitions.landed(dataset) == [DAY, "2026-12-24"]
    assert sorted(rows_of(dataset, DAY, "2026-12-24").column("visits").to_pylist()) == [1.0 + 3 * n for n in range(10)]
    with pytest.raises(FileInvalid):
        partitions.land(dataset, "no-day")
    assert not partitions.has_landed(dataset, "no-day")


def test_copies_lie_on_s3_as_well_and_so_do_those_without_rows(
    execute: Callable[[str], None], declare: Callable[..., Dataset], tmp_path: Path
) -> None:
    execute("CREATE TABLE people AS SELECT g AS id, g AS visits, date '2026-11-21' AS day FROM generate_series(1, 9) g")
    with S3Server(tmp_path):
        query = "SELECT * FROM people WHERE day = :partition"
        dataset = declare(query=query, key="id", copies=f"s3://{BUCKET}/tables/people")
        assert [partitions.land(dataset, day) for day in (DAY, "2026-11-22")] == [9, 0]
        assert rows_of(dataset, *partitions.landed(dataset)).num_rows == 9
        with readable(declare(query="SELECT * FROM people WHERE false", copies=f"s3://{BUCKET}/once")) as none:
            assert list_parts(none) == []
        fs, path = filesystem(f"s3://{BUCKET}/once")
        assert not fs.exists(path)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"table": "nobody"}, DataMissing, 'relation "nobody" does not exist'),
        (
            {"table": "people", "features": {"nope": FeatureType.NUMERIC}},
            ColumnMissing,
            "`nope` is not in the table; it has: id,",
        ),
        ({"table": "people", "features": {"day": FeatureType.NUMERIC}}, ColumnType, "`day`: found date32"),
        ({"table": "people", "key": "email"}, ConfigError, "`email` must be a column of whole numbers, found string"),
        ({"table": "people", "key": "nope"}, ConfigError, "`nope` must be a column of whole numbers, found no such"),
        ({"table": "people; DROP TABLE people"}, DataMissing, "does not exist"),
        (
            {"query": "SELECT id, visits FROM people) AS a; DROP TABLE people; SELECT * FROM (SELECT 1"},
            ConfigError,
            "multiple commands",
        ),
        ({"query": "SELECT id, nextval('taken') AS visits FROM people"}, ConfigError, "it may only read"),
        ({"query": "DELETE FROM people RETURNING *"}, ConfigError, "syntax error"),
        ({"query": "SELEC id"}, ConfigError, "syntax error"),
        ({"query": "SELECT id, nope FROM people"}, ColumnMissing, 'column "nope" does not exist'),
        ({"query": "SELECT id, email::int AS visits FROM people"}, FileInvalid, "fails on a value"),
        ({"query": "SELECT id, 1 / (visits - 5) AS visits FROM people"}, FileInvalid, "fails on a value"),
        ({"query": "SELECT * FROM people WHERE random() < 0.5"}, DataCorrupt, "the same rows each time"),
    ],
)
def test_what_cannot_be_read_is_told_and_changes_nothing(
    execute: Callable[[str], None],
    declare: Callable[..., Dataset],
    tmp_path: Path,
    said: dict[str, Any],
    error: type[FedtasksError],
    words: str,
) -> None:
    execute("CREATE SEQUENCE taken")
    execute(
        "CREATE TABLE people AS SELECT g AS id, g AS visits, 'Ada'||g||'@example.org' AS email, current_date AS day"
        " FROM generate_series(1, 500) g"
    )

    with pytest.raises(error) as raised:
        copy_rows(declare(**said), f"file://{tmp_path}/copy")

    assert words in raised.value.detail
    assert not (tmp_path / "copy").exists()
    assert "Ada" not in str(raised.value), "the server's words quote values"
    assert "fedtasks:" not in str(raised.value)
    execute("SELECT 1 / (count(*) - 499) FROM people")  # there are 500 still


def test_database_that_does_not_serve_is_waited_for_and_one_that_refuses_is_not(
    server: PostgresServer, declare: Callable[..., Dataset], url: str, tmp_path: Path, execute: Callable[[str], None]
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("p@ss/word")
    execute("CREATE ROLE reader LOGIN PASSWORD 'p@ss/word'; CREATE TABLE people (id int, visits int)")
    reader = url.replace("fedtasks@", "reader@")
    for dataset, error in (
        (declare(password_file=wrong), FileForbidden),
        (declare(uri=reader, password_file=wrong), FileForbidden),
        (declare(uri=f"{url}_of_nobody"), DataMissing),
        (declare(uri=url.replace(f":{server.port}/", ":1/")), StorageUnavailable),
        (declare(uri=f"{url}?sslmode=require"), StorageUnavailable),
    ):
        with pytest.raises(error) as raised:
            check_database(dataset)
        assert "p@ss" not in str(raised.value)
    for unreadable in ("?nonsense=1", "?sslmode=%zz", "?=x"):
        with pytest.raises(ConfigError) as refused:
            check_database(declare(uri=f"{reader}{unreadable}", password_file=wrong))
        assert "p@ss" not in str(refused.value)
        assert "p%40ss" not in str(refused.value)
    execute("GRANT SELECT ON people TO reader")
    assert check_database(declare(uri=reader, password_file=wrong)) == (2, 1)


def test_server_on_another_host_must_show_its_certificate(declare: Callable[..., Dataset]) -> None:
    from fedtasks.data.databases import _url

    assert "sslmode=verify-full" in _url(declare(uri="postgresql://me@db.example.org/shop"))
    assert "sslmode=verify-full" not in _url(declare(uri="postgresql://me@db.example.org/shop?sslmode=disable"))
    for local in ("127.0.0.1/shop", "localhost:5432/shop", "/shop?host=/run/postgresql"):
        assert "sslmode" not in _url(declare(uri=f"postgresql://{local}"))
    for remote in ("localhost:5432,db.example:5432/shop", "localhost/shop?hostaddr=192.0.2.1", "/shop?host=db.example"):
        assert "sslmode=verify-full" in _url(declare(uri=f"postgresql://{remote}"))


def test_doctor_looks_through_a_table_and_leaves_no_copy(
    server: PostgresServer, url: str, execute: Callable[[str], None], tmp_path: Path
) -> None:
    execute("CREATE TABLE people AS SELECT g AS id, g % 5 AS visits FROM generate_series(1, 50) g")
    (tmp_path / "party.yaml").write_text(f"""\
name: bank
gateway: {{certificate: k, private_key: k, authority: k, ticket_key: k, worker_secret_file: k}}
airflow: {{url: "http://127.0.0.1:8080", user: fedtasks, password_file: k}}
storage: storage
datasets:
  - name: people
    uri: {url}
    sql: {{table: public.people, key: id, password_file: {server.password_file}}}
    id: id
    id_type: integer
    features: {{visits: numeric}}
""")

    (looked,) = _datasets(load_party(tmp_path / "party.yaml"))
    assert (looked.verdict, looked.text) == (Verdict.OK, "2 declared columns are there, read in 16 ranges")
    found = {each.subject: each for each in examine_data(tmp_path / "party.yaml")}

    assert {each.verdict for each in found.values()} <= {Verdict.OK, Verdict.NOTE}, found
    assert "50 rows" in found["people: visits"].text or "0 to 4" in found["people: visits"].text
    assert list((tmp_path / "storage" / "tables").rglob("*.parquet")) == []
    execute("ALTER TABLE people RENAME COLUMN visits TO calls")
    (looked,) = _datasets(load_party(tmp_path / "party.yaml"))
    assert (looked.verdict, looked.text.partition(";")[0]) == (
        Verdict.WRONG,
        "DATA_COLUMN_MISSING: column `visits` is not in the table",
    )
    (wrong,) = (each for each in examine_data(tmp_path / "party.yaml") if each.verdict is Verdict.WRONG)
    assert wrong.subject == "people: visits"


def test_run_reads_one_copy_whatever_changes_between_its_tasks(
    case: Case, declare: Callable[..., Dataset], execute: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    execute("CREATE TABLE people AS SELECT 'p'||g AS id, g AS n, 'job '||g AS \"Job\" FROM generate_series(1, 90) g")
    case.give(LEADER, bank([f"p{number}" for number in range(60, 120)]))
    dataset = declare(key="n")
    case.give(FOLLOWER, pa.table({"id": ["x"], "Job": ["y"]}), uri=dataset.uri, sql=dataset.sql)
    caplog.set_level(logging.DEBUG)

    met = case.run("psi")
    execute("DELETE FROM people")
    aligned = case.run("align", test_fraction=0.0)

    assert met[LEADER].outcome == met[FOLLOWER].outcome is not None, met
    assert aligned[LEADER].outcome == aligned[FOLLOWER].outcome is not None, aligned
    assert aligned[FOLLOWER].outcome.counts["rows"] == 31
