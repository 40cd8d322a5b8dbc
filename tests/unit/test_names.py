from __future__ import annotations

import pytest

from fedtasks.names import airflow_task, half_name, half_of, parts_of, pipeline_name, pipeline_of


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
    assert airflow_task("nightly", name) == task
    task_id, index = task
    assert airflow_task("nightly.trees", name) == (f"trees.{task_id}", index)


@pytest.mark.parametrize(("dag_id", "run"), [("nightly", ""), ("nightly", "trees"), ("a-b_1", "c-d_2")])
def test_pipeline_is_dag_and_run_and_stands_in_the_id_of_a_run(dag_id: str, run: str) -> None:
    pipeline = pipeline_name(dag_id, run)
    assert parts_of(pipeline) == (dag_id, run)
    assert pipeline_of(f"{pipeline}.2026-11-21.bank.12") == pipeline


@pytest.mark.parametrize(
    ("task_id", "found"),
    [
        ("train", ("", "train")),
        ("psi.match", ("", "psi.match")),
        ("trees.train", ("trees", "train")),
        ("trees.psi.match", ("trees", "psi.match")),
        ("trees", ("", "trees")),
    ],
)
def test_task_is_found_in_its_run(task_id: str, found: tuple[str, str]) -> None:
    assert half_of(task_id, ["", "trees"]) == found
