"""Commands about what runs: `gateway`, `runs`, `run`, `store`."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    completion,
    console,
    examples,
    group,
    moment,
    open_store,
    print_json,
    print_listing,
    say,
    tell,
)
from fedtasks.config import load_party
from fedtasks.errors import ConfigError

if TYPE_CHECKING:
    from fedtasks.reports.status import State
    from fedtasks.store import Store

run_app = group("One federated run.")
store_app = group("Where this party's state lives.")

app = group()
app.add_typer(run_app, name="run")
app.add_typer(store_app, name="store")

RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run id, such as credit_retrain.2026-11-21.bank.1.",
        autocompletion=completion(lambda store: [run.run_id for run in store.runs.list()]),
    ),
]


@app.command(epilog=examples("gateway --party /etc/fedtasks/party.yaml"))
def gateway(party_file: PartyFile = PARTY) -> None:
    """Run this party's gateway until SIGTERM or Ctrl-C; it may be restarted at any time."""
    from fedtasks import private
    from fedtasks.gateway.server import serve
    from fedtasks.logs import About, JsonLines, begin, into_file

    party = load_party(party_file)
    file = party.logs.file
    if file is not None:
        private.make_folders(file.parent)
    handler = into_file(file, party.logs.max_mb * 10**6, party.logs.keep) if file is not None else begin(sys.stdout)
    if party.logs.is_json:
        handler.setFormatter(JsonLines(About(party.name)))
    # Every request to Airflow would be a line of its own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve(party, party_file.absolute())


@app.command(epilog=examples("runs --limit 5", "runs --state waiting --peer shop", "runs --json"))
def runs(
    state: Annotated[
        str,
        typer.Option(
            help="Only those that are: opened, waiting, running, retrying, done, failed, or refused, that is, "
            "DAG runs that came to no run, or to none yet."
        ),
    ] = "",
    pipeline: Annotated[str, typer.Option(help="Only those of this pipeline.")] = "",
    peer: Annotated[str, typer.Option(help="Only those with this peer.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """List the newest runs and how each stands: who waits for whom, since when, and who must act."""
    from fedtasks.reports.runs import run_list

    party = load_party(party_file)
    with open_store(party) as store:
        _warn_of_file(store)
        if state == _REFUSED:
            _print_refusals(store, party.name, pipeline, peer, limit, as_json)
            return
        found = run_list(store, party.name, state=_state(state), pipeline=pipeline, peer=peer, limit=limit)
    rows = [{**run, "opened": moment(run["opened_ms"]), "sentence": run["status"]["sentence"]} for run in found]
    columns = {"Run": "run_id", "Initiator": "initiator", "Opened (UTC)": "opened", "Status": "sentence"}
    chosen = any((state, pipeline, peer))
    empty = "No run is like that; see them all: `fedtasks runs`" if chosen else "No runs yet; trigger a federated DAG."
    print_listing(rows, columns, as_json=as_json, empty=empty)


def _warn_of_file(store: Store) -> None:
    """Say, beside what programs read, that the gateway does not run with all of party.yaml."""
    from fedtasks.reports.party_file import outdated

    if found := outdated(store):
        say(f"{found.verdict.sign} {found.text}. {found.remedy}.", err=True)


_REFUSED = "refused"


def _state(name: str) -> State | None:
    from fedtasks.reports.status import State

    known = [state.value for state in State]
    if name and name not in known:
        raise ConfigError(f"`{name}` is not one of: {', '.join((*known, _REFUSED))}", field="state")
    return State(name) if name else None


def _print_refusals(store: Store, party: str, pipeline: str, peer: str, limit: int, as_json: bool) -> None:
    from fedtasks.reports.dag_runs import failure_report
    from fedtasks.reports.status import refusal_sentence

    rows = [
        {
            "dag_id": row.dag_id,
            "dag_run_id": row.dag_run_id,
            "pipeline": row.pipeline,
            "partition": row.partition,
            "peer": row.peer,
            "at": moment(row.at_ms),
            "sentence": refusal_sentence(row, party),
            **failure_report(row.failure, party, row.peer, holder=party),
        }
        for row in store.refusals.list(pipeline=pipeline or None, limit=limit)
        if peer in ("", row.peer)
    ]
    columns = {"DAG run": "dag_run_id", "Pipeline": "pipeline", "At (UTC)": "at", "Status": "sentence"}
    print_listing(rows, columns, as_json=as_json, empty="Nothing was refused.")


@run_app.command("show", epilog=examples("run show credit_retrain.2026-11-21.bank.1"))
def run_show(run_id: RunId, as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Show both sides of a run: how it stands, task by task, what left the house, results and receipts.

    Of trees it tells the ten features that count most; with --json, up to fifty.
    """
    from fedtasks.cli.run_view import run_view, with_joins
    from fedtasks.reports.runs import run_report

    party = load_party(party_file)
    with open_store(party) as store:
        report = with_joins(store, run_report(store, party.name, run_id))
    if as_json:
        print_json(report)
    else:
        console().print(run_view(report))


@run_app.command(
    "watch", epilog=examples("run watch credit_retrain.2026-11-21.bank.1", "run watch RUN --json | jq .status")
)
def run_watch(run_id: RunId, as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Follow a run until it ends: exit code 0 if it succeeded, 1 if not. With --json, a line for each change.

    It reads the store: gateways may be restarted meanwhile.
    """
    from fedtasks.cli.run_view import follow

    party = load_party(party_file)
    with open_store(party) as store:
        raise typer.Exit(follow(store, party.name, run_id, as_json=as_json))


@run_app.command("cancel", epilog=examples('run cancel credit_retrain.2026-11-21.bank.1 --reason "wrong day"'))
def run_cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="The other party reads it.")],
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """End a run on both sides; the other side learns the reason."""
    from fedtasks.link.client import GatewayClient
    from fedtasks.reports.runs import run_report

    party = load_party(party_file)
    with GatewayClient.of(party, patience_s=PATIENCE_S) as client:
        client.cancel_run(run_id, reason)
    with open_store(party) as store:
        report = run_report(store, party.name, run_id)
    tell(report, f"{run_id}: {report['status']['sentence']}", as_json=as_json)


@store_app.command("migrate", epilog=examples("store migrate"))
def store_migrate(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Bring the store's schema to this release; safe to repeat."""
    party = load_party(party_file)
    open_store(party).close()
    tell({"store": party.store.url}, "The store is at this release's schema.", as_json=as_json)


@store_app.command("adopt", epilog=examples("store adopt"))
def store_adopt(
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Let this party's gateway serve the store that party.yaml names, in the place of the one before.

    What the old store knew is lost: runs that go on end, tickets that are not in the new one have to be granted again,
    and what peers remember of their use is charged again as soon as they are connected.
    """
    from fedtasks.gateway.known_store import adopt

    party = load_party(party_file)
    if not yes:
        typer.confirm("The gateway forgets the store that it has served before. Go on?", abort=True, err=as_json)
    store_id = adopt(party)
    tell(
        {"store": party.store.url, "store_id": store_id}, "The gateway serves this store from now on.", as_json=as_json
    )
