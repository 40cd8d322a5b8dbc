"""Commands that compute: `task`, `spark`, `demo`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from fedtasks.cli.output import examples
from fedtasks.errors import ConfigError

task_app = typer.Typer(no_args_is_help=True, help="One half of one task, as Airflow starts it.")

spark_app = typer.Typer(no_args_is_help=True, help="Spark on this machine.")

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_IN_FILE = re.compile(r"/[^:]+\.py:[A-Za-z_]\w*", re.ASCII)


@task_app.command("run", epilog=examples("task run fedtasks.models.split_nn.train:main config.json"))
def task_run(
    entry: Annotated[str, typer.Argument(help="package.module:function, or /folder/file.py:function of one's own.")],
    config: Annotated[Path, typer.Argument(help="The task's configuration, JSON.")],
) -> None:
    """Run one half of a task; its outcome or failure appears beside CONFIG. Operators call this."""
    from fedtasks.tasks import run

    place, _, name = entry.rpartition(":")
    try:
        if _IN_FILE.fullmatch(entry):
            from fedtasks.custom import algorithm_of

            algorithm = algorithm_of(getattr(_module(Path(place)), name).function)
        elif _ENTRY.fullmatch(entry):
            algorithm = getattr(importlib.import_module(place), name)
        else:
            raise ConfigError(f"`{entry}` is neither package.module:function nor /file.py:function", field="entry")
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        raise ConfigError(f"`{entry}` cannot be imported: {error}", field="entry") from error
    raise typer.Exit(run(algorithm, config))


@spark_app.command("prepare", epilog=examples("spark prepare"))
def spark_prepare() -> None:
    """Let Spark drivers of this installation start in half the time; takes a minute, to be repeated after upgrades."""
    from fedtasks.psi import class_archive

    typer.echo(f"Spark drivers start from {class_archive.make()}.")


def _module(file: Path) -> ModuleType:
    """Import the DAG file that holds a function of one's own, without any of Airflow's state."""
    os.environ["_AIRFLOW__AS_LIBRARY"] = "1"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demo(
    folder: Annotated[Path, typer.Option(help="Everything that the demo makes stays here.")] = Path(".demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave both Airflows up and print where they are.")] = False,
) -> None:
    """Train one model from two parties on this machine, each with its own Airflow, gateway and store."""
    from fedtasks.laptop.demo import main

    main(folder, keep=keep)
