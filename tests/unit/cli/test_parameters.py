"""What commands read by themselves is what typer reads, and its complaints are typer's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedtasks.cli.output import group

Number = Annotated[int, typer.Option(min=1, max=100)]
Share = Annotated[float, typer.Option(min=0)]

WORDS = st.text(st.characters(exclude_categories=["C"]), max_size=12) | st.integers().map(str) | st.floats().map(str)


def made(app: typer.Typer) -> typer.Typer:
    @app.command()
    def show(
        words: Annotated[list[str], typer.Argument()],
        number: Number = 7,
        share: Share = 3,
        name: str = "",
        folder: Path = Path(),
        maybe: str | None = None,
        more: Annotated[list[str] | None, typer.Option()] = None,
        flag: bool = False,
    ) -> None:
        typer.echo(repr([words, number, share, name, folder, maybe, more, flag]))

    return app


OURS, TYPERS = made(group()), made(typer.Typer(rich_markup_mode=None))


def told(app: typer.Typer, arguments: list[str]) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, prog_name="show")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        [],
        ["a", "b", "--number", "100", "--share", "2.5", "--name", "x", "--folder", "/", "--maybe", "", "--flag"],
        ["a", "--more", "x", "--more", "y"],
        ["a", "--number", "0"],
        ["a", "--number", "101"],
        ["a", "--number", "٣"],
        ["a", "--number", "9" * 5000],
        ["a", "--number", "+5"],
        ["a", "--number", "1_0"],
        ["a", "--share", "-1"],
        ["a", "--share", "nan"],
        ["a", "--share", "x"],
        ["a", "--folder", ""],
        ["a", "--folder", "/nowhere/at/all"],
        ["a", "--unknown"],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_command_takes_and_refuses_what_typer_does(arguments: list[str]) -> None:
    assert told(OURS, arguments) == told(TYPERS, arguments)


@given(st.sampled_from(["--number", "--share", "--name", "--folder", "--maybe", "--more"]), WORDS, WORDS)
def test_command_reads_any_words_as_typer_does(option: str, said: str, word: str) -> None:
    arguments = [f"{option}={said}", "--", word]
    assert told(OURS, arguments) == told(TYPERS, arguments)
