"""Models as both parties have agreed on them: which version a run goes on from, and which one is in use."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedtasks.config import check_learnt, check_name
from fedtasks.errors import ChampionDiffers, ConfigDiffers, ConfigError, ModelUnknown
from fedtasks.gateway.base import Base
from fedtasks.gateway.runs import Runs
from fedtasks.store import ModelRow
from fedtasks.store.models import require_kept
from fedtasks.text import plain_text
from fedtasks.wire.v1 import model_pb2, peer_pb2, worker_pb2

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Models:
    """All changes of the registry of models; every one is an audit row.

    Parameters
    ----------
    base
        This party and its connections; its store keeps the registry.
    runs
        Says which task may publish a version.
    """

    def __init__(self, base: Base, runs: Runs) -> None:
        self._base = base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._clock = base.clock
        self._ledger = base.ledger
        self._runs = runs
        self._changing: set[str] = set()

    def get(self, request: worker_pb2.GetModelRequest) -> worker_pb2.GetModelResponse:
        """Return a version, the champion by default, and what it has learnt from; nothing if there is none.

        Raises
        ------
        ModelRemoved
            This party has given up its half of it.
        """
        models = self._store.models
        row = models.get(request.model, request.version) if request.version else models.champion(request.model)
        newest = max((known.version for known in models.list(request.model)), default=0)
        if row is None:
            return worker_pb2.GetModelResponse(newest=newest)
        require_kept(row)
        consumed = json.dumps(models.consumed(row.model, row.version))
        return worker_pb2.GetModelResponse(version=_message(row), consumed_json=consumed, newest=newest)

    def publish(self, request: worker_pb2.PublishModelRequest) -> model_pb2.ModelVersion:
        """Enter the version that both halves of a task have agreed on.

        Raises
        ------
        AttemptStale, RunEnded, …
            The attempt may not speak.
        ConfigError
            Naming the field that is not what it should be.
        ModelTaken
            The name belongs to another pipeline or peer, or the number to another version.
        """
        run, _half = self._runs.require_attempt(request.run_id, request.task, request.attempt)
        version = request.version
        check_name(version.model, "model")
        for field in ("own_digest", "peer_digest"):
            if not _SHA256.fullmatch(getattr(version, field)):
                raise ConfigError("expected a SHA-256 in 64 lower-case hex digits", field=field)
        if version.run_id != run.run_id:
            raise ConfigDiffers(field="run_id", ours=run.run_id, theirs=plain_text(version.run_id, 120))
        row = ModelRow(
            model=version.model,
            version=version.version,
            peer=run.peer,
            run_id=run.run_id,
            partition=run.partition,
            parent=version.parent or None,
            own_digest=version.own_digest,
            peer_digest=version.peer_digest,
            metrics=_object(request.metrics_json, "metrics"),
            consumed=self._partitions(request.consumed_json),
            champion=True,
            published_ms=self._clock(),
            algorithm=plain_text(version.algorithm, 64),
        )
        row = self._store.models.publish(row, run.pipeline)
        self._audit(self._party.name, "model.publish", "noted", row, run_id=run.run_id)
        return _message(row)

    async def change(self, request: worker_pb2.ChangeChampionRequest) -> model_pb2.ModelVersion:
        """Put a version into use: at the peer, which must hold its other half, and then here.

        Raises
        ------
        ModelUnknown, ModelRemoved
            There is no such version here, or its half was removed.
        ChampionDiffers
            The peer does not hold the other half of it; nothing has changed.
        PeerUnreachable
            The peer has not answered. It may have changed already; doing it again brings both in step.
        """
        row = await asyncio.to_thread(self._store.models.get, request.model, request.version)
        if row is None:
            raise ModelUnknown(model=plain_text(request.model, 64), version=request.version)
        require_kept(row)
        connection = self._base.connection(row.peer)
        reason = plain_text(request.reason)
        with self._claimed(row.model):
            await connection.request(champion_change=model_pb2.ChampionChange(version=_message(row), reason=reason))
            row = await asyncio.to_thread(self._store.models.make_champion, row.model, row.version)
        actor = plain_text(request.actor, 64) or self._party.name
        await asyncio.to_thread(lambda: self._audit(actor, "model.champion", "noted", row, reason=reason))
        return _message(row)

    async def answer(self, peer: str, change: model_pb2.ChampionChange) -> peer_pb2.Envelope:
        """Put a version into use here because `peer` is about to, or refuse.

        Raises
        ------
        ChampionDiffers
            This party does not hold the other half of it, or is changing the model's champion itself.
        TicketMissing
            No ticket in force joins both parties in the model's pipeline.
        """
        if change.version.model in self._changing:
            raise ChampionDiffers(
                "this side is changing the champion itself", model=plain_text(change.version.model, 64)
            )
        await asyncio.to_thread(self._follow, peer, change)
        return peer_pb2.Envelope(done=peer_pb2.Done())

    def _follow(self, peer: str, change: model_pb2.ChampionChange) -> None:
        theirs, reason = change.version, plain_text(change.reason)
        row = self._store.models.get(theirs.model, theirs.version)
        if (
            row is None
            or row.peer != peer
            or (row.own_digest, row.peer_digest) != (theirs.peer_digest, theirs.own_digest)
        ):
            raise ChampionDiffers(model=plain_text(theirs.model, 64), version=theirs.version)
        self._tickets.require_any(peer, self._runs.run(row.run_id).pipeline)
        row = self._store.models.make_champion(row.model, row.version)
        facts = {"model": row.model, "version": row.version, "reason": reason}
        self._ledger.add(peer, "model.champion", "allowed", **facts)

    @contextmanager
    def _claimed(self, model: str) -> Iterator[None]:
        """Keep two changes of one champion apart: the two sides' could cross and leave each with the other's."""
        if model in self._changing:
            raise ChampionDiffers("another change of this champion is under way", model=model)
        self._changing.add(model)
        try:
            yield
        finally:
            self._changing.discard(model)

    def _partitions(self, text: str) -> dict[str, list[str]]:
        """Read which partitions of which of this party's datasets a version has learnt from."""
        consumed = _object(text, "consumed")
        for dataset, partitions in consumed.items():
            self._base.party.dataset(dataset)
            if not isinstance(partitions, list):
                raise ConfigError(f"the partitions of `{dataset}` are no list", field="consumed")
            for partition in partitions:
                check_learnt(str(partition))
        return consumed

    def _audit(self, actor: str, action: str, decision: str, row: ModelRow, **facts: Any) -> None:
        self._store.audit.add(actor, action, decision, model=row.model, version=row.version, **facts)


def _message(row: ModelRow) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(
        model=row.model,
        version=row.version,
        parent=row.parent or 0,
        run_id=row.run_id,
        partition=row.partition,
        own_digest=row.own_digest,
        peer_digest=row.peer_digest,
        champion=row.champion,
        algorithm=row.algorithm,
    )


def _object(text: str, field: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"`{field}` is not JSON", field=field) from error
    if not isinstance(value, dict):
        raise ConfigError(f"`{field}` is not a JSON object", field=field)
    return value
