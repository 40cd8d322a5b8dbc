"""Words that do not belong into the project: unfinished work, other projects' vocabulary, banned module names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("fedtasks", "dags", "spark_jobs", "protos", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "wire/v1" not in str(path) and path != Path(__file__).resolve()
]
VAGUE = {"common", "util", "utils", "helper", "helpers", "manager", "managers", "impl", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
# The product must run anywhere: no path of one machine.
MACHINE_PATH = re.compile(r"""["'](/home/|/root/|/Users/)""")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE_PATH], ids=["unfinished", "machine path"])
def test_no_source_has_words_of_unfinished_work(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_modules_are_named_for_what_they_hold() -> None:
    vague = [name_of(path) for path in SOURCES if path.stem in VAGUE or re.search(r"_v\d+$", path.stem)]
    assert vague == []


def test_no_secret_is_tracked() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in files if name.endswith((".key", ".secret", ".password"))] == []


# "The own gateway" is no English: it is this party's, or the local one.
OWN = re.compile(r"\b[Tt]he\s+own\b")
TEXTS = sorted(
    path
    for folder, pattern in (("fedtasks", "*.py"), ("fedtasks", "*.js"), ("docs", "*.md"), ("protos", "*.proto"))
    for path in (ROOT / folder).rglob(pattern)
    if "wire/v1" not in str(path)
)


def test_what_belongs_to_this_party_is_called_so() -> None:
    found = [name_of(path) for path in [*TEXTS, ROOT / "README.md"] if OWN.search(path.read_text(encoding="utf-8"))]
    assert found == []
