"""Which partition a DAG run is about."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks.airflow.schedules import partition_of


@pytest.mark.parametrize(
    ("key", "param", "expected"),
    [("2026-11-01", "other", "2026-11-01"), (None, "other", "other"), (None, "", "2026-11-21")],
)
def test_partition_key_before_form_before_day(
    context: dict[str, Any], key: str | None, param: str, expected: str
) -> None:
    context["dag_run"].partition_key = key
    context["params"]["partition"] = param
    assert partition_of(context) == expected
