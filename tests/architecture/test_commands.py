"""Every command that help, documents, pages and errors name is one that the command line takes."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer import _click as click  # typer keeps its parser and its usage errors here

from fedtasks.cli import app

ROOT = Path(__file__).resolve().parents[2]
FEDTASKS: Any = typer.main.get_command(app)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = sorted([*ROOT.glob("fedtasks/**/*.py"), *ROOT.glob("fedtasks/airflow/pages/static/*.js")])
SHELL = {"|", "||", "&&", ">", ">>", "<", ";"}
NEW_DAG = "dags/my_pipeline.py"
"""The file that the example of `fedtasks dag new` writes."""

QUOTED = re.compile(r"`fedtasks\s+([^`]+)`")
PROMPTED = re.compile(r"^\s*(?:\w*\$\s+)?(?:\w+ .*\| )?fedtasks ((?:.*\\\n)*.*)$", re.MULTILINE)
COMMAND = re.compile(r"^\s*(?:\$ )?fedtasks (.*)$", re.MULTILINE)
STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
FILLED_IN = "X"
ENTRY = re.compile(r"[a-z_]\w*(?:\.\w+)+:[a-z_]\w*")


def split(line: str) -> list[str]:
    """Return the words of a command, up to what a shell makes of it afterwards."""
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True)
    lexer.whitespace_split = True
    words = list(lexer)
    end = next((place for place, word in enumerate(words) if word in SHELL), len(words))
    return words[:end]


@cache
def child(command: Any, name: str) -> Any:
    """Return a command of a group, None if there is none; the groups themselves make theirs anew each time."""
    return getattr(command, "commands", {}).get(name)


def find(words: list[str]) -> tuple[str, Any, list[str]]:
    """Return the command that words begin with, by its name, and the words after it."""
    command, path = FEDTASKS, ["fedtasks"]
    while words and (found := child(command, words[0])) is not None:
        command, path, words = found, [*path, words[0]], words[1:]
    return " ".join(path), command, words


def fault_of(line: str, *, whole: bool = False) -> str | None:
    """Say why the command line does not take a line, None if it does.

    A line that only names a command, or that leaves something out as ``…``, need not have all that is required,
    unless it claims to be `whole`.
    """
    try:
        words = split(line)
        name, command, rest = find(words)
        if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            return f"`{name}` has no command `{rest[0]}`"
        whole = whole or (bool(rest) and not any("…" in word for word in rest))
        if whole and command is not FEDTASKS:  # whose options act as soon as they are parsed
            command.make_context(name, list(rest))
        else:
            command.make_parser(click.Context(command)).parse_args(list(rest))
    except (click.exceptions.UsageError, ValueError) as error:
        return f"`fedtasks {line}`: {error}"
    return None


def faults(lines: Iterator[tuple[str, bool]]) -> list[str]:
    found = (fault_of(line, whole=whole) for line, whole in lines)
    return [fault for fault in found if fault is not None]


# ------------------------------------------------------------------------------------------------------------ the help
def examples() -> Iterator[tuple[str, str]]:
    """Return every example of a `--help`, with the name of its command."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, str]]:
        for line in re.findall(r"^\$ fedtasks (.*)$", command.epilog or "", re.MULTILINE):
            yield path, line
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}".strip())

    yield from walk(FEDTASKS, "")


@pytest.mark.parametrize(("name", "line"), [pytest.param(*found, id=found[1]) for found in examples()])
def test_example_of_a_help_is_a_whole_command_whose_modules_and_files_are_there(name: str, line: str) -> None:
    assert fault_of(line, whole=True) is None
    assert not name or find(split(line))[0] == f"fedtasks {name}"
    for word in split(line):
        if ENTRY.fullmatch(word):
            module, _, function = word.partition(":")
            assert callable(getattr(importlib.import_module(module), function, None)), f"{word} cannot be imported"
        if word.startswith("dags/"):
            assert word == NEW_DAG or (ROOT / word).is_file(), f"{word} is not there"


# ------------------------------------------------------------------------------------------------- documents and texts
def commands_of(page: Path) -> Iterator[tuple[str, bool]]:
    """Return the commands that a document shows: in its blocks of code whole ones, within its sentences also names."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```.*?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        for line in PROMPTED.findall(block):
            for one in line.split("&& fedtasks "):
                yield one, "…" not in one
    prose = re.sub(r"^ *```.*?\n.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from ((" ".join(line.split()), False) for line in QUOTED.findall(prose))
    for line in re.findall(r"`\w+\$ fedtasks ([^`]+)`", prose):
        yield line, True


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_in_a_document_parses(page: Path) -> None:
    assert faults(commands_of(page)) == []


def texts_of(source: Path) -> Iterator[str]:
    """Return the texts in a source that somebody may read: strings, with `FILLED_IN` in its places; no docstrings."""
    code = source.read_text(encoding="utf-8")
    if source.suffix == ".js":
        yield from STRING.findall(code)
        return
    nodes = list(ast.walk(ast.parse(code)))
    silent = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in node.values}
            parts = (str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.value


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT / "fedtasks")))
def test_command_in_a_text_for_people_is_quoted_and_parses(source: Path) -> None:
    for text in texts_of(source):
        quoted = QUOTED.findall(text) + COMMAND.findall(text)
        assert faults((line, False) for line in quoted if not line.startswith(FILLED_IN)) == []
        plain = re.sub(r"`[^`]*`", "", COMMAND.sub("", text))
        named = [word for word in re.findall(r"\bfedtasks ([a-z]+)\b", plain) if word in FEDTASKS.commands]
        assert named == [], f"put the command into backticks, so that it can be checked: {text}"


def test_commands_that_do_not_exist_are_found() -> None:
    assert fault_of("data landed") == "`fedtasks data` has no command `landed`"
    assert "No such option" in str(fault_of("ticket issue … --treees 4"))
    assert "Missing" in str(fault_of("ticket accept", whole=True))
    assert fault_of("ticket accept") is None
    assert "unexpected extra argument" in str(fault_of("peer list now", whole=True))
