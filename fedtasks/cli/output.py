"""How commands speak: errors of the registry on one line, tables for people, JSON for programs.

All that a command prints goes through here: what stands in a store may be a peer's words, and no control character of
theirs reaches a terminal. Nothing is cut: what is too wide for its column goes on in the next line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtasks.checks import Finding, Verdict
from fedtasks.cli.parameters import CommandGroup, Commands
from fedtasks.clock import utc
from fedtasks.errors import ConfigError, FedtasksError
from fedtasks.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fedtasks.config import Dataset, Party
    from fedtasks.store import Store

PartyFile = Annotated[
    Path, typer.Option("--party", envvar="FEDTASKS_PARTY", help="This party's file.", show_default="party.yaml")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

PARTY = Path("party.yaml")

PATIENCE_S = 5.0
"""How long a command waits for the local gateway."""


class Group(CommandGroup):
    """A group of commands whose help tells the whole first line of each."""

    def summary(self, name: str) -> str:
        """Return the first line of a command's help."""
        return (self.commands[name].help or "").partition("\n")[0]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands' names, in the order of the help."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; click would cut what they say."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary(name)) for name in self.list_commands(ctx)])


def group(summary: str | None = None, *, no_args_is_help: bool = True) -> Commands:
    """Make a group of commands; help is plain text, which costs a tenth of what a drawn one does."""
    return Commands(cls=Group, help=summary, no_args_is_help=no_args_is_help, rich_markup_mode=None)


def error_line(error: FedtasksError) -> str:
    """Say an error as code · what · where · remedy."""
    facts = ", ".join(f"{name}={value}" for name, value in error.fields.items() if name != "field")
    what = error.detail or error.summary
    parts = (error.code, f"{what} ({facts})" if facts else what, error.where, error.advice())
    return " · ".join(part for part in parts if part)


def examples(*lines: str) -> str:
    """Make the end of a command's help."""
    # The first sign keeps click from making one paragraph of the lines.
    return "\n".join(("\b", "Examples:" if len(lines) > 1 else "Example:", *(f"$ fedtasks {line}" for line in lines)))


def open_store(party: Party) -> Store:
    """Open a party's store, at this release's schema."""
    from fedtasks.store import Store

    return Store.open(party.store.url, party.store.password_file)


def completion(names: Callable[[Store], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Make a shell's completion of names that are in the store; there is none where that cannot be read."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from fedtasks.config import load_party

        try:
            with open_store(load_party(context.params.get("party_file") or PARTY)) as store:
                return [name for name in names(store) if name.startswith(incomplete)]
        except FedtasksError:
            return []

    return complete


def features(dataset: Dataset, text: str, option: str) -> tuple[str, ...]:
    """Read a list of a dataset's features, separated by commas.

    Raises
    ------
    ConfigError
        One is not among them.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in dataset.features:
            known = ", ".join(dataset.features)
            raise ConfigError(f"`{name}` is not a feature of {dataset.name}: {known}", field=option)
    return names


def say(*lines: str, err: bool = False) -> None:
    """Print lines, each of which stays one."""
    typer.echo("\n".join(map(printable, lines)), err=err)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print one JSON document, on one line where `indent` is None; what a terminal must not see is escaped in it."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if not text.isprintable():  # JSON itself has escaped all control characters but those that come after ASCII
        text = "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)
    typer.echo(text)


def cell(value: object) -> Text:
    """Return a value as a table shows it: whole, over several lines if need be, and as text alone."""
    from rich.text import Text

    return Text(printable(str(value)), overflow="fold")


def tell(facts: Mapping[str, object], *sentences: str, as_json: bool) -> None:
    """Say what a command has done: in sentences, or its facts as JSON."""
    if as_json:
        print_json(facts)
    else:
        say(*sentences)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print a table, or the sentence `empty` when there is nothing to show."""
    if not rows:
        say(empty)
        return
    table = empty_table(columns)
    for row in rows:
        table.add_row(*map(cell, row))
    console().print(table)


def empty_table(columns: Iterable[str]) -> Table:
    """Make a table with these headings, as all commands show one."""
    from rich import box
    from rich.table import Column, Table

    return Table(*(Column(cell(name), overflow="fold") for name in columns), box=box.SIMPLE_HEAD, pad_edge=False)


def console() -> Console:
    """Return what tables are printed on; a pipe has no width, nothing is cut or wrapped for programs that read it."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)


def print_listing(
    rows: Sequence[Mapping[str, object]], columns: Mapping[str, str], *, as_json: bool, empty: str
) -> None:
    """Print rows as a table of `columns` (heading → key), or all of them as JSON."""
    if as_json:
        print_json(list(rows))
    else:
        print_table(list(columns), [[row[key] for key in columns.values()] for row in rows], empty=empty)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print what checks have found; exit code 1 if something is wrong."""
    if as_json:
        print_json([{**asdict(finding), "verdict": finding.verdict.value} for finding in findings])
    else:
        rows = [[finding.verdict.sign, finding.subject, finding.text, finding.remedy] for finding in findings]
        print_table(["", "Checked", "Found", "Remedy"], rows, empty="Nothing to check.")
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        raise typer.Exit(1)


def moment(at_ms: int | None) -> str:
    """Show an instant as UTC, to the second; empty for none."""
    return utc(at_ms) if at_ms else ""


def size(n_bytes: int) -> str:
    """Show a number of bytes with three digits or fewer."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
