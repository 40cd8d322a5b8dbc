"""Commands about models: `models`, `models show | promote | rollback`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    examples,
    group,
    moment,
    open_store,
    print_listing,
    print_table,
    tell,
)
from fedtasks.config import load_party
from fedtasks.errors import ConfigError, ModelUnknown

if TYPE_CHECKING:
    from fedtasks.store import ModelRow

models_app = group("Models that both sides have published, and which version is in use.", no_args_is_help=False)

app = group()
app.add_typer(models_app, name="models")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.")]
Reason = Annotated[str, typer.Option(help="Why; the peer reads it, and both audits keep it.")]

_COLUMNS = {
    "model": "model",
    "version": "version",
    "in use": "in_use",
    "from": "parent",
    "algorithm": "algorithm",
    "peer": "peer",
    "data up to": "partition",
    "quality": "quality",
    "published": "published",
}


@models_app.callback(invoke_without_command=True, epilog=examples("models", "models --json"))
def models(context: typer.Context, party: PartyFile = PARTY, as_json: AsJson = False) -> None:
    """List every version of every model."""
    if context.invoked_subcommand is None:
        with open_store(load_party(party)) as store:
            rows = [_summary(row) for row in store.models.list()]
        print_listing(rows, _COLUMNS, as_json=as_json, empty="No model was published yet: run a pipeline that does")


@models_app.command(epilog=examples("models show credit", "models show credit --json"))
def show(name: Name, party: PartyFile = PARTY, as_json: AsJson = False) -> None:
    """Show a model's versions with both halves' digests and what each has learnt from."""
    with open_store(load_party(party)) as store:
        rows = [
            {**_summary(row), "own_digest": row.own_digest, "peer_digest": row.peer_digest, "run_id": row.run_id}
            | {"metrics": row.metrics or {}, "consumed": dict(row.consumed)}
            for row in store.models.list(name)
        ]
    if not rows:
        raise ModelUnknown(f"no version of `{name}` was published")
    if as_json:
        tell({"model": name, "versions": rows}, as_json=True)
        return
    for row in rows:
        learnt = [f"{dataset}: {', '.join(partitions)}" for dataset, partitions in row.pop("consumed").items()]
        figures = ", ".join(f"{metric} {value:.4f}" for metric, value in row.pop("metrics").items())
        facts = {**row, "metrics": figures, "new in it": "; ".join(learnt)}
        print_table([f"version {row['version']}", ""], list(facts.items()), empty="")


@models_app.command(epilog=examples('models promote credit 7 --reason "better on last month\'s loans"'))
def promote(name: Name, version: Version, reason: Reason, party: PartyFile = PARTY, as_json: AsJson = False) -> None:
    """Put a version into use, on both sides or on neither."""
    _change(name, version, reason, party, as_json)


@models_app.command(epilog=examples('models rollback credit 6 --reason "version 7 drifts"'))
def rollback(name: Name, version: Version, reason: Reason, party: PartyFile = PARTY, as_json: AsJson = False) -> None:
    """Put an older version into use, on both sides or on neither; what only newer ones have learnt counts as new."""
    _change(name, version, reason, party, as_json, is_back=True)


def _change(name: str, version: int, reason: str, party: Path, as_json: bool, *, is_back: bool = False) -> None:
    from fedtasks.link.client import GatewayClient

    with GatewayClient.of(load_party(party), patience_s=PATIENCE_S) as client:
        known = client.get_model(name)
        if not known.newest:
            raise ModelUnknown(f"no version of `{name}` was published")
        in_use = known.version.version
        if is_back and version > in_use:
            raise ConfigError(f"version {version} is not older than {in_use}, which is in use", field="VERSION")
        changed = client.change_champion(name, version, reason, getpass.getuser())
    facts = {"model": changed.model, "version": changed.version, "in_use": changed.champion}
    tell(facts, f"Version {changed.version} of {changed.model} is in use on both sides", as_json=as_json)


def _summary(row: ModelRow) -> dict[str, Any]:
    metrics = row.metrics or {}
    first = next((name for name in ("auc", "accuracy", "rmse") if name in metrics), None)
    return {
        "model": row.model,
        "version": row.version,
        "in_use": row.champion,
        "parent": row.parent,
        "algorithm": row.algorithm,
        "peer": row.peer,
        "partition": row.partition,
        "quality": f"{first} {metrics[first]:.3f}" if first else None,
        "published": moment(row.published_ms),
    }
