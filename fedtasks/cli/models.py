"""Commands about models: `models`, `models show | promote | rollback | export`."""

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
from fedtasks.models.contract import ModelFormat

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


@models_app.command(
    epilog=examples(
        "models export credit --to credit-7", "models export credit --version 6 --format onnx --to credit-6"
    )
)
def export(
    name: Name,
    to: Annotated[Path, typer.Option(help="The folder to write, which must not be there yet.")],
    number: Annotated[
        int | None, typer.Option("--version", min=1, help="Which version; by default the one in use.")
    ] = None,
    form: Annotated[ModelFormat, typer.Option("--format", help="As what.")] = ModelFormat.SAVED_MODEL,
    task: Annotated[str, typer.Option(help="The task that has trained it.")] = "train",
    party: PartyFile = PARTY,
    as_json: AsJson = False,
) -> None:
    """Write this party's half of a version to a folder that only you may read, to be served without fedtasks.

    Neither half can score alone: see `docs/split-network.md`.
    """
    from fedtasks.data.lean import lean_imports
    from fedtasks.wire.v1.model_pb2 import ModelVersion

    with lean_imports():
        from fedtasks.models.exported import export_half

    known = load_party(party)
    with open_store(known) as store:
        row = store.models.get(name, number) if number else store.models.champion(name)
    if row is None:
        raise ModelUnknown(model=name, version=number or "in use")
    version = ModelVersion(
        model=name,
        version=row.version,
        run_id=row.run_id,
        own_digest=row.own_digest,
        peer_digest=row.peer_digest,
    )
    files = export_half(known.storage, version, task, form, to)
    facts = {"model": name, "version": row.version, "format": form.value, "folder": str(to), "files": list(files)}
    tell(facts, f"{to} has {known.name}'s half of version {row.version} of {name}, as {form.value}", as_json=as_json)


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
        "removed": moment(row.removed_ms),
    }
