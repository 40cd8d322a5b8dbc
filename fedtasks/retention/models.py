"""Versions of models that are not in use: this party gives up its half of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep
from fedtasks.retention.removal import Removal, too_old
from fedtasks.store import ModelRow, Store


def removals(store: Store, keep: Keep, now_ms: int) -> Iterator[tuple[ModelRow, Removal]]:
    """Yield the versions that go, but none in use and none of a model that a run which goes on is about.

    Its files go with those of the run that has trained it.
    """
    days = keep.models_days
    under_way = store.runs.active()
    pipelines = {run.run_id: run.pipeline for run in store.runs.list(limit=None)}
    for row in store.models.list():
        is_old = row.removed_ms is None and row.published_ms < now_ms - days * DAY_MS
        is_named = any(
            run.pipeline == pipelines[row.run_id] or f'"{row.model}"' in run.config_json for run in under_way
        )
        if is_old and not row.champion and not is_named:
            why = f"{too_old('published', row.published_ms, days)}; another version is in use"
            give_up = partial(store.models.mark_removed, row.model, row.version)
            yield row, Removal("models", f"{row.model} version {row.version}", why, give_up)
