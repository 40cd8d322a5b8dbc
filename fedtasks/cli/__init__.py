"""The command line: `fedtasks --help`.

Commands import what they need when they run, so that help and completion stay quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedtasks import __version__, private
from fedtasks.cli import dag, data, models, psi, runs, setup, tickets, work
from fedtasks.cli.output import Commands, examples

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
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


app.command(epilog=examples("init bank --listen 0.0.0.0:7400 --address gateway.bank.example:7400"))(setup.init)
app.add_typer(setup.identity_app, name="identity")
app.add_typer(setup.peer_app, name="peer")
app.command(epilog=examples("doctor", "doctor --party /etc/fedtasks/party.yaml --json"))(setup.doctor)
app.add_typer(tickets.ticket_app, name="ticket")
app.command(epilog=examples("gateway --party /etc/fedtasks/party.yaml"))(runs.gateway)
app.command(epilog=examples("runs --limit 5", "runs --state waiting --peer shop", "runs --json"))(runs.runs)
app.add_typer(runs.run_app, name="run")
app.add_typer(runs.audit_app, name="audit")
app.add_typer(runs.store_app, name="store")
app.add_typer(data.data_app, name="data")
app.add_typer(models.models_app, name="models")
app.add_typer(dag.dag_app, name="dag")
app.add_typer(psi.psi_app, name="psi")
app.add_typer(work.task_app, name="task")
app.add_typer(work.spark_app, name="spark")
app.command(epilog=examples("demo", "demo --keep --folder /tmp/demo"))(work.demo)
