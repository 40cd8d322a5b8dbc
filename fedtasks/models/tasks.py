"""The tasks ``evaluate``, ``predict`` and ``publish``, for the models of every algorithm."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, TEST, Blocks
from fedtasks.data.storage import read_json
from fedtasks.dataclass_io import build
from fedtasks.errors import CategoryUnknown, DataMissing, LabelInvalid, ModelUnknown, TrainingDiverged
from fedtasks.kinds import remark_metric
from fedtasks.link.link import Link
from fedtasks.models import evaluation, messages
from fedtasks.models.contract import HalfModel
from fedtasks.models.evaluation import is_at_least_as_good
from fedtasks.models.measured import rows_to_measure
from fedtasks.models.results import SCORES, Scored, progress, tell_remarks, write_evaluation, write_predictions
from fedtasks.models.settings import (
    BOTH,
    UNKNOWN_ERROR,
    UNKNOWN_MISSING,
    EvaluateSettings,
    PredictSettings,
    PublishSettings,
)
from fedtasks.models.training import open_labelled
from fedtasks.models.versions import algorithm_of, load_half, role_of, version_of
from fedtasks.names import CHAMPION
from fedtasks.runtime.context import Outcome, TaskContext, facts_of
from fedtasks.wire.v1.model_pb2 import ModelVersion

log = logging.getLogger(__name__)

_MAX_VERSION = 10**9 - 1
"""What a version can be called by: `v999999999`."""

_REPORT_EVERY_S = 2.0
"""A report costs the gateway some milliseconds."""

_MORE_THAN_USUAL = 0.01
"""By which share of all rows there may be more rare values than in training, before that is worth a remark."""


def evaluate(context: TaskContext) -> Outcome:
    """Score the test rows with both published halves; the leader learns and publishes how well.

    Raises
    ------
    DataMissing
        The model's task has published nothing.
    ConfigDiffers
        The halves are not of one training (field ``model``).
    LabelInvalid
        There is no test row, or none that the model has not learnt from; a binary label has one value only; or the
        label is not the one that the model predicts.
    CategoryUnknown
        A row has a category that no train row had.

    Notes
    -----
    Reveals: as `predict`, of the test rows; by the version in use too where `model` names one and both sides still have
    the features that it needs: each side says whether it has.

    The figures are of the test rows that neither model has learnt from: after a change of what is held out, others may
    be among them. If too few are left for both, the new model is measured alone. Of a further label that the model
    predicts there is one figure, of the rows that have it.
    """
    settings = build(EvaluateSettings, context.config.settings)
    blocks = open_labelled(context, settings.rows_task)
    role = role_of(context)
    trained = context.storage.published(settings.model_task)
    half = load_half(trained, role)
    version, in_use = version_of(context, settings.model, settings.model_task) if settings.model else (0, None)
    champion = load_half(in_use, role) if in_use else None
    # What the models see is read batch by batch.
    table = blocks.table(TEST, columns=[name for name in blocks.schema.names if name not in blocks.features])
    if not table.num_rows:
        raise LabelInvalid(f"there is no test row; raise `test_fraction` of the step `{settings.rows_task}`")
    if context.is_leader:
        for each in (half, champion) if champion else (half,):
            if (each.label_kind, each.classes) != (blocks.label, blocks.classes):
                raise LabelInvalid("the model predicts another label than the dataset has")
        if blocks.label is LabelKind.BINARY:
            evaluation.check_labels(table[LABEL].to_numpy())
    pairing = half.card.pairing
    facts = {"row_order": blocks.order_digest, "model": pairing, "champion": champion.card.pairing if champion else ""}
    with context.open_link(facts_of(settings, **facts)) as link:
        compared = champion is not None and _can_both_measure(context, link, champion, blocks, version)
        if context.is_leader:
            measured = rows_to_measure(blocks, table, trained, in_use if compared else None)
        batches = _reported(context, "evaluate", _test_batches(blocks, settings.batch_size), table.num_rows)
        scored = [_scores(context, link, half, _known(context, half, batches, settings.unknown), settings.unknown)]
        if champion and compared:
            batches = _reported(context, "evaluate", _test_batches(blocks, settings.batch_size), table.num_rows)
            # What is new to the version in use is no reason not to measure the one that knows it.
            scored.append(_scores(context, link, champion, batches, UNKNOWN_MISSING))
        scores = scored[0].label
        if settings.scores == BOTH:
            scores = _share_scores(context, link, scores, table.num_rows)
    if context.is_leader:
        write_evaluation(context, table, *scored, kind=half.label_kind, classes=half.classes, measured=measured)
        alike = evaluation.are_alike(half.label_kind, table[LABEL].to_numpy(), scores)
        has_learnt = compared and not measured.champion
        tell_remarks(
            context,
            measured.remarks
            | ({remark_metric("alike"): table.num_rows} if alike else {})
            | ({remark_metric("learnt"): version} if has_learnt else {}),
        )
    elif settings.scores == BOTH:
        write_predictions(context, table, scores)
    found = {"compared": compared} if champion else {}
    published = {"model": pairing, **found}
    context.storage.publish(context.config.task, context.config.attempt, rows=table.num_rows, facts=published)
    digests = {"row_order": blocks.order_digest, "model": pairing}
    return Outcome(counts={"rows_test": table.num_rows}, digests=digests, values=found)


def predict(context: TaskContext) -> Outcome:
    """Score all shared people of the run with both halves of a model.

    Raises
    ------
    ModelUnknown
        There is no such version.
    DataMissing
        The model's task has published nothing.
    ConfigDiffers
        The halves are not of one training (field ``model``).
    CategoryUnknown
        A row has a category that no train row had.

    Notes
    -----
    Reveals: to the leader, the answer of the follower's half to each row, and so the score; to the follower nothing
    but how many rows there are, or where `scores` says so the scores.
    Cost: one message per batch.
    """
    settings = build(PredictSettings, context.config.settings)
    blocks = Blocks.open(context.storage, settings.rows_task)
    if settings.model:
        version, trained = version_of(context, settings.model, settings.model_task, settings.version, of_another=True)
        if trained is None:
            raise ModelUnknown(model=settings.model, version=settings.version or "in use")
    else:
        version, trained = 0, context.storage.published(settings.model_task)
    half = load_half(trained, role_of(context))
    pairing, n_rows = half.card.pairing, blocks.n_rows
    with context.open_link(facts_of(settings, row_order=blocks.order_digest, model=pairing)) as link:
        batches = _reported(context, "predict", blocks.batches(settings.batch_size), n_rows)
        scores = _scores(context, link, half, _known(context, half, batches, settings.unknown), settings.unknown).label
        if settings.scores == BOTH:
            scores = _share_scores(context, link, scores, n_rows)
    if context.is_leader or settings.scores == BOTH:
        keys = blocks.batches(settings.batch_size, columns=[blocks.key.column])
        table = pa.Table.from_batches(keys, pa.schema([blocks.schema.field(blocks.key.column)]))
        write_predictions(context, table, scores, half.classes if context.is_leader else ())
    context.storage.publish(context.config.task, context.config.attempt, rows=n_rows, facts={"model": pairing})
    return Outcome(
        counts={"rows": n_rows},
        digests={"row_order": blocks.order_digest, "model": pairing},
        values={"model": settings.model, "version": version},
    )


def publish(context: TaskContext) -> Outcome:
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
    ours: dict[str, Any] = {
        # Without a new row, or where all that was tried is worse, the model is the one in use.
        "is_better": manifest.rows > 0 and not trained.get("kept") and _is_better(metrics, settings.tolerance),
        "version": _next_version(context, settings, trained),
    }
    with context.open_link(facts_of(settings, model=trained["pairing"])) as link:
        messages.PUBLICATION.send(link, ours)
        theirs = messages.PUBLICATION.receive(link)
        if not 0 < theirs["version"] <= _MAX_VERSION:
            messages.PUBLICATION.refuse(theirs, "the number of a version")
        version = max(ours["version"], theirs["version"])
        is_better = (ours if context.is_leader else theirs)["is_better"]
        if is_better:
            entered = ModelVersion(
                model=settings.model,
                version=version,
                parent=trained["parent"],
                run_id=context.config.run_id,
                own_digest=trained["digest"],
                peer_digest=trained["peer_digest"],
                algorithm=algorithm_of(manifest).name,
            )
            consumed = {context.dataset.name: list(Blocks.open(context.storage, settings.rows_task).learnt)}
            context.publish_model(entered, consumed, metrics)
            messages.PUBLICATION.send(link, ours)  # neither is done before both have entered it
            messages.PUBLICATION.receive(link)
    if not is_better:
        version = context.model(settings.model).version.version
        log.info("version %d stays in use: the new model is no better on the same people", version)
    context.report({"phase": "published" if is_better else "kept the version in use", "done": 1, "of": 1})
    found = {"published": is_better, "model": settings.model, "version": version}
    found |= {"kept": True} if trained.get("kept") else {}
    found |= {} if _is_compared(context, settings) else {"compared": False}
    return Outcome(values=found)


def _scores(
    context: TaskContext, link: Link, half: HalfModel, batches: Iterable[pa.RecordBatch], unknown: str
) -> Scored:
    """Return the scores at the leader, nothing at the follower; raise `TrainingDiverged` if one is not finite."""
    found: list[np.ndarray] = []
    further: dict[str, list[np.ndarray]] = {}
    for number, (scores, others) in enumerate(half.score_labels(link, batches, unknown), start=1):
        found.append(scores)
        for name, each in others.items():
            further.setdefault(name, []).append(each)
        if not all(np.isfinite(each).all() for each in (scores, *others.values())):
            raise TrainingDiverged(f"a score of batch {number} is not a finite number")
    label = np.concatenate(found) if found else np.empty(0)
    return Scored(label, {name: np.concatenate(each) for name, each in further.items()})


def _known(
    context: TaskContext, half: HalfModel, batches: Iterable[pa.RecordBatch], unknown: str
) -> Iterator[pa.RecordBatch]:
    """Yield batches, and at the end remark how many rows have categories that a half does not know.

    Raises
    ------
    CategoryUnknown
        A row has one, and that is an error; names dataset, column and row.
    """
    found: Counter[str] = Counter()
    done = 0
    for batch in batches:
        for feature, rows in half.unknown_rows(batch).items():
            if len(rows) and unknown == UNKNOWN_ERROR and not half.takes_unknown:
                who = "1 row has" if len(rows) == 1 else f"{len(rows)} rows have"
                text = f"column `{feature}` of dataset `{context.dataset.name}`: {who} a value that no train row had"
                text = f"{text}; the first is row {done + 1 + int(rows[0])} of those that are scored"
                raise CategoryUnknown(text, where=context.dataset.uri)
            found[feature] += len(rows)
        yield batch
        done += batch.num_rows
    for feature, count in found.items():
        log.info("feature `%s`: %d of %d rows have a value that the model does not know", feature, count, done)
    name, slack = ("rare", _MORE_THAN_USUAL * done) if half.takes_unknown else ("unseen", 0.0)
    more = {each: count for each, count in found.items() if count > half.usual_share(each) * done + slack}
    tell_remarks(context, {remark_metric(name, feature): count for feature, count in more.items()})


def _can_both_measure(context: TaskContext, link: Link, champion: HalfModel, blocks: Blocks, version: int) -> bool:
    """Whether both sides still have what their halves of the version in use need; remark who has not."""
    lacking = champion.lacking(blocks.features, blocks.details)
    if lacking:
        log.warning("version %d needs what the dataset no longer declares: %s", version, ", ".join(lacking))
    messages.MEASURABLE.send(link, {"measurable": not lacking})
    theirs = messages.MEASURABLE.receive(link)["measurable"]
    without = [context.party.name] * bool(lacking) + [context.config.peer] * (not theirs)
    if without:
        tell_remarks(context, {remark_metric("not_compared", " and ".join(without)): version})
    return not without


def _is_compared(context: TaskContext, settings: PublishSettings) -> bool:
    """Whether the version in use was measured beside the new one, if there is one."""
    try:
        return bool(context.storage.published(settings.evaluate_task).facts.get("compared", True))
    except DataMissing:
        return True


def _share_scores(context: TaskContext, link: Link, scores: np.ndarray, n_rows: int) -> np.ndarray:
    """Let the follower have the leader's scores; return them on either side."""
    if context.is_leader:
        messages.SCORES.send(link, scores.astype(np.float64))
        return scores
    return messages.SCORES.receive(link, n_rows)


