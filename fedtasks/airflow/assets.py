"""What a run leaves for other DAGs: assets on which they can be scheduled, and the same for OpenLineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import Asset, AssetAlias

from fedtasks.names import asset_uri, joined_uri, model_uri, rows_uri, scores_uri

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from openlineage.client.event_v2 import Dataset

LEFT = AssetAlias("fedtasks")
"""What tasks declare as outlet: which asset they update, if any, is known when they have run."""

_LEAVES = ("align", "join", "joined", "predict", "publish")
"""The kinds of steps that leave something."""


@dataclass(frozen=True)
class Lineage:
    """What one half of a task has read and left at its party.

    Parameters
    ----------
    inputs, outputs
        URIs of assets.
    facts
        What the event of an output says: run, partition, version. Nothing that counts people.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: Mapping[str, str | int]


def leaves(kind: str) -> bool:
    """Whether a step of this kind leaves an asset."""
    return kind in _LEAVES


def lineage_of(
    kind: str,
    party: str,
    dataset: str,
    run: tuple[str, str, str],
    outcome: Mapping[str, Any],
    *,
    learns_scores: bool,
    stream: str = "",
) -> Lineage:
    """Return what a half has read and left.

    Parameters
    ----------
    kind
        Of its step.
    party, dataset
        This party, and its dataset in the run.
    run
        Pipeline, partition and run id.
    outcome
        What the half ended with.
    learns_scores
        Whether this party is told the scores of a prediction.
    stream
        Which stream is joined, or what was joined of it taken; empty for other kinds.
    """
    pipeline, partition, run_id = run
    values = outcome.get("values", {})
    facts: dict[str, str | int] = {"run_id": run_id, "partition": partition}
    rows = rows_uri(party, pipeline)
    if kind in ("psi", "align"):
        return Lineage((asset_uri(party, dataset),), (rows,) if kind == "align" else (), facts)
    if kind == "join":
        # Nothing is to be trained on where nothing was joined.
        left = (joined_uri(party, stream),) if outcome.get("counts", {}).get("rows_joined") else ()
        return Lineage((asset_uri(party, dataset),), left, facts)
    if kind == "joined":
        return Lineage((joined_uri(party, stream),), (rows,), facts)
    if kind == "predict":
        return Lineage((rows,), (scores_uri(party, pipeline),) if learns_scores else (), facts)
    if kind == "publish" and values.get("published"):
        return Lineage((rows,), (model_uri(party, values["model"]),), {**facts, "version": values["version"]})
    return Lineage((rows,), (), facts)


def announce(context: Context, lineage: Lineage) -> None:
    """Let Airflow record, once the task has succeeded, that assets were updated; with the DAG run's partition key."""
    for uri in lineage.outputs:
        context["outlet_events"][LEFT].add(Asset(uri=uri), extra=dict(lineage.facts))


def operator_lineage(lineage: Lineage | None) -> OperatorLineage | None:
    """Return it as the OpenLineage provider takes it; None where that is not installed."""
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None
    if lineage is None:
        return OperatorLineage()
    inputs, outputs = ([_dataset(uri) for uri in uris] for uris in (lineage.inputs, lineage.outputs))
    return OperatorLineage(inputs=inputs, outputs=outputs)


def to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """Return an asset of fedtasks as a dataset of OpenLineage; Airflow calls it.

    Parameters
    ----------
    asset
        An asset whose URI begins with ``fedtasks://``.
    lineage_context
        Not needed.
    """
    return _dataset(asset.uri)


def _dataset(uri: str) -> Dataset:
    from openlineage.client.event_v2 import Dataset

    parts = urlsplit(uri)
    return Dataset(namespace=f"{parts.scheme}://{parts.netloc}", name=parts.path.lstrip("/") or "/")
