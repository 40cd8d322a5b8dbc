"""Commands about what models have predicted: `predictions export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedtasks.cli.output import PARTY, AsJson, PartyFile, completion, examples, group, open_store, tell
from fedtasks.config import load_party
from fedtasks.errors import RunUnknown

predictions_app = group("What models have predicted, beside this party's own ids.")

app = group()
app.add_typer(predictions_app, name="predictions")


@predictions_app.command(
    epilog=examples(
        "predictions export score_daily.2026-11-21.bank.1 --to scores.csv",
        "predictions export credit.2026-11-21.bank.1 --task evaluate --to test-rows.parquet",
    )
)
def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="The run id, as `fedtasks runs` lists it.",
            autocompletion=completion(lambda store: [run.run_id for run in store.runs.list()]),
        ),
    ],
    to: Annotated[Path, typer.Option(help="The file to write, which must not be there yet: .csv or .parquet.")],
    task: Annotated[str, typer.Option(help="The task that scored; by default `predict`, else `evaluate`.")] = "",
    party_file: PartyFile = PARTY,
    as_json: AsJson = False,
) -> None:
    """Write a run's predictions with this party's own ids to a file that only you may read.

    Ids are as they were compared, after `normalise`. A follower has predictions if the run said `scores: both`.
    """
    from fedtasks.data.lean import lean_imports
    from fedtasks.data.run_storage import RunStorage

    with lean_imports():
        from fedtasks.models.export import predictions_by_id, task_that_scored, write_file

    party = load_party(party_file)
    with open_store(party) as store:
        found = store.runs.get(run)
    if found is None:
        raise RunUnknown(f"run `{run}` is not known to {party.name}; `fedtasks runs` lists those that are")
    shared = json.loads(found.config_json)
    scored_by = task or task_that_scored(json.loads(found.steps_json))
    dataset = party.dataset(shared["datasets"][party.name])
    batches = predictions_by_id(RunStorage(party.storage, run), dataset, scored_by, shared["steps"])
    rows = write_file(batches, to)
    facts = {"run_id": run, "task": scored_by, "file": str(to), "rows": rows}
    tell(facts, f"{to} has {rows:,} predictions of task {scored_by}, with {party.name}'s own ids", as_json=as_json)
