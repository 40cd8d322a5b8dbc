"""Files of runs: whole runs that have ended long ago, and attempts in whose place another one counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep
from fedtasks.data.run_storage import RunStorage, folder_of, run_folders
from fedtasks.data.storage import remove, size_of
from fedtasks.errors import DataMissing
from fedtasks.retention.removal import Removal, too_old
from fedtasks.store import ModelRow, RunRow, Store


def removals(root: str, store: Store, keep: Keep, now_ms: int, given_up: Sequence[ModelRow] = ()) -> Iterator[Removal]:
    """Yield what goes of the files of runs, but nothing of a run that goes on, and no half of a version that is kept.

    Parameters
    ----------
    root
        Root of everything that this party's runs write.
    given_up
        Versions whose halves go too.
    """
    known = {folder_of(run.run_id): run for run in store.runs.list(limit=None)}
    versions: dict[str, list[ModelRow]] = defaultdict(list)
    for row in store.models.list():
        if row.removed_ms is None and row not in given_up:
            versions[row.run_id].append(row)
    for folder, changed_s in sorted(run_folders(root).items()):
        run = known.get(folder)
        if run is None:
            if changed_s * 1000 < now_ms - keep.runs_days * DAY_MS:
                uri = f"{root.rstrip('/')}/runs/{folder}"
                why = f"this store knows no such run; {too_old('last used', changed_s * 1000, keep.runs_days)}"
                yield Removal("runs", folder, why, partial(remove, uri), size_of(uri))
        elif run.state != "running":
            yield from _of_run(root, store, keep, now_ms, run, versions[run.run_id])


def _of_run(
    root: str, store: Store, keep: Keep, now_ms: int, run: RunRow, versions: Sequence[ModelRow]
) -> Iterator[Removal]:
    storage, closed_ms = RunStorage(root, run.run_id), run.closed_ms or run.opened_ms
    if run.removed_ms is not None or closed_ms < now_ms - keep.runs_days * DAY_MS:
        going = [task for task in storage.tasks() if not _halves_of(storage, task, versions)]
        if going or run.removed_ms is None:
            stays = (
                f"; its half of {', '.join(f'{row.model} {row.version}' for row in versions)} stays" if versions else ""
            )
            why = too_old("ended", closed_ms, keep.runs_days) + stays
            n_bytes = sum(size_of(f"{storage.uri}/{task}") for task in going)
            yield Removal("runs", run.run_id, why, partial(_remove, storage, store), n_bytes)
    elif closed_ms < now_ms - keep.attempts_days * DAY_MS:
        for task in storage.tasks():
            for uri in storage.superseded(task, _halves_of(storage, task, versions)):
                what = f"{run.run_id} {task} {uri.rpartition('/')[2]}"
                why = f"another attempt counts; the run {too_old('ended', closed_ms, keep.attempts_days)}"
                yield Removal("attempts", what, why, partial(remove, uri), size_of(uri))


def _remove(storage: RunStorage, store: Store) -> None:
    """Remove the files of a run that has ended, but the halves of versions that are kept by now."""
    if not store.runs.mark_removed(storage.run_id):
        return
    versions = [row for row in store.models.list() if row.run_id == storage.run_id and row.removed_ms is None]
    for task in storage.tasks():
        halves = _halves_of(storage, task, versions)
        if not halves:
            storage.remove(task)
        for uri in storage.superseded(task, halves):
            remove(uri)
    if not storage.tasks():
        remove(storage.uri)


def _halves_of(storage: RunStorage, task: str, versions: Sequence[ModelRow]) -> list[str]:
    """Return the URIs of the attempts of a task that are this party's halves of versions."""
    if not versions:
        return []
    digests = {(row.own_digest, row.peer_digest) for row in versions}
    try:
        published = list(storage.publications(task))
    except DataMissing:
        return []
    return [each.uri for each in published if (each.facts.get("digest"), each.facts.get("peer_digest")) in digests]
