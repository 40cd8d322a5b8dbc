"""The layers of docs/architecture.md hold, and every module has its place in them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
FORBIDDEN = [contract for contract in CONTRACTS if contract["type"] == "forbidden"]
OWNERS = {
    "grpc": {"gateway", "link", "wire", "testing"},
    "tensorflow": {"models"},
    "gmpy2": {"crypto"},
    "sqlalchemy": {"store", "testing"},
    "airflow": {"airflow"},
    "duckdb": {"engines"},
    "pyspark": {"encrypted", "engines"},
}


def top_level_modules() -> set[str]:
    found = (ROOT / "fedtasks").iterdir()
    return {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}


def test_imports_follow_the_layers() -> None:
    run = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_forbidden_contracts_cover_every_heavy_library() -> None:
    assert {contract["forbidden_modules"][0] for contract in FORBIDDEN} == set(OWNERS)


@pytest.mark.parametrize("contract", FORBIDDEN, ids=lambda contract: contract["name"])
def test_heavy_library_is_forbidden_to_all_but_its_owners(contract: dict[str, list[str]]) -> None:
    named = {module.removeprefix("fedtasks.") for module in contract["source_modules"]}
    assert top_level_modules() - named == OWNERS[contract["forbidden_modules"][0]] & top_level_modules()


@pytest.mark.parametrize("library", ["tensorflow", "duckdb", "pyspark", "grpc", "sqlalchemy", "airflow", "pyarrow"])
def test_command_line_help_loads_no_heavy_library(library: str) -> None:
    program = f"import sys, fedtasks.cli; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


WITHOUT_DATA = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "numpy duckdb pyarrow pandas fsspec gmpy2 phe rbcl tensorflow pyspark".split():
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import fedtasks.cli
import fedtasks.gateway.server
from fedtasks import registry
from fedtasks.models.contract import algorithms
from fedtasks.reports.ledger import meaning

print(len(registry.declared("CLAUSES")) > 10, len(registry.declared("KINDS")) > 5, len(algorithms()) > 1)
print(meaning("gradient"))
"""


def test_host_of_a_gateway_knows_all_declarations_without_libraries_for_rows() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_DATA], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True True True")
    assert "gradients" in done.stdout
