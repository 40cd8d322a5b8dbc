"""docs/your-own-dag.md and docs/secureboost.md: snippets are files that run, commands work in their order."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fedtasks.authoring.pytest_plugin import RunBoth
from fedtasks.config import LabelKind
from fedtasks.dataclass_io import to_plain
from fedtasks.models.secureboost.settings import TrainSettings
from tests.support.command_line import invoke
from tests.support.dag_files import load
from tests.unit.models.secureboost.boosting import Problem, train_both

ROOT = Path(__file__).parents[2]
PAGES = [
    (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("your-own-dag.md", "secureboost.md", "split-network.md")
]
GUIDE = PAGES[0]
SNIPPETS = ROOT / "docs" / "snippets"
SCORER = SNIPPETS / "score_outside.py"
DAGS = sorted(path for path in SNIPPETS.glob("*.py") if not path.name.startswith(("test_", "score_")))


def test_guides_show_every_snippet_as_it_is() -> None:
    shown = dict(re.findall(r"<!-- (docs/snippets/\w+\.py) -->\n```python\n(.*?)```", "".join(PAGES), re.DOTALL))
    assert shown == {f"docs/snippets/{path.name}": path.read_text(encoding="utf-8") for path in SNIPPETS.glob("*.py")}


def test_commands_of_the_guide_work_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_parsing: None
) -> None:
    (block,) = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    *lines, last = (line.removeprefix("$ ").split() for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDTASKS_PARTY", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    for program, *arguments in lines:
        assert program == "fedtasks"
        done = invoke(*arguments)
        assert done.exit_code == 0, f"{arguments}\n{done.output}"
    argv = [str(Path(sys.executable).with_name(last[0])), *last[1:]]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


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
    assert dag.get_task("psi").upstream_task_ids == {"open_run", "approve", "refresh"}
    assert dag.get_task("align").downstream_task_ids == {"close_run", "report"}
    assert (dag.get_task("psi").retries, dag.get_task("psi").retry_delay) == (2, timedelta(seconds=5))
    assert dag.get_task("refresh").retries == 0


def test_function_of_ones_own_is_short() -> None:
    text = (SNIPPETS / "column_means.py").read_text(encoding="utf-8")
    function = text[text.index("@fed.task") :].partition("\n\n\n")[0]
    assert len(function.splitlines()) <= 15


def test_snippet_of_a_test_passes(run_both: RunBoth, quick_parsing: None) -> None:
    snippet = runpy.run_path(str(SNIPPETS / "test_column_means.py"))
    snippet["test_both_sides_learn_both_means"](run_both)


def people(seed: int, texts: list[str | None]) -> pa.Table:
    """Features of 200 people, some without a value."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=200)
    missing = rng.random(200) < 0.1
    return pa.table(
        {
            "number": pa.array(numbers, mask=missing),
            "text": pa.array(rng.choice(texts, 200), pa.string()),
            f"own{seed}": pa.array(rng.normal(size=200)),
        }
    )


def nodes_of(half: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for tree in half["trees"] for node in tree["nodes"]]


@pytest.mark.parametrize("kind", LabelKind, ids=lambda kind: kind.value)
def test_scorer_of_the_guide_scores_as_both_halves_do(kind: LabelKind, tmp_path: Path) -> None:
    raw_scores = runpy.run_path(str(SCORER))["raw_scores"]
    leader, follower = people(1, ["a", "b", "c", None]), people(2, ["x", "y", None])
    rng = np.random.default_rng(3)
    sums = pc.add(pc.fill_null(leader["number"], -1.0), pc.fill_null(follower["number"], 1.0)).to_numpy()
    found = sums + np.array([text == "x" for text in follower["text"].to_pylist()]) + rng.normal(size=200) / 4
    labels = found if kind is LabelKind.NUMBER else np.digitize(found, [0.0, 1.0][: 1 + (kind is LabelKind.CLASSES)])
    problem = Problem(leader, follower, labels, np.ones(200), kind, 3 if kind is LabelKind.CLASSES else 0)
    trained = train_both(problem, TrainSettings(trees=4, depth=3, min_leaf_rows=3), tmp_path)
    halves = [json.loads(json.dumps(to_plain(half))) for half in (trained.leader, trained.follower)]
    assert {split["condition"]["feature"] for split in halves[1]["splits"]} >= {"number", "text"}
    assert "number" in {node["condition"]["feature"] for node in nodes_of(halves[0]) if node["condition"]}
    rows = zip(leader.to_pylist(), follower.to_pylist(), strict=True)  # columns of equal names, of other values
    assert [raw_scores(*halves, *row) for row in rows] == trained.raw(problem).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "conf"),
    [
        (SNIPPETS / "credit_model.py", {"train.epochs": 2}),
        (SNIPPETS / "credit_trees.py", {"train.trees": 2}),
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
        counts = ended["bank"]["train"]["counts"]
        assert counts.get("epochs", counts.get("trees")) == 2
