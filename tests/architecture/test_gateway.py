"""The gateway keeps its shape: few arguments, one clock, and errors that become statuses in one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

GATEWAY = Path(__file__).resolve().parents[2] / "fedtasks" / "gateway"
MOST_ARGUMENTS = 5


def modules_with(pattern: str) -> set[str]:
    return {path.name for path in GATEWAY.glob("*.py") if re.search(pattern, path.read_text(encoding="utf-8"))}


def constructors() -> Iterator[tuple[str, int]]:
    """Yield each class of the gateway that has a constructor of its own, and how many arguments that takes."""
    for path in GATEWAY.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        yield node.name, len(method.args.args) - 1 + len(method.args.kwonlyargs)


def test_constructors_take_few_arguments() -> None:
    found = dict(constructors())
    assert {"WorkerService", "PeerService", "Admission", "Reconciler", "Runs"} <= found.keys()
    assert {name: count for name, count in found.items() if count > MOST_ARGUMENTS} == {}


def test_calls_are_aborted_by_the_interceptor_alone() -> None:
    assert modules_with(r"\babort\(") == {"interceptors.py"}


def test_time_comes_from_one_clock() -> None:
    assert modules_with(r"clock: Clock\b") >= {"base.py", "server.py"}
    assert modules_with(r"clock: Callable|time\.time|time_ns|datetime\.now") == set()
