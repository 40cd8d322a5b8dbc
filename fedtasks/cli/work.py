"""Commands that compute: `task`, `spark`, `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtasks.cli.dag import CopyTo, list_or_copy
from fedtasks.cli.output import AsJson, examples, group, tell

task_app = group("One half of one task, as Airflow starts it.")

spark_app = group("Spark on this machine.")

app = group()
app.add_typer(task_app, name="task")
app.add_typer(spark_app, name="spark")


@task_app.command("run", epilog=examples("task run fedtasks.psi.align:run config.json"))
def task_run(
    entry: Annotated[str, typer.Argument(help="package.module:function, or /folder/file.py:function of one's own.")],
    config: Annotated[Path, typer.Argument(help="The task's configuration, JSON.")],
) -> None:
    """Run one half of a task; its outcome or failure appears beside CONFIG. Operators call this."""
    from fedtasks.data.lean import lean_imports

    with lean_imports():
        from fedtasks.runtime.process import end, run_named

    end(entry, run_named(entry, config))


@spark_app.command("prepare", epilog=examples("spark prepare"))
def spark_prepare(as_json: AsJson = False) -> None:
    """Let Spark drivers of this installation start in half the time; takes a minute, to be repeated after upgrades."""
    from fedtasks.engines import class_archive

    archive = str(class_archive.make())
    tell({"archive": archive}, f"Spark drivers start from {archive}.", as_json=as_json)


@spark_app.command("jobs", epilog=examples("spark jobs", "spark jobs /opt/jobs"))
def spark_jobs(folder: CopyTo = None, as_json: AsJson = False) -> None:
    """List the jobs for whoever starts halves by spark-submit, or copy them; no file is overwritten."""
    from fedtasks.setup.shipped import JOBS

    list_or_copy(JOBS, folder, as_json=as_json)


@app.command(epilog=examples("demo", "demo --keep --folder /tmp/demo", "demo --stream"))
def demo(
    folder: Annotated[Path, typer.Option(help="Everything that the demo makes stays here.")] = Path(".demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave both Airflows up and print where they are.")] = False,
    daily: Annotated[bool, typer.Option("--daily", help="Let a model retrain over five simulated days.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Join two logs that grow, and train on them.")] = False,
) -> None:
    """Train one model from two parties on this machine, each with its own Airflow, gateway and store."""
    from fedtasks.laptop import daily as five_days
    from fedtasks.laptop import demo as one_run
    from fedtasks.laptop import stream_demo as growing_logs

    if daily and stream:
        raise typer.BadParameter("choose one of --daily and --stream")
    (growing_logs if stream else five_days if daily else one_run).main(folder, keep=keep)
