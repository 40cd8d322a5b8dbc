"""The front door: what can be taken from `fedtasks` itself, and what that costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedtasks

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("airflow", "duckdb", "grpc", "numpy", "pyarrow", "pyspark", "sqlalchemy", "tensorflow", "yaml")


def test_public_names_are_sorted_and_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "developing" / "tour.md").read_text(encoding="utf-8")
    table = page.partition("<!-- public names -->")[2].partition("<!-- end of public names -->")[0]
    assert fedtasks.__all__ == sorted(fedtasks.__all__) == sorted(fedtasks._HOMES)
    assert sorted(re.findall(r"`(\w+)`", table)) == fedtasks.__all__


@pytest.mark.parametrize("name", fedtasks.__all__)
def test_public_name_resolves_and_is_documented(name: str) -> None:
    assert getattr(fedtasks, name).__doc__.strip()
    assert name in dir(fedtasks)


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = f"import sys, fedtasks; sys.exit(', '.join(sorted(set({HEAVY}) & set(sys.modules))) or 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = fedtasks.Trainer
