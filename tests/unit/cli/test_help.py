"""Help, usage errors and the one way to say what is wrong."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fedtasks.cli import app
from tests.unit.cli.conftest import Run


def commands() -> Iterator[tuple[str, Any]]:
    def walk(group: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, f"{path}{name} ")
            else:
                yield f"{path}{name}", command

    yield from walk(typer.main.get_command(app), "")


@pytest.mark.parametrize(("name", "command"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_command_has_help_and_an_example_of_itself(name: str, command: Any) -> None:
    assert command.help
    assert f"$ fedtasks {name}" in (command.epilog or "")
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, f"{name}: {parameter.name} has no help"


def test_help_comes_quickly() -> None:
    run = [sys.executable, "-m", "fedtasks.cli", "--help"]
    subprocess.run(run, check=True, capture_output=True)  # compiles, if nothing has yet
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(run, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: what else this machine does must not matter.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_usage_error_exits_with_2(run: Run) -> None:
    run("ticket", "issue", expect=2)
    run("nonsense", expect=2)


def test_version_is_printed(run: Run) -> None:
    assert re.fullmatch(r"fedtasks \d+\.\d+\.\d+\n", run("--version").out)


def test_no_command_shows_a_secret(run: Run, met: tuple[str, str], shop: Path) -> None:
    secret = (shop / "keys" / "worker.secret").read_text(encoding="ascii")
    for command in (["doctor"], ["peer", "list"], ["ticket", "list"], ["identity", "card"]):
        done = run(*command, "--party", met[1], expect=None)
        assert secret not in done.out + done.err
