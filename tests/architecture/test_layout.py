"""The tests are a map: a unit test lies where the module lies that it is about, and helpers lie in tests/support."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"
FILES = sorted((ROOT / "tests").rglob("*.py"))
OF_MORE_THAN_A_MODULE = {
    "airflow/test_provider.py": "the package as Airflow finds it",
    "cli/test_doctor.py": "the command together with fedtasks/doctor, in folders that commands have made",
    "cli/test_help.py": "what all commands have in common",
    "models/secureboost/test_data.py": "both halves, on data of the world",
    "models/secureboost/test_protocol.py": "both halves, one of which lies",
    "models/split_nn/test_gallery.py": "the networks of docs/gallery, from training to scores outside",
    "models/split_nn/test_gallery_protected.py": "networks of docs/gallery under the default protection, both halves",
    "models/split_nn/test_leakage_training.py": "the meter and both halves that train",
    "models/split_nn/test_own_network.py": "model files of the parties' own, from training to predictions",
    "models/split_nn/test_steps.py": "one step of either half",
    "reports/test_sentences.py": "every error of the registry, in the words of both sides",
    "support/test_join_logs.py": "the oracles of the streaming join, which belong to the tests",
    "support/test_proxy.py": "the wire of the benchmarks, which belongs to the tests",
}


def test_unit_test_lies_where_its_module_lies() -> None:
    astray = {
        str(path.relative_to(UNIT))
        for path in UNIT.rglob("test_*.py")
        if not any(module.exists() for module in places(path.relative_to(UNIT)))
    }
    assert astray == set(OF_MORE_THAN_A_MODULE)


def places(test: Path) -> tuple[Path, Path]:
    """Return where the module or package is that a unit test is about."""
    subject = ROOT / "fedtasks" / test.parent / test.stem.removeprefix("test_")
    return subject.with_suffix(".py"), subject


def imported(path: Path) -> Iterator[str]:
    """Return the modules that a file imports, but those that only its annotations need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in of_annotations:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_a_test(module: str) -> bool:
    last = module.rpartition(".")[2]
    return (
        module.startswith("tests.")
        and (ROOT / f"{module.replace('.', '/')}.py").exists()
        and (last == "conftest" or last.startswith("test_"))
    )


def test_nothing_is_imported_from_a_test_module() -> None:
    found = {
        str(path.relative_to(ROOT)): modules
        for path in FILES
        if (modules := sorted(module for module in imported(path) if is_a_test(module)))
    }
    assert found == {}


def test_support_holds_no_tests() -> None:
    assert not [path for path in (ROOT / "tests" / "support").rglob("*.py") if path.stem.startswith("test_")]
