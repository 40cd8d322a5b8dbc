"""The command line: `fedtasks --help`.

A command's module is imported when the command is asked for, and imports what it needs when it runs: help, completion
and short commands stay quick.
"""

from __future__ import annotations

import atexit
import gc
import importlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.main import get_group

from fedtasks import __version__, private
from fedtasks.cli.output import Group, error_line, examples, say
from fedtasks.errors import FedtasksError

__all__ = ["COMMANDS", "app"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("setup", "Write `party.yaml`, make all keys and the card for the peer. Nothing is ever overwritten."),
    "identity": ("setup", "This party's certificate and public card."),
    "peer": ("setup", "The other parties."),
    "worker": ("workers", "Who may work with this party's gateway: each has a name, a secret of its own, and rights."),
    "doctor": ("setup", "Check every key, file and connection, and say what is wrong and who can mend it."),
    "ticket": ("tickets", "Signed grants: which peer may do what with which dataset."),
    "gateway": ("runs", "Run this party's gateway until SIGTERM or Ctrl-C; it may be restarted at any time."),
    "runs": ("runs", "List the newest runs and how each stands: who waits for whom, since when, and who must act."),
    "run": ("runs", "One federated run."),
    "audit": ("audit", "Every decision of this party's gateway, hash-chained."),
    "gc": (
        "keep",
        "Remove what runs have left longer ago than section `keep` of party.yaml says; what is in use stays.",
    ),
    "store": ("runs", "Where this party's state lives."),
    "data": ("data", "Datasets by partition: which have landed, here and at peers."),
    "joins": ("joins", "Streams that are joined with peers: how far each is, and what became of its rows."),
    "models": ("models", "Models that both sides have published, and which version is in use."),
    "predictions": ("predictions", "What models have predicted, beside this party's own ids."),
    "dag": ("dag", "Pipelines of one's own: make one, check it, try it out."),
    "psi": ("psi", "Private set intersection: its keys, and live lookups."),
    "task": ("work", "One half of one task, as Airflow starts it."),
    "spark": ("work", "Spark on this machine."),
    "demo": ("work", "Train one model from two parties on this machine, each with its own Airflow, gateway and store."),
}
"""Command → the module of this package that has it, and the first line of its help, as the command itself says it."""

_MANY_OBJECTS = 50_000
"""So many objects are made before garbage is looked for; Python's 700 suit programs that import little."""


class _Commands(Mapping[str, Any]):
    """All commands by name; looking one up imports its module."""

    def __getitem__(self, name: str) -> Any:
        module, _ = COMMANDS[name]
        return get_group(importlib.import_module(f"fedtasks.cli.{module}").app).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Root(Group):
    """The root group: an error of the registry ends any command with one line and exit code 1."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # nothing adds to them

    def summary(self, name: str) -> str:
        """Return the first line of a command's help without importing the command."""
        return COMMANDS[name][1]

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        _collect_seldom()
        try:
            return super().invoke(ctx)
        except FedtasksError as error:
            say(error_line(error), err=True)
            raise typer.Exit(1) from error


def _collect_seldom() -> None:
    """Look for garbage in what is imported neither while it is imported nor at the end: nothing of it is."""
    gc.set_threshold(_MANY_OBJECTS)
    atexit.register(gc.freeze)


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    # A traceback with local variables could show a secret.
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedtasks {__version__}")
        raise typer.Exit


@app.callback(epilog=examples("init bank --listen 0.0.0.0:7400", "doctor", "gateway"))
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Federated learning between companies that each run their own Apache Airflow."""
    private.keep_private()
