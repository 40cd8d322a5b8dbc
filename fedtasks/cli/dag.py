"""Commands for pipelines of one's own: `dag new | examples | check | test | plan`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtasks.cli.output import (
    PARTY,
    AsJson,
    PartyFile,
    examples,
    group,
    print_findings,
    print_json,
    print_table,
    say,
    size,
    tell,
)
from fedtasks.errors import ConfigError

if TYPE_CHECKING:
    from fedtasks.authoring.sample import Pair
    from fedtasks.authoring.trial import Tried

dag_app = group("Pipelines of one's own: make one, check it, try it out.")

app = group()
app.add_typer(dag_app, name="dag")

DagFile = Annotated[Path, typer.Argument(metavar="FILE", help="The DAG file.")]
Conf = Annotated[
    str, typer.Option(help="Settings to change, as the trigger form would: '{\"train.epochs\": 2}'.", metavar="JSON")
]
Pipeline = Annotated[
    str, typer.Option(help="Which one, where the file holds several: a DAG's name, or `dag.run` for one of its runs.")
]
CopyTo = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="Copy them there; without it, they are listed.")
]
Partition = Annotated[str, typer.Option(help="Whose data the run is about: a day or another key.")]

PeerNetwork = Annotated[
    Path | None, typer.Option(help="A model file for the peer's half, in place of one that is made up.", metavar="FILE")
]

DAY = "2026-01-01"


@dag_app.command("new", epilog=examples("dag new my_pipeline", "dag new my_pipeline --folder ~/airflow"))
def dag_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pipeline's name, the same on both sides.")],
    folder: Annotated[Path, typer.Option(help="Where `dags/` and `tests/` are, or come to be.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a pipeline that exchanges column means, and its test; both run as they are."""
    from fedtasks.authoring.scaffold import scaffold

    dag, test = scaffold(name, folder)
    tell(
        {"dag": str(dag), "test": str(test)},
        f"{dag} and {test} are written. Next:",
        f"  fedtasks dag check {dag}",
        f"  fedtasks dag test {dag}",
        f"  pytest {test}",
        as_json=as_json,
    )


@dag_app.command("examples", epilog=examples("dag examples", "dag examples ~/airflow/dags"))
def dag_examples(folder: CopyTo = None, as_json: AsJson = False) -> None:
    """List the pipelines that come with fedtasks, or copy them into a folder; no file is overwritten."""
    from fedtasks.setup.shipped import DAGS

    list_or_copy(DAGS, folder, as_json=as_json)


