"""The threat model says only what a test shows: every test that its table of attacks names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ROW = re.compile(r"^\| \d+ \|(?P<attack>[^|]+)\|(?P<tests>[^|]+)\|(?P<remains>[^|]+)\|$")
_TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>\w+)`")


def rows() -> list[re.Match[str]]:
    """Return the rows of the table of attacks."""
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    table = text.partition("## Attacks that were made\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if re.match(r"\| \d", line)]
    found = [_ROW.match(line) for line in lines]
    assert None not in found, [line for line, row in zip(lines, found, strict=True) if row is None]
    return [row for row in found if row]


def named_in(file: Path) -> set[str]:
    """Return the names of a file's test functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["attack"].strip()[:60])
def test_attack_has_a_test_and_says_what_remains(row: re.Match[str]) -> None:
    named = list(_TEST.finditer(row["tests"]))
    assert named
    assert _TEST.sub("", row["tests"]).strip(" ,") == ""
    missing = [test[0] for test in named if test["name"] not in named_in(ROOT / test["file"])]
    assert missing == []
    assert row["remains"].strip()


def test_table_has_every_attack() -> None:
    numbers = {int(row[0].split("|")[1]) for row in rows()}
    assert numbers == set(range(1, 20))
