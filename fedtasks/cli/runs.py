"""Commands about what runs: `gateway`, `runs`, `run`, `audit`, `store`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    examples,
    moment,
    print_json,
    print_listing,
    print_table,
)
from fedtasks.config import load_party

run_app = typer.Typer(no_args_is_help=True, help="One federated run.")
audit_app = typer.Typer(no_args_is_help=True, help="Every decision of this party's gateway, hash-chained.")
store_app = typer.Typer(no_args_is_help=True, help="Where this party's state lives.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run id, such as credit_retrain.2026-11-21.1.")]


def gateway(party_file: PartyFile = PARTY) -> None:
    """Run this party's gateway until SIGTERM or Ctrl-C; it may be restarted at any time."""
    from fedtasks.gateway.server import serve

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Every request to Airflow would be a line of its own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve(load_party(party_file))


def runs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """List the newest runs."""
    from fedtasks.link.client import GatewayClient

    with GatewayClient.of(load_party(party_file), patience_s=PATIENCE_S) as client:
        rows = [_run(run) for run in client.list_runs(limit).runs]
    columns = {
        "Run": "run_id",
        "Initiator": "initiator",
        "Own half": "state",
        "Peer's half": "peer_state",
        "Opened (UTC)": "opened",
        "Failure": "failure_code",
    }
    print_listing(rows, columns, as_json=as_json, empty="No runs yet; trigger a federated DAG.")


@run_app.command("show", epilog=examples("run show credit_retrain.2026-11-21.1"))
def run_show(run_id: RunId, as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Show both halves of a run: tasks, attempts, outcomes, bytes, and why it failed."""
    from fedtasks.link.client import GatewayClient

    with GatewayClient.of(load_party(party_file), patience_s=PATIENCE_S) as client:
        found = client.get_run(run_id=run_id)
    run = _run(found.run)
    peers = {half.task: half for half in found.peer}
    own = {half.task: half for half in found.own}
    tasks = []
    for task in sorted(own.keys() | peers.keys(), key=lambda name: (own.get(name) or peers[name]).since_ms):
        row = {"task": task, "own": _half(own.get(task)), "peer": _half(peers.get(task))}
        half = own.get(task)
        tasks.append({**row, "outcome": half.outcome_json if half is not None else ""})
    run |= {"tasks": tasks, "bytes_sent": found.bytes_sent, "bytes_received": found.bytes_received}
    run["metrics"] = _last_metrics(found.metrics)
    if as_json:
        print_json(run)
        return
    for label, key in _FACTS.items():
        if run[key]:
            typer.echo(f"{label:<14}{run[key]}")
    cells = [[task["task"], task["own"], task["peer"], task["outcome"]] for task in tasks]
    print_table(["Task", "Own half", "Peer's half", "Outcome"], cells, empty="No task has begun.")
    if run["metrics"]:
        print_table(["Metric", "Last value"], list(run["metrics"].items()), empty="")


_FACTS = {
    "Run": "run_id",
    "Initiator": "initiator",
    "Responder": "responder",
    "Ticket": "ticket_id",
    "Own half": "state",
    "Peer's half": "peer_state",
    "DAG run": "dag_run_id",
    "Opened (UTC)": "opened",
    "Closed (UTC)": "closed",
    "Sent": "bytes_sent",
    "Received": "bytes_received",
    "Failure": "failure",
}


@run_app.command("cancel", epilog=examples('run cancel credit_retrain.2026-11-21.1 --reason "wrong day"'))
def run_cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="The other party reads it.")],
    party_file: PartyFile = PARTY,
) -> None:
    """End a run on both sides; the other side learns the reason."""
    from fedtasks.link.client import GatewayClient

    with GatewayClient.of(load_party(party_file), patience_s=PATIENCE_S) as client:
        run = _run(client.cancel_run(run_id, reason))
    typer.echo(f"{run['run_id']}: {run['state']}. {run['failure']}")


@audit_app.command("list", epilog=examples("audit list --limit 50", "audit list --json"))
def audit_list(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest last.")] = 50,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """List the newest decisions: who asked for what, and whether it was allowed."""
    from fedtasks.store import Store

    config = load_party(party_file).store
    with Store.open(config.url, config.password_file) as store:
        rows = [
            {
                "seq": row.seq,
                "at": moment(row.at_ms),
                "actor": row.actor,
                "action": row.action,
                "decision": row.decision,
                "detail": dict(row.detail),
                "text": ", ".join(f"{name}={value}" for name, value in row.detail.items()),
            }
            for row in store.audit_rows(limit=limit)
        ]
    columns = {"#": "seq", "UTC": "at", "Who": "actor", "What": "action", "Decision": "decision", "Facts": "text"}
    print_listing(rows, columns, as_json=as_json, empty="Nothing has been decided yet.")


@audit_app.command("verify", epilog=examples("audit verify"))
def audit_verify(party_file: PartyFile = PARTY) -> None:
    """Check the whole chain of decisions: a changed or missing row is found."""
    from fedtasks.store import Store

    config = load_party(party_file).store
    with Store.open(config.url, config.password_file) as store:
        store.verify_audit()
    typer.echo("The audit chain is whole.")


@store_app.command("migrate", epilog=examples("store migrate"))
def store_migrate(party_file: PartyFile = PARTY) -> None:
    """Bring the store's schema to this release; safe to repeat."""
    from fedtasks.store import Store

    config = load_party(party_file).store
    Store.open(config.url, config.password_file, migrate=True).close()
    typer.echo("The store is at this release's schema.")


def _run(run: Any) -> dict[str, Any]:
    failure = run.failure if run.HasField("failure") else None
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "partition": run.partition,
        "initiator": run.initiator,
        "responder": run.responder,
        "ticket_id": run.ticket_id,
        "dag_id": run.dag_id,
        "dag_run_id": run.dag_run_id,
        "state": _state(run.state),
        "peer_state": _state(run.peer_state),
        "opened": moment(run.opened_ms),
        "closed": moment(run.closed_ms),
        "failure_code": failure.code if failure else "",
        "failure": _failure(failure) if failure else "",
    }


def _state(value: int) -> str:
    from fedtasks.wire.v1 import run_pb2

    return str(run_pb2.State.Name(value)).removeprefix("STATE_").lower()


def _half(half: Any) -> str:
    if half is None:
        return "—"
    failure = f" · {half.failure.code}" if half.HasField("failure") else ""
    return f"{_state(half.state)} (attempt {half.attempt}){failure}"


def _failure(failure: Any) -> str:
    return " · ".join(part for part in (failure.code, failure.text, failure.party, failure.task) if part)


def _last_metrics(metrics: Any) -> Mapping[str, float]:
    last = {f"{metric.task}.{metric.name}": (metric.step, metric.value) for metric in sorted(metrics, key=_step)}
    return {name: value for name, (_, value) in last.items()}


def _step(metric: Any) -> int:
    return int(metric.step)