def _test_batches(blocks: Blocks, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the test rows of one block after the other, at most so many at a time.

    Both sides, and neighbouring releases, must cut alike: so no batch goes on beyond the end of a block.
    """
    for number in range(blocks.n_blocks):
        yield from blocks.block(number, TEST).to_batches(rows)


def _reported(context: TaskContext, phase: str, batches: Iterable[pa.RecordBatch], of: int) -> Iterator[pa.RecordBatch]:
    """Yield batches and report how far they are: at the end, and now and then before it."""
    done, told_at = 0, time.monotonic()
    for batch in batches:
        yield batch
        done += batch.num_rows
        now = time.monotonic()
        if done >= of or now - told_at >= _REPORT_EVERY_S:
            told_at = now
            context.report(progress(done, of, phase))


def _metrics(context: TaskContext, settings: PublishSettings) -> dict[str, float]:
    """Return what this party knows of the model's quality: the leader all, the follower nothing."""
    if not context.is_leader:
        return {}
    found: dict[str, float] = read_json(context.storage.published(settings.evaluate_task).path(SCORES))
    return found


def _is_better(metrics: Mapping[str, float], tolerance: float) -> bool:
    champion = {name.removeprefix(CHAMPION): value for name, value in metrics.items() if name.startswith(CHAMPION)}
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
