"""docs/your-own-dag.md: its snippets are files, its commands work in its order, from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from fedtasks.authoring.pytest_plugin import RunBoth
from tests.dags.test_dags import load

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "your-own-dag.md").read_text(encoding="utf-8")
SNIPPETS = ROOT / "docs" / "snippets"
DAGS = sorted(path for path in SNIPPETS.glob("*.py") if not path.name.startswith("test_"))


def test_guide_shows_every_snippet_as_it_is() -> None:
    shown = dict(re.findall(r"<!-- (docs/snippets/\w+\.py) -->\n```python\n(.*?)```", GUIDE, re.DOTALL))
    assert shown == {f"docs/snippets/{path.name}": path.read_text(encoding="utf-8") for path in SNIPPETS.glob("*.py")}


def test_commands_of_the_guide_work_from_an_empty_folder(tmp_path: Path) -> None:
    (block,) = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    here = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "PYTEST_ADDOPTS": ""}
    environment.pop("FEDTASKS_PARTY", None)
    for line in block.splitlines():
        argv = line.removeprefix("$ ").split()
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_snippet_parses_and_takes_a_partition(path: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    (dag,) = load(path).values()
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    stored.validate_partition_key("2026-11-21")
    stored.params.validate()
    assert dag.dag_id == path.stem


def test_run_inside_a_dag_stands_between_its_own_tasks_and_is_tried_again() -> None:
    (dag,) = load(SNIPPETS / "shared_people.py").values()
    assert dag.get_task("psi").upstream_task_ids == {"approve", "refresh"}
    assert dag.get_task("align").downstream_task_ids == {"close_run", "report"}
    assert (dag.get_task("psi").retries, dag.get_task("psi").retry_delay) == (2, timedelta(seconds=5))
    assert dag.get_task("refresh").retries == 0


def test_function_of_ones_own_is_short() -> None:
    text = (SNIPPETS / "column_means.py").read_text(encoding="utf-8")
    function = text[text.index("@fed.task") :].partition("\n\n\n")[0]
    assert len(function.splitlines()) <= 15


def test_snippet_of_a_test_passes(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    argv += [f"--rootdir={SNIPPETS}", str(SNIPPETS / "test_column_means.py")]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "conf"),
    [
        (SNIPPETS / "credit_model.py", {"train.epochs": 2}),
        (ROOT / "dags" / "offline_psi.py", {"psi.shards": 2}),
        (ROOT / "dags" / "train_split_nn.py", {"train.epochs": 2}),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_both_halves_of_a_whole_pipeline_run_on_sample_data(
    run_both: RunBoth, path: Path, conf: dict[str, int]
) -> None:
    ended = run_both(path, conf=conf)
    assert ended["bank"] == ended["shop"]
    assert ended["bank"]["psi"]["counts"]["people_shared"] == 300
    if "train" in ended["bank"]:
        assert ended["bank"]["train"]["counts"]["epochs"] == 2
