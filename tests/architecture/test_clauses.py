"""Settings and clauses belong together: what decides privacy can be bounded, and what can be bounded is looked at."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks import tickets
from fedtasks.dataclass_io import choices_of, clause_of, decides_privacy
from fedtasks.kinds import kinds
from fedtasks.models.contract import algorithms
from fedtasks.tickets import Group, Per
from fedtasks.tickets.clauses import clauses

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [(kind, each) for kind in kinds().values() for each in dataclasses.fields(kind.settings)]
BOUNDED = {clause_of(each) for _, each in SETTINGS} - {""}
UNAWARE = ("airflow", "cli", "gateway", "reports", "tickets")


def ids(found: Any) -> str:
    return getattr(found, "name", "")


@pytest.mark.parametrize(("kind", "setting"), SETTINGS, ids=ids)
def test_setting_that_decides_privacy_has_a_clause_that_exists(kind: Any, setting: Any) -> None:
    assert clause_of(setting) or not decides_privacy(setting), f"no ticket can bound {kind.name}.{setting.name}"
    assert clause_of(setting) in {"", *clauses()}


@pytest.mark.parametrize("clause", clauses().values(), ids=ids)
def test_clause_bounds_a_setting_or_counts_a_use_or_says_what_else_keeps_to_it(clause: Any) -> None:
    assert [clause.name in BOUNDED, bool(clause.counts), bool(clause.kept_by)].count(True) == 1


@pytest.mark.parametrize(("kind", "setting"), [each for each in SETTINGS if clause_of(each[1])], ids=ids)
def test_clause_and_setting_have_the_same_choices_and_the_default_can_be_compared(kind: Any, setting: Any) -> None:
    clause = clauses()[clause_of(setting)]
    assert set(choices_of(setting)) <= set(clause.choices)
    (asked,) = (
        each for each in tickets.asked_by("step", kind.name, _required(kind.settings)) if each.setting == setting.name
    )
    assert (asked.value in clause.choices) if clause.choices else type(asked.value) is int


def _required(settings: type) -> dict[str, Any]:
    """Return what has to be named for settings to be valid at all."""
    return {"model": "credit"} if settings.__name__ == "PublishSettings" else {}


@pytest.mark.parametrize("clause", [clause for clause in clauses().values() if clause.counts], ids=ids)
def test_clause_that_counts_is_called_as_the_store_names_it_in_a_refusal(clause: Any) -> None:
    names = {
        Per.LIFE: f"limits.{clause.counts}",
        Per.DAY: f"limits.{clause.counts}_per_day",
        Per.NOW: f"limits.concurrent_{clause.counts}",
    }
    assert clause.name == names[clause.per]
    assert clause.group is Group.LIMIT


def test_no_two_clauses_have_the_same_option() -> None:
    options = [clause.option for clause in clauses().values() if clause.option]
    assert len(options) == len(set(options))


def test_facade_of_tickets_names_what_there_is() -> None:
    functions = [name for name in tickets.__all__ if name[0].islower()]
    assert [getattr(tickets, name).__name__ for name in functions] == functions
    assert len(tickets.__all__) == len(set(tickets.__all__))
    with pytest.raises(AttributeError, match="nothing"):
        tickets.nothing  # noqa: B018


def _words(file: Path) -> Iterator[tuple[int, str]]:
    """Yield what a program names: variables, attributes, keywords, and texts but not sentences."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            options = re.findall(r"(?<!\S)--[a-z-]+", node.value)
            yield from ((line, word) for word in (node.value, *options))
        for name in ("id", "attr", "arg"):
            if isinstance(getattr(node, name, None), str):
                yield line, getattr(node, name)


@pytest.mark.parametrize("room", UNAWARE)
def test_room_names_no_algorithm_and_no_setting_or_clause_of_one(room: str) -> None:
    known = clauses()
    shared = {"floor.key_bits", "outputs.scores"}  # of several kinds
    of_algorithms = {clause_of(each) for made in algorithms().values() for each in dataclasses.fields(made.settings)}
    own = [known[name] for name in sorted(of_algorithms - shared - {""})]
    forbidden = {*algorithms(), *(name for each in own for name in (each.name, each.field, each.option))}
    assert {"limits.trees", "trees", "--trees", "secureboost", "epochs"} < forbidden
    found = [
        f"{file.relative_to(ROOT)}:{line}: {word}"
        for file in sorted((ROOT / "fedtasks" / room).rglob("*.py"))
        for line, word in _words(file)
        if word in forbidden
    ]
    assert found == []
