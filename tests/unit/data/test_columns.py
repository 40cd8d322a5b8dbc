from __future__ import annotations

import pyarrow as pa
import pytest

from fedtasks.data.columns import spelled


@pytest.mark.parametrize(
    ("values", "texts", "expected"),
    [
        (("false", "true"), ["1", "0", "x", None], ["true", "false", "x", None]),
        (("False", "True"), ["1", "0"], ["True", "False"]),
        (("1.0", "2.0", "rent"), ["1", "2", "rent", "3"], ["1.0", "2.0", "rent", "3"]),
        (("0", "1", "true"), ["1", "0"], ["1", "0"]),
        ((), ["1"], ["1"]),
    ],
)
def test_texts_are_spelled_as_a_model_of_an_earlier_release_has_learnt_them(
    values: tuple[str, ...], texts: list[str | None], expected: list[str | None]
) -> None:
    assert spelled(pa.array(texts), values).to_pylist() == expected
