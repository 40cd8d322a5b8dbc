"""What a half says of its ids, and what it believes of the other's; which rows it looks at beforehand."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, Feature, FeatureType
from fedtasks.data.id_shapes import Form, Shape, to_plain
from fedtasks.data.storage import write_json
from fedtasks.data.tables import list_parts
from fedtasks.errors import ColumnType, ProtocolViolated
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn.settings import check_places
from fedtasks.psi import inspection, messages

OWN = [((Shape(Form.DIGITS, 11), 99),)]
THEIRS = [((Shape(Form.POINT_ZERO, 13), 98),)]


class Context:
    """As much of a context as is asked for."""

    def __init__(
        self, dataset: Dataset, *, clause: str = "classes", kinds: tuple[str, ...] = (), settings: tuple[Any, ...] = ()
    ) -> None:
        self.dataset = dataset
        self.party = SimpleNamespace(name="bank")
        bounds = {"outputs.id_shapes": clause} if clause else {}
        self.config = SimpleNamespace(peer="shop", bounds=bounds, kinds=kinds, kind_settings=settings, attempt=3)
        self.reports: list[Any] = []

    def report(self, progress: Any = None, **metrics: float) -> None:
        self.reports.append(metrics)


def dataset(folder: Path, **features: FeatureType | Feature) -> Dataset:
    return Dataset(name="people", uri=f"file://{folder}", id="id", features=features or {"x": FeatureType.NUMERIC})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write_json(f"file://{tmp_path}/state/id-shapes.json", to_plain(OWN))
    return f"file://{tmp_path}/state"


def explained(folder: str, said: dict[str, Any] | None, shapes: Any = None, *, n_people: int, clause: str) -> Any:
    """Return what a half of 1,000 ids says when its peer sends this, and what it has sent."""
    ours, theirs = memory_pair()
    if said is not None:
        theirs.send("few shared", str(said).replace("'", '"').lower().encode())
    if shapes is not None:
        messages.ID_SHAPES.send(theirs, shapes)
    context: Any = Context(dataset(Path("none")), clause=clause)
    try:
        return inspection.explain(context, ours, folder, n_people, 1000), set(ours.sent)
    finally:
        for half in (ours, theirs):
            half.abort()


@pytest.mark.parametrize("clause", ["", "none"])
def test_without_the_clause_nothing_crosses_and_own_shapes_are_said(folder: str, clause: str) -> None:
    text, sent = explained(folder, None, n_people=0, clause=clause)
    assert sent == set()
    assert text.startswith("ids of bank: 11 digits 99 %; compare them with those of shop by telephone")
    assert explained(folder, None, n_people=50, clause=clause) == ("", set())


def test_own_ids_that_are_seldom_meant_are_said_how_to_be_mended(folder: str) -> None:
    write_json(f"{folder}/id-shapes.json", to_plain(THEIRS))
    text, _ = explained(folder, None, n_people=0, clause="")
    assert text.startswith("they were read as numbers once: take `.0` off at the source")


def test_both_that_say_few_show_each_other_their_shapes(folder: str) -> None:
    text, sent = explained(folder, {"few": True}, {"columns": to_plain(THEIRS)}, n_people=49, clause="classes")
    assert sent == {"few shared", "id shapes"}
    assert text.startswith("shop: they were read as numbers once: take `.0` off at the source")
    assert text.endswith("ids of bank: 11 digits 99 %; of shop: 13 characters ending in .0 98 %")


@pytest.mark.parametrize(("few", "n_people"), [(True, 50), (False, 49), (False, 50)])
def test_shapes_are_not_shown_unless_both_say_few_whatever_a_peer_says(folder: str, few: bool, n_people: int) -> None:
    text, sent = explained(folder, {"few": few}, n_people=n_people, clause="classes")
    assert sent == {"few shared"}
    assert "shop: " not in text


@pytest.mark.parametrize(
    "shapes",
    [
        {"columns": []},
        {"columns": [[], []]},
        {"columns": [[["digits", 11, "", 1000]]]},
        {"columns": [[["<b>13800138000</b>", 11, "", 9]]]},
        {"columns": [[["digits", 11, "of Jo", 9]]]},
        {"columns": [[["digits", 11, "", 9]] * 1000]},
    ],
)
def test_shapes_that_are_none_are_refused(folder: str, shapes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolated, match="id shapes"):
        explained(folder, {"few": True}, shapes, n_people=0, clause="classes")


@pytest.mark.parametrize("said", [{"few": 1}, {"many": True}])
def test_answer_that_is_neither_yes_nor_no_is_refused(folder: str, said: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolated, match="few shared"):
        explained(folder, said, n_people=0, clause="classes")


def test_ids_that_another_release_has_prepared_have_no_shapes(tmp_path: Path) -> None:
    text, _ = explained(f"file://{tmp_path}", None, n_people=0, clause="")
    assert text.startswith("ids of bank: no ids")


# --------------------------------------------------------------------------------------------------------- beforehand
def write(folder: Path, n_files: int, rows: int, group: int, **columns: Any) -> None:
    folder.mkdir()
    for number in range(n_files):
        ids = [f"{number * rows + row:08d}" for row in range(rows)]
        table = pa.table({"id": ids, "x": np.arange(rows, dtype=float)} | columns)
        pq.write_table(table, folder / f"part-{number:03d}.parquet", row_group_size=group)


@pytest.mark.parametrize(
    ("n_files", "rows", "group", "most", "expected"),
    [
        (1, 30_000, 30_000, 100_000, 30_000),  # all of little
        (50, 100, 100, 100_000, 5_000),  # all of many small parts
        (3, 10_000, 1_000, 8_000, 8_000),  # from eight places
        (100, 100, 100, 100_000, 6_400),  # no more than 64 parts
    ],
)
def test_sample_is_of_places_at_equal_distances_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_files: int, rows: int, group: int, most: int, expected: int
) -> None:
    monkeypatch.setattr(inspection, "SAMPLE_ROWS", most)
    write(tmp_path / "people", n_files, rows, group)
    context: Any = Context(dataset(tmp_path / "people"))
    parts = list_parts(context.dataset)
    batches = list(inspection._sample(context, parts))
    assert sum(batch.num_rows for batch in batches) == expected
    if expected == 8_000:
        # Of 30 parts every third, and of ten of them as much as is left for each.
        firsts = sorted({int(batch.column(0)[0].as_py()) // 1000 for batch in batches})
        assert firsts == list(range(0, 30, 3))


def test_what_harms_a_model_is_logged_and_remarked_once_for_each_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "people", 1, 100, 100, empty=pa.nulls(100, pa.float64()), same=[1.0] * 100)
    numeric = dict.fromkeys(("x", "empty", "same"), FeatureType.NUMERIC)
    context: Any = Context(dataset(tmp_path / "people", **numeric))
    with caplog.at_level(logging.WARNING):
        inspection.inspect(context, list_parts(context.dataset), f"file://{tmp_path}")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["column `empty`", "column `same`"]
    assert context.reports == [{"step": 3, "remark.suspicious.empty": 1.0, "remark.suspicious.same": 1.0}]


@pytest.mark.parametrize(
    ("n", "kinds", "is_refused"),
    [(1025, ("secureboost",), True), (1024, ("secureboost",), False), (1025, ("split_nn",), False)],
)
def test_categories_beyond_what_a_step_takes_are_refused(
    tmp_path: Path, n: int, kinds: tuple[str, ...], is_refused: bool
) -> None:
    write(tmp_path / "people", 1, 5000, 500, zip=[f"{number % n}" for number in range(5000)])
    context: Any = Context(dataset(tmp_path / "people", zip=FeatureType.CATEGORICAL), kinds=kinds)
    if not is_refused:
        inspection.inspect(context, list_parts(context.dataset), f"file://{tmp_path}")
        return
    with pytest.raises(ColumnType, match="column `zip`: 1,025 categories, of which `secureboost` takes at most 1,024"):
        inspection.inspect(context, list_parts(context.dataset), f"file://{tmp_path}")


@pytest.mark.parametrize(
    ("n", "settings", "declared", "is_said"),
    [
        (1023, {}, FeatureType.CATEGORICAL, True),
        (1022, {}, FeatureType.CATEGORICAL, False),
        (1023, {"network": "own"}, FeatureType.CATEGORICAL, False),
        (1023, {}, Feature(FeatureType.CATEGORICAL, hash_buckets=500), False),
    ],
)
def test_values_that_the_network_cannot_list_are_said_with_the_remedy_before_anything_is_signed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    n: int,
    settings: dict[str, Any],
    declared: FeatureType | Feature,
    is_said: bool,
) -> None:
    write(tmp_path / "people", 1, 5 * n, 500, zip=[f"{number % n}" for number in range(5 * n)])
    context: Any = Context(
        dataset(tmp_path / "people", zip=declared), kinds=("psi", "split_nn"), settings=({}, settings)
    )
    with caplog.at_level(logging.WARNING):
        inspection.inspect(context, list_parts(context.dataset), f"file://{tmp_path}")
    assert context.reports == ([{"step": 3, "remark.suspicious.zip": 1.0}] if is_said else [])
    assert ("Declare `hash_buckets` of at most 1,023, or give it an embedding" in caplog.text) == is_said
    with pytest.raises(ColumnType, match="declare `hash_buckets` of at most 1,023, or give it an embedding"):
        check_places("zip", 1023 + 2)


def test_value_that_no_model_can_use_is_refused_where_rows_are_aligned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.arange(30_000, dtype=float)
    values[20_000] = np.inf
    write(tmp_path / "people", 1, 30_000, 30_000, x=values)
    context: Any = Context(dataset(tmp_path / "people"), kinds=("psi", "align"))
    parts = list_parts(context.dataset)
    with pytest.raises(ColumnType, match="infinite"):
        inspection.inspect(context, parts, f"file://{tmp_path}")
    context.config.kinds = ("psi",)
    inspection.inspect(context, parts, f"file://{tmp_path}")
    assert "infinite" in caplog.text
    assert "no model can be trained with these rows" in caplog.text
