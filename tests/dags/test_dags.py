"""Every DAG file: a short declaration that parses fast, without heavy libraries, on both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedtasks.setup.party import found
from tests.support.dag_files import load

DAGS = Path(__file__).parents[2] / "dags"
FILES = sorted(DAGS.glob("*.py"))
LOCAL = ("fedtasks_gc",)
"""What one party does alone, so that no gateway ever triggers it."""
HEAVY = ("tensorflow", "keras", "pyspark", "duckdb", "grpc", "pyarrow", "numpy", "fsspec", "gmpy2")

PROBE = """
import json, os, runpy, sys, time
# What a process that parses DAG files has imported already.
import airflow.dag_processing.processor
from airflow.sdk import DAG, BaseHook, BaseOperator, Param, PartitionedAtRuntime
from airflow.sdk.bases import operator
from airflow.triggers import base
*files, heavy = sys.argv[1:]
for file in files:
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        continue
    before, began = set(sys.modules), time.process_time()
    runpy.run_path(file)
    took = time.process_time() - began
    found = [name for name in heavy.split() if name in set(sys.modules) - before]
    print(json.dumps({"file": file, "took_s": took, "heavy": found}), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict[str, Any]]:
    """Return of each DAG file what parsing it took, in a process of its own that has nothing but Airflow."""
    argv = [sys.executable, "-c", PROBE, *map(str, FILES), " ".join(HEAVY)]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"file"')]
    return {line["file"]: line for line in lines}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dag_file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_dag_file_is_a_declaration(dag_file: Path) -> None:
    assert len(dag_file.read_text().splitlines()) <= 80


def test_dag_file_parses_fast_and_light(dag_file: Path, parsed: dict[str, dict[str, Any]]) -> None:
    found = parsed[str(dag_file)]
    assert found["heavy"] == []
    assert found["took_s"] < 1.0


def test_dag_file_without_party_file_has_no_import_errors(dag_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTASKS_PARTY", "/does/not/exist/party.yaml")
    assert list(load(dag_file)) == [dag_file.stem]


def test_dag_file_survives_serialisation_and_starts_by_either_way(dag_file: Path) -> None:
    """The scheduler and the REST API see the serialised DAG only."""
    from airflow.serialization.serialized_objects import DagSerialization

    (dag,) = load(dag_file).values()
    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert list(stored.task_dict) == list(dag.task_dict)
    if dag_file.stem in LOCAL:
        return
    # A person gives no key, a gateway does; the form's defaults are good enough to start, as for the responder.
    stored.validate_partition_key(None)
    stored.validate_partition_key("2026-11-21")
    stored.params.validate()


def test_gc_dag_removes_what_the_party_of_its_worker_keeps_no_longer(tmp_path: Path) -> None:
    (dag,) = load(DAGS / "fedtasks_gc.py").values()
    assert dag.is_paused_upon_creation
    found("bank", tmp_path / "bank", airflow_url="http://127.0.0.1:1", airflow_user="a", airflow_password_file="a")
    environment = os.environ | {"FEDTASKS_PARTY": str(tmp_path / "bank" / "party.yaml")}
    argv = ["bash", "-c", dag.get_task("gc").bash_command]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing is old enough."), done.stderr
