"""Partitions: complete when marked, marked only when their rows can be used."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import orc

from fedtasks.config import Dataset, FeatureType, Format
from fedtasks.data import partitions
from fedtasks.data.tables import ID, list_parts, read_rows
from fedtasks.errors import ColumnType, ConfigError, DataMissing, DataNotLanded, FedtasksError, GatewayUnreachable
from tests.support.tf_records import written

DAY = "2026-11-21"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return dataset_of(tmp_path)


def dataset_of(tmp_path: Path) -> Dataset:
    return Dataset("loans", f"file://{tmp_path}/loans/{{partition}}", "customer", {"a": FeatureType.NUMERIC})


def write(tmp_path: Path, day: str, values: list[object]) -> Path:
    folder = tmp_path / "loans" / day
    folder.mkdir(parents=True)
    pd.DataFrame({"customer": [f"c{n}" for n in range(len(values))], "a": values}).to_parquet(folder / "p.parquet")
    return folder


def test_partition_lands_once_its_rows_are_read(tmp_path: Path, dataset: Dataset) -> None:
    assert partitions.landed(dataset) == []
    write(tmp_path, "2026-11-22", [1.0])
    folder = write(tmp_path, DAY, [1.0, 2.0])
    write(tmp_path, "2026-11-20", [1.0])
    assert partitions.landed(dataset) == []
    assert partitions.land(dataset, "2026-11-22") == 1
    assert partitions.land(dataset, DAY) == partitions.land(dataset, DAY) == 2
    assert (folder / "_SUCCESS").read_bytes() == b""
    assert partitions.landed(dataset) == [DAY, "2026-11-22"]
    assert partitions.has_landed(dataset, DAY)
    assert not partitions.has_landed(dataset, "2026-11-20")


def test_partitions_in_the_manner_of_hive_land_beside_other_folders(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/loans/day={{partition}}"
    dataset = Dataset("loans", uri, "customer", {"a": FeatureType.NUMERIC, "day": FeatureType.CATEGORICAL})
    for folder in (f"day={DAY}", "day=2026-11-22", "week=47", DAY):
        write(tmp_path, folder, [1.0])
        (tmp_path / "loans" / folder / "_SUCCESS").touch()
    (tmp_path / "loans" / "day=2026-11-22" / "_SUCCESS").unlink()
    assert partitions.landed(dataset) == [DAY]
    assert partitions.land(dataset, "2026-11-22") == 1
    assert partitions.landed_until(dataset, "2026-11-22") == [DAY, "2026-11-22"]
    parts = list_parts(dataset, partitions.landed(dataset))
    days = [row["day"] for part in parts for batch in read_rows(dataset, part) for row in batch.to_pylist()]
    assert days == ["2026-11-22", DAY]


def test_day_without_files_is_a_day_without_rows(tmp_path: Path, dataset: Dataset) -> None:
    for day, values in (("2026-11-20", [1.0]), ("2026-11-22", [2.0])):
        write(tmp_path, day, values)
    (tmp_path / "loans" / DAY).mkdir()
    (tmp_path / "loans" / DAY / "_SUCCESS").touch()
    assert [part.partition for part in list_parts(dataset, ["2026-11-20", DAY, "2026-11-22"])] == [
        *("2026-11-22", "2026-11-20")
    ]
    assert list_parts(dataset, [DAY]) == []


@pytest.mark.parametrize(
    ("partition", "error"), [("2026-11-20", DataMissing), ("broken", ColumnType), ("../loans", ConfigError)]
)
def test_partition_that_no_run_could_use_is_not_marked(
    tmp_path: Path, dataset: Dataset, partition: str, error: type[FedtasksError]
) -> None:
    write(tmp_path, "broken", ["text"])
    with pytest.raises(error):
        partitions.land(dataset, partition)
    assert partitions.landed(dataset) == []


def test_dataset_without_partitions_cannot_land(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no `\{partition\}`"):
        partitions.land(Dataset("loans", f"file://{tmp_path}", "customer", {"a": FeatureType.NUMERIC}), DAY)


@pytest.mark.parametrize("uri", ["data/{partition}.parquet", "{partition}/loans", "data/{partition}/{partition}"])
def test_dataset_whose_partition_is_no_folder_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="last part"):
        Dataset("loans", uri, "customer", {"a": FeatureType.NUMERIC})


def test_run_uses_what_has_landed_up_to_its_own_partition(tmp_path: Path, dataset: Dataset) -> None:
    for day in ("2026-11-20", DAY, "2026-11-23"):
        write(tmp_path, day, [1.0])
        partitions.land(dataset, day)
    write(tmp_path, "2026-11-22", [1.0])
    assert partitions.landed_until(dataset, DAY) == ["2026-11-20", DAY]
    for missing in ("2026-11-22", "2026-11-24"):
        with pytest.raises(DataNotLanded, match="DATA_NOT_LANDED") as caught:
            partitions.landed_until(dataset, missing)
        assert caught.value.fields == {"dataset": "loans", "partition": missing}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 99), min_size=1), min_size=1, max_size=4))
def test_first_row_of_each_id_is_that_of_the_newest_partition(days: list[dict[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset("loans", f"file://{folder}/{{partition}}", "customer", {"a": FeatureType.NUMERIC})
        for number, rows in enumerate(days):
            place = Path(folder, f"d{number}")
            place.mkdir()
            pd.DataFrame({"customer": list(rows), "a": list(rows.values())}).to_parquet(place / "part.parquet")
            partitions.land(dataset, place.name)
        newest: dict[str, float] = {}
        for part in list_parts(dataset, partitions.landed(dataset)):
            for batch in read_rows(dataset, part):
                for row in batch.to_pylist():
                    newest.setdefault(row[ID], row["a"])
    expected: dict[str, float] = {}
    for rows in days:
        expected |= rows
    assert newest == expected


@pytest.mark.parametrize("form", Format)
def test_empty_day_lands_with_no_rows_and_later_days_go_on(tmp_path: Path, form: Format) -> None:
    dataset = replace(dataset_of(tmp_path), format=form)
    nothing = pd.DataFrame({"customer": pd.Series([], dtype=str), "a": pd.Series([], dtype=float)})
    for day in ("d1", "d2", "d3", "d4"):
        (tmp_path / "loans" / day).mkdir(parents=True)
    (tmp_path / "loans" / "d1" / "_SUCCESS").touch()
    (tmp_path / "loans" / "d2" / "._part.crc").touch()
    for day, frame in (("d3", nothing), ("d4", pd.DataFrame({"customer": ["c1"], "a": [1.0]}))):
        file = tmp_path / "loans" / day / f"part.{form.value}"
        match form:
            case Format.CSV:
                frame.to_csv(file, index=False)
            case Format.PARQUET:
                frame.to_parquet(file)
            case Format.JSON_LINES:
                frame.to_json(file, orient="records", lines=True)
            case Format.TFRECORD:
                file.write_bytes(written(frame.to_dict("records")))
            case Format.ORC:
                schema = pa.schema([("customer", pa.string()), ("a", pa.float64())])
                orc.write_table(pa.Table.from_pandas(frame, schema), file)
    assert [partitions.land(dataset, day) for day in ("d1", "d2", "d3", "d4")] == [0, 0, 0, 1]
    assert partitions.landed_until(dataset, "d4") == ["d1", "d2", "d3", "d4"]
    for last, rows in (("d1", 0), ("d3", 0), ("d4", 1)):
        parts = list_parts(dataset, partitions.landed_until(dataset, last))
        assert sum(batch.num_rows for part in parts for batch in read_rows(dataset, part)) == rows


def test_partition_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    with pytest.raises(DataMissing, match="has no folder of partition `d9`: there is none yet"):
        partitions.land(dataset, "d9")
    for day in range(1, 8):
        write(tmp_path, f"d{day}", [1.0])
    with pytest.raises(DataMissing, match="there are d3, d4, d5, d6, d7 and 2 before"):
        partitions.land(dataset, "d9")


def test_landing_that_nobody_was_told_of_leaves_no_mark_but_one_that_was_there(tmp_path: Path) -> None:
    dataset, folder = dataset_of(tmp_path), write(tmp_path, DAY, [1.0, 2.0])
    for was_there in (False, True):
        with pytest.raises(GatewayUnreachable), partitions.landing(dataset, DAY):
            raise GatewayUnreachable
        assert (folder / "_SUCCESS").exists() == was_there
        (folder / "_SUCCESS").touch()


def test_partition_behind_a_link_is_one(tmp_path: Path, dataset: Dataset) -> None:
    write(tmp_path / "elsewhere", DAY, [1.0])
    (tmp_path / "loans").mkdir()
    (tmp_path / "loans" / DAY).symlink_to(tmp_path / "elsewhere" / "loans" / DAY)
    assert partitions.land(dataset, DAY) == 1
    assert partitions.landed(dataset) == [DAY]
