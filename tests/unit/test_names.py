from __future__ import annotations

import pytest

from fedtasks.names import airflow_task, half_name


@pytest.mark.parametrize(
    ("parts", "name", "task"),
    [
        (("psi",), "psi", ("psi", None)),
        (("psi", "prepare"), "psi.prepare", ("psi.prepare", None)),
        (("psi", "send", 0), "psi.send[0]", ("psi.send", 0)),
        (("psi", "send", 9999), "psi.send[9999]", ("psi.send", 9999)),
    ],
)
def test_half_name_names_its_task_in_airflow(parts: tuple, name: str, task: tuple[str, int | None]) -> None:
    assert half_name(*parts) == name
    assert airflow_task(name) == task