@dag_app.command("check", epilog=examples("dag check dags/my_pipeline.py", "dag check dags/my_pipeline.py --json"))
def dag_check(file: DagFile, pipeline: Pipeline = "", as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Say whether a DAG file parses, on either side, whether its steps can run here, and which ticket covers it."""
    from fedtasks.authoring.check import check

    print_findings(list(check(file, party_file, pipeline)), as_json=as_json)


@dag_app.command(
    "test",
    epilog=examples("dag test dags/my_pipeline.py", "dag test dags/train_split_nn.py --conf '{\"train.epochs\": 2}'"),
)
def dag_test(
    file: DagFile,
    conf: Conf = "{}",
    partition: Partition = DAY,
    pipeline: Pipeline = "",
    peer_network: PeerNetwork = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Run both halves of every step on made-up people, without Airflow, a network or a ticket.

    The people have the columns that party.yaml declares; without that file, a bank and a shop are made up too. Of a
    step that trains a network by a model file, the peer's half is made up to fit; it is said what either half sends.
    """
    with _trial(file, conf, partition, party_file, pipeline, peer_network) as (pair, tried):
        steps: list[dict[str, Any]] = []
        for step in tried:
            outcome = next((side.outcome for side in step.sides.values()), {})
            metrics = {name: side.metrics for name, side in step.sides.items() if side.metrics}
            facts = {"step": step.step, "took_s": round(step.took_s, 2), "left_out": step.left_out}
            networks = {name: asdict(network) for name, network in step.networks.items()}
            steps.append({**facts, "outcome": outcome, "metrics": metrics, "networks": networks})
    if as_json:
        print_json({"parties": list(pair.parties), "leader": pair.leader, "steps": steps})
        return
    rows = [
        ["· left out" if step["left_out"] else "✔ ok", step["step"], f"{step['took_s']:.1f} s", _told(step)]
        for step in steps
    ]
    print_table(["", "Step", "Took", "Both halves ended with"], rows, empty="The pipeline has no steps.")
    for each in steps:
        for party, network in each["networks"].items():
            say(f"{each['step']}: {_network(party, network)}")
    say(f"Tried as {' and '.join(pair.parties)}; {pair.leader} leads.")


@dag_app.command("plan", epilog=examples("dag plan dags/my_pipeline.py", "dag plan dags/my_pipeline.py --json"))
def dag_plan(
    file: DagFile,
    conf: Conf = "{}",
    partition: Partition = DAY,
    pipeline: Pipeline = "",
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Say what leaves either house, what the other learns of it, and what a run spends of a ticket.

    Measured in a trial on made-up people, as `dag test` runs it: sizes are the sample's, names and meanings the
    pipeline's.
    """
    from fedtasks.authoring.plan import plan_of

    with _trial(file, conf, partition, party_file, pipeline) as (pair, tried):
        steps = list(tried)
    plan = plan_of(steps)
    left_out = {step.step: step.left_out for step in steps if step.left_out}
    if as_json:
        print_json({**asdict(plan), "left_out": left_out})
        return
    for party, entries in plan.leaves.items():
        rows = [[entry.task, entry.what, entry.items or "", size(entry.bytes), entry.learns] for entry in entries]
        say(f"Leaves {party}:")
        columns = ["Step", "What", "Rows", "Size", f"{pair.other(party)} learns"]
        print_table(columns, rows, empty="Nothing.")
    for kind, by_party in plan.spends.items():
        for party, amount in by_party.items():
            say(f"Spends {amount} of `limits.{kind}`, counted by {party}.")
    for party, percent in plan.labels.items():
        say(f"Lets {pair.other(party)} read labels of {party} with an AUC of at most {percent:g} %; 50 % is guessing.")
    say("Spends 1 of `limits.runs`.")
    for step, reason in left_out.items():
        say(f"Left out: {step}: {reason}")


def list_or_copy(sort: str, folder: Path | None, *, as_json: bool) -> None:
    """List the files of one sort that come with fedtasks, or copy them into a folder."""
    from fedtasks.authoring.examples import copy_examples, example_files, summary

    if folder is not None:
        copied = [str(file) for file in copy_examples(sort, folder)]
        tell({"copied": copied}, *(f"{file} is written." for file in copied), as_json=as_json)
        return
    found = {str(file): summary(file) for file in example_files(sort)}
    if as_json:
        print_json(found)
    else:
        print_table(["File", "What it does"], [list(each) for each in found.items()], empty="There is none.")


@contextmanager
def _trial(
    file: Path, conf: str, partition: str, party_file: Path, pipeline: str, peer_network: Path | None = None
) -> Iterator[tuple[Pair, Iterator[Tried]]]:
    """Yield two parties, and what becomes of a pipeline's steps between them, as they end."""
    from fedtasks.airflow.dagfiles import declared_in
    from fedtasks.authoring.trial import pair_for, try_out

    params = _settings(conf)
    has_party = party_file.is_file()
    declared = declared_in(file, party_file if has_party else None, pipeline)
    with tempfile.TemporaryDirectory(prefix="fedtasks-trial-") as name:
        folder = Path(name)
        pair = pair_for(declared, folder, party_file if has_party else None, peer_network)
        yield pair, try_out(declared.steps, pair, folder, params=params, partition=partition)


def _settings(conf: str) -> Mapping[str, Any]:
    try:
        found = json.loads(conf)
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", field="conf") from None
    if not isinstance(found, dict):
        raise ConfigError("expected a JSON object", field="conf")
    return found


def _network(party: str, network: Mapping[str, Any]) -> str:
    """Say what one half of a network is, on one line."""
    sends = ", ".join(f"`{name}` {what}" for name, what in network["sends"].items()) or "no cut"
    return (
        f"{party}'s half ({network['file'] or 'made up to fit'}) has {network['parameters']:,} parameters and sends "
        f"{sends}; with gradients {size(network['bytes_a_row'])} a row in training"
    )


def _told(step: Mapping[str, Any]) -> str:
    """Say what a step ended with, on one line."""
    from fedtasks.names import TABLES

    if step["left_out"]:
        return str(step["left_out"])
    facts = {**step["outcome"].get("counts", {}), **step["outcome"].get("values", {})}
    for party, metrics in step["metrics"].items():
        figures = {name: value for name, value in metrics.items() if not name.startswith(TABLES)}
        facts |= {f"{party}.{name}": round(value, 3) for name, value in figures.items()}
    return " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items()) or "nothing to count"
