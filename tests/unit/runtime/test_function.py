from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType
from fedtasks.errors import ConfigError
from fedtasks.runtime.context import TaskContext
from fedtasks.runtime.function import Data


def data(tmp_path: Path, values: dict[str, Any], **declared: Any) -> Data:
    pq.write_table(pa.table({"id": ["a", "b"], **values}), tmp_path / "p.parquet")
    dataset = Dataset(name="people", uri=f"file://{tmp_path}/p.parquet", id="id", **declared)
    return Data(cast(TaskContext, SimpleNamespace(dataset=dataset, partitions=(), alive=lambda: None)))


def test_columns_are_asked_for_by_their_names_and_never_the_id(tmp_path: Path) -> None:
    values = {"x": [1.0, 2.0], "repaid": [True, False], "w": [1.0, 3.0]}
    found = data(tmp_path, values, features={"x": FeatureType.NUMERIC}, label="repaid", weight="w")
    assert found.table().to_pydict() == {"x": [1.0, 2.0]}
    for names in (("label", "weight", "x"), ("repaid", "w", "x")):
        assert list(found.table(*names).to_pydict().items()) == list(
            zip(names, ([1, 0], [1.0, 3.0], [1.0, 2.0]), strict=True)
        )
    for name in ("id", "__fedtasks_id", "y"):
        with pytest.raises(ConfigError, match=f"`{name}` is not a column of people: label, repaid, weight, w, x"):
            found.table(name)


def test_feature_called_label_is_the_feature_and_the_label_has_its_own_name(tmp_path: Path) -> None:
    features = {"label": FeatureType.NUMERIC, "opened": FeatureType.DAYS, "day": FeatureType.WEEKDAY}
    values = {"label": [5.0, 6.0], "opened": ["2026-11-21", None], "y": [1, 0]}
    found = data(tmp_path, values, features=features, columns={"day": "opened"}, label="y")
    assert found.table("label", "y").to_pydict() == {"label": [5.0, 6.0], "y": [1, 0]}
    assert found.table("day").to_pydict() == {"day": ["Saturday", None]}
    assert found.numeric == ["label", "opened"]
