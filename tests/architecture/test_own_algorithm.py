"""An algorithm is one folder: one that fedtasks has never heard of is installed, and everything knows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / "column_means"

METADATA = "Metadata-Version: 2.1\nName: column-means\nVersion: 1.0\n"
ENTRY_POINTS = "[fedtasks.algorithms]\ncolumn_means = column_means\n"

RUN = """
import json, sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import LABEL, TAG, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json
from fedtasks.dataclass_io import to_plain
from fedtasks.pipeline.catalogue import evaluate, predict, publish, train
from fedtasks.reports.ledger import ledger
from fedtasks.runtime.function import entry_at
from fedtasks.runtime.memory import MemoryModels
from fedtasks.store import DisclosureRow
from tests.support.halves import ROLES, RUN, Context, run_both

root = Path(sys.argv[1])
rng = np.random.default_rng(0)
tags = [rng.bytes(16) for _ in range(200)]
x, y = rng.normal(3, 1, 200), rng.normal(-2, 1, 200)
labels = (x + y + rng.normal(0, 0.5, 200) > 1).astype(np.int8)
for role, columns in (("leader", {"x": x, LABEL: labels}), ("follower", {"y": y})):
    features = {name: FeatureType.NUMERIC for name in columns if name != LABEL}
    table = pa.table({TAG: pa.array(tags, pa.binary(16)), **{name: pa.array(each) for name, each in columns.items()}})
    storage = RunStorage(f"file://{root}/{role}", RUN)
    write_blocks(storage, 1, table, features, label=LabelKind.BINARY, rows_per_block=100, test_fraction=0.25)
models = {role: MemoryModels() for role in ROLES}
steps = [train("column_means"), evaluate(), predict(), publish(model="means")]
outcomes, sent = {}, []
for step in steps:
    halves = [Context(root, role, step.name, settings=step.settings, models=models[role]) for role in ROLES]
    ends = run_both(entry_at(step.entry), *halves)
    assert ends[0] == ends[1], (step.name, ends)
    outcomes[step.name] = to_plain(ends[0])
    for name, found in halves[1].sent.items():
        sent.append(DisclosureRow("run", step.name, 1, name, found.messages, found.items, found.bytes))
scores = read_json(RunStorage(f"file://{root}/leader", RUN).published("evaluate").path("scores.json"))
entries = {entry.name: [entry.what, entry.learns] for entry in ledger(sent, 0)}
print(json.dumps({"outcomes": outcomes, "auc": scores["auc"], "ledger": entries}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the toy into a folder of its own; return the environment of processes that see it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(TOY, folder / "column_means", ignore=shutil.ignore_patterns("__pycache__"))
    facts = folder / "column_means-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(METADATA)
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def run(environment: dict[str, str], *argv: str) -> str:
    done = subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ended(installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How a run of it ended: trained, evaluated, predicted and published on both sides."""
    found: dict[str, Any] = json.loads(run(installed, "-c", RUN, str(tmp_path_factory.mktemp("run"))).splitlines()[-1])
    return found


def test_own_algorithm_trains_evaluates_predicts_and_publishes(ended: dict[str, Any]) -> None:
    outcomes = ended["outcomes"]
    assert outcomes["train"]["counts"]["columns"] == 2
    assert outcomes["predict"]["counts"] == {"rows": 200}
    assert outcomes["publish"]["values"] == {"published": True, "model": "means", "version": 1}
    assert ended["auc"] > 0.9


def test_own_algorithms_messages_stand_in_the_ledger(ended: dict[str, Any]) -> None:
    assert ended["ledger"]["column means"] == ["means of columns", "the mean of each numeric column, without its name"]
    assert ended["ledger"]["distances"][0] == "distances from the means"


def test_own_algorithms_clause_is_an_option_of_ticket_issue(installed: dict[str, str]) -> None:
    text = run({**installed, "COLUMNS": "200"}, "-m", "fedtasks.cli", "ticket", "issue", "--help")
    assert "--mean-rows" in text
    assert "Floor: fewest rows that a mean may be of" in text


def test_own_algorithms_clause_bounds_its_setting(installed: dict[str, str]) -> None:
    program = """
from fedtasks.tickets import asked_by, check_settings

try:
    check_settings({"floor.mean_rows": 50}, asked_by("train", "column_means", {}))
except Exception as error:
    print(type(error).__name__, error.fields["clause"])
"""
    assert run(installed, "-c", program).split() == ["FloorViolated", "floor.mean_rows"]


def test_without_it_a_pipeline_says_what_is_installed() -> None:
    program = "from fedtasks.pipeline.catalogue import train\ntrain('column_means')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "`column_means` is none of: " in done.stderr
