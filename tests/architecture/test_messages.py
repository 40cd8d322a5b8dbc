"""A message is declared once, and sent and received through its declaration."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fedtasks.registry import declared
from tests.support.declared import assert_declared

ROOT = Path(__file__).resolve().parents[2]
CALLS = {"send", "receive", "send_file", "receive_file"}
# What carries messages, and what declares them.
ROOMS = ("fedtasks/link/", "fedtasks/exchange/")
SOURCES = [path for path in sorted(ROOT.glob("fedtasks/**/*.py")) if not str(path.relative_to(ROOT)).startswith(ROOMS)]


def names_of(tree: ast.AST) -> set[str]:
    """Return the variables that hold a text."""
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def sent_by_name(source: str) -> list[int]:
    """Return the lines that send or receive by a name instead of a declaration."""
    tree = ast.parse(source)
    texts = names_of(tree)
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
            continue
        called, first = node.func.value, node.args[0] if node.args else None
        on_link = (isinstance(called, ast.Name) and called.id.endswith("link")) or (
            isinstance(called, ast.Attribute) and called.attr.endswith("link")
        )
        is_text = (isinstance(first, ast.Constant) and isinstance(first.value, str)) or isinstance(first, ast.JoinedStr)
        if on_link or is_text or (isinstance(first, ast.Name) and first.id in texts):
            found.append(node.lineno)
    return found


def test_messages_of_the_product_are_sent_and_received_through_declarations() -> None:
    found = {str(path.relative_to(ROOT)): sent_by_name(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        'link.send("rows", rows)',
        "self._link.receive(name)",
        'peer.send_file(f"rows-{number}", path)',
        'ROWS = "rows"\npeer.receive(ROWS)',
    ],
)
def test_message_that_is_named_where_it_is_sent_is_found(source: str) -> None:
    assert sent_by_name(source)


def test_message_sent_through_its_declaration_is_not_found() -> None:
    assert not sent_by_name("ROWS.send(link, rows)\nmessages.ROWS.numbered(number).receive(self._link, 3)")


def test_every_name_belongs_to_one_message_that_says_what_it_is() -> None:
    messages = declared("MESSAGES").values()
    for message in messages:
        assert [each for each in messages if each.meaning(message.name)] == [message]
        assert all((message.what, message.learns, message.tasks, message.form)), message.name
        assert not message.learns.endswith("."), message.name


def test_message_that_nobody_declares_fails() -> None:
    assert_declared(["blinded", "blinded wanted", "activation"])
    with pytest.raises(AssertionError, match="means"):
        assert_declared(["blinded", "means"])


def test_encrypted_sums_know_no_algorithm() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("fedtasks/encrypted/*.py"))]
    assert [text for text in texts if "secureboost" in text or "split_nn" in text] == []
