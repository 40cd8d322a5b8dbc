"""What ends in too little memory or on a full disk says so, with the remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from fedtasks.config import Duckdb, Party
from fedtasks.engines import open_engine
from fedtasks.engines.engine import Batches
from fedtasks.errors import DiskFull, OutOfMemory
from tests.support.halves import LEADER, party_of

SCHEMA = pa.schema([("key", pa.binary()), ("value", pa.int64())])


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return replace(party_of(tmp_path, LEADER), duckdb=Duckdb("1MB", 1))


def rows_of(item: int) -> Batches:
    keys = [b"%040d" % row for row in range(item, item + 20_000)]
    yield pa.record_batch([pa.array(keys, pa.binary()), pa.array(range(20_000), pa.int64())], schema=SCHEMA)


def test_join_with_too_little_memory_names_the_setting(party: Party, tmp_path: Path) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"Out of Memory.*`duckdb.memory` in party.yaml") as found,
        open_engine(party, "unit", f"file://{tmp_path}/scratch") as engine,
    ):
        engine.collect(engine.first_of_each(engine.each([0, 1], rows_of, SCHEMA), "key", ["value"]))
    assert "\n" not in found.value.detail
    assert not any((tmp_path / "scratch").iterdir())


def test_spill_without_room_on_the_disk_names_the_disk(party: Party, tmp_path: Path) -> None:
    database = duckdb.connect(
        config={"memory_limit": "8MB", "threads": 1, "temp_directory": str(tmp_path), "max_temp_directory_size": "1MB"}
    )
    with (
        pytest.raises(DiskFull, match="Free the disk"),
        open_engine(party, "unit", f"file://{tmp_path}/scratch"),
    ):
        database.execute("CREATE TABLE rows AS SELECT hash(i) AS key, i FROM range(2_000_000) AS t(i) ORDER BY key")


@pytest.mark.parametrize("error", [duckdb.ParserException("syntax"), duckdb.IOException("no such file"), ValueError()])
def test_other_errors_stay_what_they_are(party: Party, tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(type(error)) as found,
        open_engine(party, "unit", f"file://{tmp_path}/scratch"),
    ):
        raise error
    assert found.value is error
