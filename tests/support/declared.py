"""Fails a test whose halves have sent what no package declares."""

from __future__ import annotations

from collections.abc import Iterable

from fedtasks.registry import declared


def assert_declared(sent: Iterable[str]) -> None:
    """Check the names of messages, as a link counts them."""
    known = declared("MESSAGES").values()
    strangers = sorted({name for name in sent if not any(message.meaning(name) for message in known)})
    assert not strangers, f"sent without a declaration in a module `messages`: {strangers}"
