"""Files as companies have them give the same rows in every format, or an error that says where and what to do."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fedtasks.config import MISSING_WORDS, Dataset, Format
from fedtasks.data.tables import ID, LABEL, WEIGHT, list_parts, read_ids, read_rows
from fedtasks.dataclass_io import build, parse_yaml
from fedtasks.errors import FedtasksError
from tests.acceptance.matrix import Case, Gives, Refused, cases

CASES = cases()
PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
OWN = {"label": LABEL, "weight": WEIGHT}


def place(case: Case, folder: Path) -> Dataset:
    """Write a case's files and declare them."""
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
    return Dataset(**({"name": "people", "uri": f"file://{folder}/{case.uri}", "id": "id"} | dict(case.declared)))


def partitions_of(dataset: Dataset) -> list[str]:
    if not dataset.is_partitioned:
        return []
    folder, prefix = dataset.partition_place
    return sorted(path.name.removeprefix(prefix) for path in Path(folder.removeprefix("file://")).iterdir())


def read(dataset: Dataset) -> tuple[list[str | None], list[dict[str, Any]]]:
    """Return the ids as intersection reads them, and the rows as alignment does."""
    parts = list_parts(dataset, partitions_of(dataset))
    found = [row for part in parts for batch in read_ids(dataset, part) for row in batch.to_pylist()]
    rows = [row for part in parts for batch in read_rows(dataset, part) for row in batch.to_pylist()]
    for index in {row["file"] for row in found}:
        numbers = [row["row"] for row in found if row["file"] == index]
        assert numbers == list(range(1, len(numbers) + 1))
    assert [row[ID] for row in rows] == [row["id"] for row in found]
    return [row["id"] for row in found], rows


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_input_gives_its_rows_or_says_what_is_wrong_and_where(case: Case, tmp_path: Path) -> None:
    dataset = place(case, tmp_path)
    if isinstance(case.expected, Gives):
        ids, rows = read(dataset)
        assert ids == list(case.expected.ids)
        for name, values in case.expected.columns.items():
            column = name if name in dataset.features else OWN[name]
            assert [row[column] for row in rows] == list(values)
        return
    with pytest.raises(FedtasksError) as caught:
        read(dataset)
    error, expected = caught.value, case.expected
    assert isinstance(expected, Refused)
    uri = f"{dataset.uri}{expected.file}"
    assert (error.code, error.where) == (expected.code, f"row {expected.row} of {uri}" if expected.row else uri)
    assert expected.said in error.detail
    assert error.remedy
    assert not error.retryable
    assert error.__cause__ is None
    assert "secret" not in str(error)


def test_page_tells_the_words_that_mean_no_value_and_its_example_is_one() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("`NULL` ")]
    assert re.findall(r"`([^`]+)`", line) == list(MISSING_WORDS)
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    plain, lines = parse_yaml(example, "docs/data.md")
    dataset = build(Dataset, plain["datasets"][0], lines)
    assert dataset.partition_place == ("warehouse/customers", "day=")
    assert dataset.column_of("weekday opened") == "opened"


def test_matrix_is_large_and_names_each_case_once() -> None:
    names = Counter(case.name for case in CASES)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 120
    assert {case.declared["format"].value for case in CASES} == {each.value for each in Format}
