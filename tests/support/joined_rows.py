"""What two parties have joined of a stream: the same rows in the same order, in commits of its shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.data.storage import local_path
from fedtasks.data.tables import LABEL, WEIGHT
from fedtasks.join.state import Block, Commit, ShardState, stream_uri
from fedtasks.names import FOLLOWER, LEADER, own_column
from tests.support.halves import ROLES, Context

STREAM = "clicks"
TAG, TIME = own_column("tag"), own_column("time")


class JoinedContext(Context):
    """A half whose party's store knows all commits that were written."""

    def join_commit(self, stream: str, shard: int) -> Any:
        """Return the newest commit of a shard, None without any."""
        state = ShardState(stream_uri(self.party.storage, stream, self.config.peer), shard)
        found = sorted(local_path(state.uri).glob("commit-*/state.json"))
        number = int(found[-1].parent.name[len("commit-") :].partition(".")[0]) if found else 0
        return SimpleNamespace(number=number, digest=state.prepared(number)[0].state_digest) if found else None


class JoinedStream:
    """A stream of both parties of `tests.support.halves`, of which more and more is joined.

    Parameters
    ----------
    root
        Where both parties' storages are.
    shards
        How many it has.
    seed
        Makes tags, features and labels.
    """

    def __init__(self, root: Path, shards: int = 1, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.states = {
            role: [
                ShardState(stream_uri(f"file://{root}/{role}", STREAM, FOLLOWER if role == LEADER else LEADER), shard)
                for shard in range(shards)
            ]
            for role in ROLES
        }
        self.last = {role: [Commit()] * shards for role in ROLES}
        self.rows: dict[str, list[pa.Table]] = {role: [] for role in ROLES}
        """What was joined, of each side, in the order in which this was called."""

    def join(self, shard: int, blocks: Sequence[int], *, weights: bool = False, both: bool = True) -> None:
        """Commit blocks of so many rows to a shard; without `both`, the follower's store knows nothing of it."""
        made = [self._tables(rows, weights=weights) for rows in blocks]
        for role in ROLES if both else ROLES[:1]:
            state, before = self.states[role][shard], self.last[role][shard]
            folder = state.begin(before.number + 1)
            written = [_write(f"{state.uri}/{folder}", place, tables[role]) for place, tables in enumerate(made)]
            commit = Commit(before.number + 1, folder, before.folder, tuple(written))
            state.prepare(commit, np.empty(0, np.int64))
            self.last[role][shard] = commit
            self.rows[role] += [tables[role] for tables in made]

    def _tables(self, rows: int, *, weights: bool) -> dict[str, pa.Table]:
        rng = self._rng
        tags = pa.array([rng.bytes(16) for _ in range(rows)], pa.binary(16))
        times = pa.array(np.sort(rng.integers(0, 10**6, rows)), pa.int64())
        own, theirs = rng.normal(size=rows), rng.normal(size=rows)
        labels = (own + theirs + rng.normal(size=rows) > 0).astype(np.int8)
        leader = pa.table({TAG: tags, TIME: times, "x": own, LABEL: labels})
        if weights:
            leader = leader.append_column(WEIGHT, pa.array(np.where(labels == 1, 1.0, 4.0)))
        return {LEADER: leader, FOLLOWER: pa.table({TAG: tags, TIME: times, "x": theirs})}


def _write(folder: str, place: int, table: pa.Table) -> Block:
    file = local_path(folder) / f"block-{place:05d}.parquet"
    pq.write_table(table, file)
    content = file.read_bytes()
    order = hashlib.sha256(b"".join(table[TAG].to_pylist())).hexdigest()
    return Block(file.name, table.num_rows, len(content), hashlib.sha256(content).hexdigest(), order, False, 0, 10**6)
