from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType
from fedtasks.data.tables import list_parts
from fedtasks.engines.duck import DuckEngine
from fedtasks.engines.engine import Batches
from fedtasks.errors import DataCorrupt
from fedtasks.psi.ids import dataset_ids, find_changes

SHARDS = 3


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three files of 100 rows; the second has an id in every other row only."""
    for number in range(3):
        ids = [None if number == 1 and row % 2 else f"p{number}-{row}" for row in range(100)]
        pq.write_table(pa.table({"id": ids, "x": [1.0] * 100}), tmp_path / f"{number}.parquet", row_group_size=30)
    return Dataset(name="people", uri=f"file://{tmp_path}", id="id", features={"x": FeatureType.NUMERIC})


def without(n_rows: int, of_file: int) -> Callable[[Batches], Batches]:
    """Return a job that loses rows of a file on their way, and not the last."""

    def lose(batches: Batches) -> Batches:
        left = n_rows
        for batch in batches:
            lost = [file == of_file for file in batch.column("file").to_pylist()]
            keep = []
            for is_of_file in lost:
                keep.append(not (is_of_file and left > 0))
                left -= is_of_file and left > 0
            yield batch.filter(pa.array(keep))

    return lose


def test_all_rows_that_are_read_arrive_those_without_an_id_too(dataset: Dataset, tmp_path: Path) -> None:
    engine, parts = DuckEngine(tmp_path, 64_000_000, 1), list_parts(dataset)
    found = find_changes(engine, dataset_ids(engine, dataset, parts, SHARDS), parts, SHARDS, f"file://{tmp_path}")
    assert (found.counts.n_rows, found.counts.n_null, found.n_ids) == (300, 50, 250)


@pytest.mark.parametrize("of_file", [0, 1, 2])
def test_rows_that_get_lost_on_their_way_are_noticed_and_the_file_is_named(
    dataset: Dataset, tmp_path: Path, of_file: int
) -> None:
    engine, parts = DuckEngine(tmp_path, 64_000_000, 1), list_parts(dataset)
    rows = dataset_ids(engine, dataset, parts, SHARDS)
    lossy = engine.map(rows, without(7, of_file), rows.schema)
    with pytest.raises(DataCorrupt, match="100 rows were read, and 93 have arrived") as caught:
        find_changes(engine, lossy, parts, SHARDS, f"file://{tmp_path}")
    assert caught.value.where.endswith(f"/{of_file}.parquet")
