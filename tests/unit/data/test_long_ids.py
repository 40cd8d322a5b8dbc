"""Ids up to the length that every scheme can take, and one byte more."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedtasks.config import Dataset, FeatureType, Format
from fedtasks.data.tables import list_parts, read_ids, read_rows
from fedtasks.data.values import MAX_ID_BYTES
from fedtasks.errors import IdLong


def write(folder: Path, form: Format, ids: list[str], **columns: list[str]) -> Dataset:
    frame, path = pd.DataFrame({"who": ids, **columns, "a": 1.0}), folder / f"people.{form.value}"
    frame.to_csv(path, index=False) if form is Format.CSV else frame.to_parquet(path)
    who = ",".join(["who", *columns])
    return Dataset("people", f"file://{path}", who, {"a": FeatureType.NUMERIC}, format=form)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("read", [read_ids, read_rows])
def test_longest_id_is_read_and_a_longer_one_is_refused_by_row_and_column(
    tmp_path: Path, form: Format, read: type
) -> None:
    fits, wide = "ä" * (MAX_ID_BYTES // 2) + "x", "ä" * (MAX_ID_BYTES // 2 + 1)
    dataset = write(tmp_path, form, ["1", fits])
    assert [batch.num_rows for part in list_parts(dataset) for batch in read(dataset, part)] == [2]
    dataset = write(tmp_path, form, ["1", fits, wide])
    with pytest.raises(IdLong, match=r"column `who`: found an id of 65,536 bytes") as caught:
        list(read(dataset, list_parts(dataset)[0]))
    assert caught.value.where == f"row 3 of {dataset.uri}"
    assert not caught.value.retryable
    assert "ä" not in str(caught.value)


def test_id_of_two_columns_counts_as_a_whole(tmp_path: Path) -> None:
    dataset = write(tmp_path, Format.PARQUET, ["x" * 40_000, "1"], since=["1", "y" * 40_000])
    assert sum(batch.num_rows for batch in read_ids(dataset, list_parts(dataset)[0])) == 2
    dataset = write(tmp_path, Format.PARQUET, ["1", "x" * 40_000], since=["1", "y" * 40_000])
    with pytest.raises(IdLong, match="`who` and `since`") as caught:
        list(read_ids(dataset, list_parts(dataset)[0]))
    assert "row 2 of" in caught.value.where
