"""Help, usage errors and the one way to say what is wrong."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fedtasks.cli import COMMANDS, app
from fedtasks.config import load_party
from tests.support.command_line import Run


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


# They run until they are stopped, or speak JSON lines by themselves.
WITHOUT_JSON = {"gateway", "psi serve", "psi stream", "task run", "demo"}


@pytest.mark.parametrize(("name", "command"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_command_prints_json_on_request(name: str, command: Any) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("--json" in options) != (name in WITHOUT_JSON)


def test_commands_that_act_tell_as_json_what_they_have_done(run: Run, tmp_path: Path) -> None:
    told = {name: run("init", name, "--folder", name, "--json").json() for name in ("bank", "shop")}
    bank, shop = told["bank"]["party_file"], told["shop"]["party_file"]
    assert Path(bank).is_file()
    added = run("peer", "add", told["shop"]["card"], "--yes", "--json", "--party", bank)
    assert added.json()["fingerprint"] == told["shop"]["fingerprint"]
    assert told["shop"]["fingerprint"] in added.err
    assert run("identity", "card", "--json", "--party", shop).json()["fingerprint"] == told["shop"]["fingerprint"]
    assert Path(run("identity", "renew", "--json", "--party", bank).json()["certificate"]).is_file()
    assert run("store", "migrate", "--json", "--party", bank).json() == {"store": load_party(Path(bank)).store.url}
    assert len(run("psi", "keygen", "--bits", "2048", "--json", "--party", bank).json()["key_id"]) > 8


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_all_commands_says_what_each_says_itself(name: str) -> None:
    module, summary = COMMANDS[name]
    assert typer.main.get_command(app).commands[name].help.partition("\n")[0] == summary  # type: ignore[attr-defined]
    assert importlib.import_module(f"fedtasks.cli.{module}").__name__ in sys.modules


HEAVY = {"numpy", "pandas", "pyarrow", "tensorflow", "airflow", "pyspark", "duckdb", "grpc", "rich", "cryptography"}

ELSEWHERE = {"pydantic", "alembic", "psycopg2", "sqlalchemy.dialects.postgresql"}
"""What a command that reads a store of SQLite does not need."""


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], HEAVY | {"pydantic", "yaml", "sqlalchemy", "fedtasks.config", "fedtasks.cli.runs"}),
        (["--version"], HEAVY | {"pydantic", "yaml", "sqlalchemy", "fedtasks.config", "fedtasks.cli.runs"}),
        (["ticket", "--help"], HEAVY | {"sqlalchemy", "fedtasks.cli.runs"}),
        (["runs"], HEAVY | {*ELSEWHERE, "jwt", "fedtasks.cli.tickets"}),
        (["audit", "list", "--limit", "5"], HEAVY | {*ELSEWHERE, "jwt"}),
        (["models"], HEAVY | {*ELSEWHERE, "jwt"}),
    ],
)
def test_command_imports_nothing_that_it_does_not_need(
    run: Run, bank: Path, arguments: list[str], absent: set[str]
) -> None:
    run("store", "migrate", "--party", str(bank / "party.yaml"))
    code = f"import sys\nfrom fedtasks.cli import app\ntry:\n    app({arguments})\nfinally:\n    print(*sys.modules)"
    environment = {**os.environ, "FEDTASKS_PARTY": str(bank / "party.yaml")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert set(done.stdout.splitlines()[-1].split()) & absent == set()


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
