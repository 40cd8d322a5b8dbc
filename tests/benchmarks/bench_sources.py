"""How fast a table of PostgreSQL becomes rows of an intersection: the copy that a run makes, and the pass over it.

PostgreSQL and the reading are processes of their own. Run it with ``make bench-sources ROWS=1000000``; the last line is
one JSON object. Sums over all rows are compared with those of the database.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow.compute as pc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import Dataset, FeatureType, Sql
from fedtasks.data.copies import copied, files_of_copy
from fedtasks.data.tables import list_parts, read_ids, read_rows
from tests.support.postgres import PostgresServer

ROWS = int(os.environ.get("ROWS", "1000000"))
READERS = tuple(map(int, os.environ.get("READERS", "1,2,4").split(",")))
TABLE = f"""
CREATE TABLE people AS SELECT g AS number, 'person-' || g || '@example.org' AS email,
  (g::bigint * 7919 % 100000)::float8 AS income, (g % 90)::smallint AS age, (g % 1000)::numeric(10, 2) AS balance,
  date '2020-01-01' + g % 2000 AS opened, 'region ' || g % 40 AS region FROM generate_series(1, {ROWS}) g;
ALTER TABLE people ADD PRIMARY KEY (number);
ANALYZE people
"""
FEATURES = {
    "income": FeatureType.NUMERIC,
    "age": FeatureType.NUMERIC,
    "balance": FeatureType.NUMERIC,
    "opened": FeatureType.DAYS,
    "region": FeatureType.CATEGORICAL,
}


def measure(dataset: Dataset) -> dict[str, Any]:
    """Copy the table, then pass over its ids and over its rows."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    files_of_copy(dataset)
    copied_s, peak_kb = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = resource.getrusage(resource.RUSAGE_SELF)
    parts = list_parts(dataset)
    started = time.monotonic()
    ids = sum(batch.num_rows for part in parts for batch in read_ids(dataset, part))
    ids_s = time.monotonic() - started
    started = time.monotonic()
    sums = [pc.sum(batch.column("income")).as_py() for part in parts for batch in read_rows(dataset, part)]
    rows_s = time.monotonic() - started
    return {
        "copied_rows_per_s": round(ROWS / copied_s),
        "copied_cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "copied_memory_mb": round((peak_kb - before_kb) / 1024),
        "ids_rows_per_s": round(ROWS / ids_s),
        "rows_rows_per_s": round(ROWS / rows_s),
        "ids": ids,
        "income": sum(sums),
    }


def main() -> None:
    """Print a table and one JSON object."""
    found: dict[str, Any] = {"rows": ROWS}
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        url = server.create_database()
        with closing(psycopg2.connect(url, password=server.password)) as connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
            connection.commit()
            cursor.execute("SELECT count(*), sum(income) FROM people")
            expected = cursor.fetchone()
        print(f"{'readers':>8}{'rows/s copied':>15}{'CPU s':>8}{'MB more':>9}{'ids/s':>12}{'rows/s read':>13}")
        for readers in READERS:
            sql = Sql(table="people", key="number", readers=readers, password_file=server.password_file)
            dataset = copied(Dataset("people", url, "email", FEATURES, sql=sql), f"file://{folder}/{readers}")
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                one = pool.apply(measure, (dataset,))
            if (one.pop("ids"), one.pop("income")) != expected:
                raise SystemExit("the copy has other rows than the table")
            found[f"readers_{readers}"] = one
            print(
                f"{readers:>8}{one['copied_rows_per_s']:>15,}{one['copied_cpu_s']:>8}{one['copied_memory_mb']:>9}"
                f"{one['ids_rows_per_s']:>12,}{one['rows_rows_per_s']:>13,}",
                flush=True,
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
