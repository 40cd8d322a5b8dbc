"""Tests that run both halves of a task fail when these send what nobody declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtasks.link.link import Link
from fedtasks.psi.messages import NEW
from fedtasks.runtime.context import Outcome, TaskContext
from tests.support.halves import ROLES, Context, run_both


def both(root: Path, name: str) -> None:
    def entry(context: TaskContext) -> Outcome:
        with context.open_link({}) as link:
            exchange(link)
        return Outcome()

    def exchange(link: Link) -> None:
        link.send(name, b"")
        link.receive(name)

    leader, follower = (Context(root, role, "toy", settings={}) for role in ROLES)
    run_both(entry, leader, follower)


def test_declared_message_passes(tmp_path: Path) -> None:
    both(tmp_path, NEW.numbered(3).name)


def test_message_that_nobody_declares_fails_the_test_that_sends_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="mean of ages"):
        both(tmp_path, "mean of ages")
