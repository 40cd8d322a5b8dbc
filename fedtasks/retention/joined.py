"""Blocks of joined streams: the oldest commits, as far as the models in use have learnt from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial, reduce

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep
from fedtasks.data.storage import remove, size_of
from fedtasks.errors import DataMissing
from fedtasks.join import cuts
from fedtasks.join.cuts import Cut
from fedtasks.join.state import Commit, Kept, ShardState, stream_uri
from fedtasks.retention.removal import Removal
from fedtasks.store import JoinRow, Store

READ_MS = DAY_MS
"""So long after a commit is no longer kept somebody may still read it, who had begun before."""


def removals(root: str, store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    """Yield the commits that go: oldest first, never one that the join itself reads again or a model has yet to learn.

    It takes two passes, a day apart: after the first nobody begins to read them, the second removes them.
    """
    for row in store.joins.list():
        state = ShardState(stream_uri(root, row.stream, row.peer), row.shard)
        kept = state.kept()
        given_up = state.folders_before(kept.first)
        if not given_up:
            yield from _to_give_up(state, row, store, keep, now_ms)
        elif kept.since_ms < now_ms - READ_MS:
            n_bytes = sum(map(size_of, given_up))
            yield Removal(
                "joined", _said(row, kept.first), "given up more than a day ago", partial(_remove, given_up), n_bytes
            )


def _to_give_up(state: ShardState, row: JoinRow, store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    learnt = _learnt(store, row)
    try:
        last = state.committed(row.number, row.digest)
    except DataMissing:  # which the next run of the join tells
        return
    first = before = state.kept().first
    for commit, prepared_s in state.ascending():
        is_old = prepared_s * 1000 < now_ms - keep.joined_days * DAY_MS
        if commit.number > min(learnt, last.number - 1) or not is_old or _is_read_again(commit, last):
            break
        first = commit.number + 1
    if first > before:
        why = f"committed more than {keep.joined_days} days ago, and learnt by all models in use; they go a day later"
        kept = Kept(first, now_ms)
        yield Removal("joined", _said(row, first), why, partial(state.keep_from, kept))


def _is_read_again(commit: Commit, last: Commit) -> bool:
    """Whether rows of a commit lie where the log is read from when the join goes on."""
    return (commit.position.piece, commit.position.row) > (last.replay.piece, last.replay.row)


def _learnt(store: Store, row: JoinRow) -> int:
    """Return how many commits of a shard every model in use has learnt that learns from the stream; 0 without one."""
    found: list[Cut] = []
    for version in store.models.list():
        if version.champion and version.peer == row.peer:
            consumed = store.models.consumed(version.model, version.version)
            cut = cuts.learnt(row.stream, [name for names in consumed.values() for name in names])
            found += [cut] if cut else []
    common = reduce(cuts.common, found) if found else ()
    return common[row.shard] if row.shard < len(common) else 0


def _remove(folders: Sequence[str]) -> None:
    for folder in folders:
        remove(folder)


def _said(row: JoinRow, first: int) -> str:
    return f"{row.stream} with {row.peer}, shard {row.shard}, before commit {first}"
