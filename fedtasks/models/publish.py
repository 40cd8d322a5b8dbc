"""Task ``publish``: a trained model is entered in both registries and comes into use, if it is no worse."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fedtasks.data.blocks import Blocks
from fedtasks.data.storage import read_json
from fedtasks.dataclass_io import build
from fedtasks.errors import ProtocolViolated
from fedtasks.link.link import Link
from fedtasks.models.evaluation import is_at_least_as_good
from fedtasks.models.results import SCORES
from fedtasks.models.settings import PublishSettings
from fedtasks.runtime.context import Outcome, TaskContext, facts_of
from fedtasks.wire.v1.model_pb2 import ModelVersion

log = logging.getLogger(__name__)

_MESSAGE = "publication"


def run(context: TaskContext) -> Outcome:
    """Publish the run's model on both sides, or keep the one in use on both.

    Raises
    ------
    DataMissing
        The model was not trained, or at the leader not measured.
    ConfigDiffers
        The halves are not of one training (field ``model``).
    ModelTaken
        The name belongs to another pipeline or peer.

    Notes
    -----
    Reveals: to the follower, whether the new model is at least as good as the one in use; to both, how many versions
    the other has.
    """
    settings = build(PublishSettings, context.config.settings)
    manifest = context.storage.published(settings.model_task)
    trained, metrics = manifest.facts, _metrics(context, settings)
    own: dict[str, Any] = {
        # Without a new row, the model is the one in use.
        "is_better": manifest.rows > 0 and _is_better(metrics, settings.tolerance),
        "version": _next_version(context, settings, trained),
    }
    with context.open_link(facts_of(settings, model=trained["pairing"])) as link:
        theirs = _exchange(link, own)
        version = max(own["version"], theirs["version"])
        is_better = (own if context.is_leader else theirs)["is_better"]
        if is_better:
            entered = ModelVersion(
                model=settings.model,
                version=version,
                parent=trained["parent"],
                run_id=context.config.run_id,
                own_digest=trained["digest"],
                peer_digest=trained["peer_digest"],
            )
            consumed = {context.dataset.name: list(Blocks.open(context.storage).learnt)}
            context.publish_model(entered, consumed, metrics)
            _exchange(link, own)  # neither is done before both have entered it
    if not is_better:
        version = context.model(settings.model).version.version
        log.info("version %d stays in use: the new model is no better on the same people", version)
    context.report({"phase": "published" if is_better else "kept the version in use", "done": 1, "of": 1})
    return Outcome(values={"published": is_better, "model": settings.model, "version": version})


def _metrics(context: TaskContext, settings: PublishSettings) -> dict[str, float]:
    """Return what this party knows of the model's quality: the leader all, the follower nothing."""
    if not context.is_leader:
        return {}
    found: dict[str, float] = read_json(context.storage.published(settings.evaluate_task).path(SCORES))
    return found


def _is_better(metrics: Mapping[str, float], tolerance: float) -> bool:
    prefix = "champion_"
    champion = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    return not champion or is_at_least_as_good(metrics, champion, tolerance)


def _next_version(context: TaskContext, settings: PublishSettings, trained: Mapping[str, Any]) -> int:
    """Return the number that this side proposes: that under which the model is entered already, else the next."""
    newest: int = context.model(settings.model).newest
    if newest:
        known = context.model(settings.model, newest).version
        digests = (known.own_digest, known.peer_digest)
        if known.run_id == context.config.run_id and digests == (trained["digest"], trained["peer_digest"]):
            return newest
    return newest + 1


def _exchange(link: Link, own: Mapping[str, Any]) -> dict[str, Any]:
    link.send(_MESSAGE, json.dumps(own).encode())
    answer = link.receive(_MESSAGE)
    try:
        theirs = json.loads(answer) if isinstance(answer, bytes) else None
    except ValueError:
        theirs = None
    if (
        not isinstance(theirs, dict)
        or type(theirs.get("is_better")) is not bool
        or type(theirs.get("version")) is not int
    ):
        raise ProtocolViolated(f"message `{_MESSAGE}` is not what a half proposes")
    return theirs
