"""Commands that compute: `task`, `spark`, `demo`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Annotated

import typer

from fedtasks.cli.output import examples
from fedtasks.errors import ConfigError

task_app = typer.Typer(no_args_is_help=True, help="One half of one task, as Airflow starts it.")

spark_app = typer.Typer(no_args_is_help=True, help="Spark on this machine.")

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@task_app.command("run", epilog=examples("task run fedtasks.models.split_nn.train:main config.json"))
def task_run(
    entry: Annotated[str, typer.Argument(help="package.module:function")],
    config: Annotated[Path, typer.Argument(help="The task's configuration, JSON.")],
) -> None:
    """Run one half of a task; its outcome or failure appears beside CONFIG. Operators call this."""
    from fedtasks.tasks import run

    # A dotted name can only reach what is installed; a path could reach what somebody has put there.
    if not _ENTRY.fullmatch(entry):
        raise ConfigError(f"`{entry}` is not package.module:function", field="entry")
    module_name, _, name = entry.partition(":")
    try:
        algorithm = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`{entry}` cannot be imported: {error}", field="entry") from error
    raise typer.Exit(run(algorithm, config))


@spark_app.command("prepare", epilog=examples("spark prepare"))
def spark_prepare() -> None:
    """Let Spark drivers of this installation start in half the time; takes a minute, to be repeated after upgrades."""
    from fedtasks.psi import class_archive

    typer.echo(f"Spark drivers start from {class_archive.make()}.")


def demo(
    folder: Annotated[Path, typer.Option(help="Everything that the demo makes stays here.")] = Path(".demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave both Airflows up and print where they are.")] = False,
) -> None:
    """Train one model from two parties on this machine, each with its own Airflow, gateway and store."""
    from fedtasks.laptop.demo import main

    main(folder, keep=keep)
