"""Both halves of a streaming join over links in memory, of parties whose logs grow, and what they have joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, EventTime, FeatureType, TimeUnit
from fedtasks.data.blocks import TAG
from fedtasks.data.events import EVENT_TIME
from fedtasks.join import follower, half, leader, units
from fedtasks.join import log as log_of_a_side
from fedtasks.join.half import run
from fedtasks.join.settings import JoinSettings
from fedtasks.join.state import Commit, ShardState, stream_uri
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.memory import MemoryJoins
from tests.support.halves import ROLES, Context, End, run_both
from tests.support.join_logs import FOLLOWER_PLACE, LEADER_PLACE, Expected, Log, Side, write_log

PLACES = {"leader": LEADER_PLACE, "follower": FOLLOWER_PLACE}
PEERS = {"leader": "follower", "follower": "leader"}


def dataset_of(folder: Path, role: str, offset_ms: int = 0, **declared: Any) -> Dataset:
    """Return the declaration of a log as `tests.support.join_logs` writes it."""
    fields: dict[str, Any] = {
        "name": "people",
        "uri": f"file://{folder}",
        "id": "id",
        "features": {PLACES[role]: FeatureType.NUMERIC, "x1": FeatureType.NUMERIC, "x2": FeatureType.NUMERIC},
        "label": "y" if role == "leader" else None,
        "event_time": EventTime("time", TimeUnit.MILLISECONDS, offset_s=offset_ms / 1000),
        "settle_s": 0.0,
    }
    return Dataset(**(fields | declared))


class JoinContext(Context):
    """One party's half of a join, or of a shard of one.

    Parameters
    ----------
    dataset
        Its log.
    """

    def __init__(self, root: Path, role: str, dataset: Dataset, shard: int | None = None, **known: Any) -> None:
        super().__init__(root, role, "join", **known)
        self.party = replace(self.party, datasets=(dataset,))
        if shard is not None:
            self.config = replace(self.config, stage="shard", shard=shard)


@dataclass(frozen=True)
class Joined:
    """What both sides have committed of a stream.

    Parameters
    ----------
    pairs
        Leader's row and follower's row of each joined row, shard after shard, in the order of the blocks.
    corrections
        Whether each stands in a correction block.
    """

    pairs: list[tuple[int, int]]
    corrections: list[bool]

    @property
    def as_expected(self) -> dict[tuple[int, int], bool]:
        """As `tests.support.join_logs.Expected.pairs`."""
        return dict(zip(self.pairs, self.corrections, strict=True))


@dataclass
class JoinCase:
    """Two parties in memory whose logs grow.

    Parameters
    ----------
    root
        Where their storages and logs lie.
    declared
        What their declarations say beside, by role.
    """

    root: Path
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    joins: dict[str, MemoryJoins] = field(default_factory=lambda: {role: MemoryJoins() for role in ROLES})
    offsets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    attempt: int = 0
    _files: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))

    def __post_init__(self) -> None:
        for role in ROLES:
            self.log(role).mkdir(parents=True, exist_ok=True)

    def log(self, role: str) -> Path:
        return self.root / f"{role}-log"

    def append(self, role: str, log: Log, rows_per_file: int) -> None:
        """Let a party's log grow by these rows."""
        self.offsets[role] = log.offset_ms
        self._files[role] = write_log(
            log, self.log(role), is_leader=role == "leader", rows_per_file=rows_per_file, number=self._files[role]
        )

    def contexts(self, settings: JoinSettings, shard: int | None = None) -> tuple[JoinContext, JoinContext]:
        self.attempt += 1
        leader, follower = (
            JoinContext(
                self.root,
                role,
                dataset_of(self.log(role), role, self.offsets[role], **self.declared.get(role, {})),
                shard,
                settings=settings,
                attempt=self.attempt,
                joins=self.joins[role],
            )
            for role in ROLES
        )
        return leader, follower

    def run(self, settings: JoinSettings, fail: tuple[str, int] | None = None) -> list[tuple[End, End]]:
        """Join what is there, shard after shard; with `fail`, links break as in `tests.support.halves.run_both`."""
        shards = range(settings.shards) if settings.shards > 1 else [None]
        return [run_both(run, *self.contexts(settings, shard), fail=fail) for shard in shards]

    def joined(self, settings: JoinSettings) -> Joined:
        """Return what both sides have committed; fails where it is not the same rows in the same order."""
        pairs: list[tuple[int, int]] = []
        corrections: list[bool] = []
        for shard in range(settings.shards):
            sides = [self._committed(role, settings.stream, shard) for role in ROLES]
            own, other = sides
            assert [block[:2] for block in own] == [block[:2] for block in other]
            for (digest, is_correction, mine), (_, _, theirs) in zip(own, other, strict=True):
                assert mine[TAG].to_pylist() == theirs[TAG].to_pylist(), digest
                order = list(zip(mine[EVENT_TIME].to_pylist(), mine[TAG].to_pylist(), strict=True))
                assert order == sorted(order)
                rows = zip(mine[LEADER_PLACE].to_pylist(), theirs[FOLLOWER_PLACE].to_pylist(), strict=True)
                pairs += [(int(left), int(right)) for left, right in rows]
                corrections += [is_correction] * len(mine)
        assert len(set(pairs)) == len(pairs), "a pair stands in two blocks"
        return Joined(pairs, corrections)

    def counts(self, role: str, stream: str) -> dict[str, int]:
        """Return what a party's store has counted, all windows together."""
        names = ("joined", "corrected", "late", "too_late", "unmatched", "duplicates", "rejected")
        windows = self.joins[role].windows(stream)
        return {name: sum(getattr(window, name) for window in windows) for name in names}

    def state(self, role: str, stream: str, shard: int = 0) -> ShardState:
        """Return what a party keeps of a shard."""
        return ShardState(stream_uri(f"file://{self.root}/{role}", stream, PEERS[role]), shard)

    def _committed(self, role: str, stream: str, shard: int) -> list[tuple[str, bool, pa.Table]]:
        last = self.joins[role].get(stream, shard)
        state = self.state(role, stream, shard)
        found = []
        for commit in state.commits(state.committed(last.number, last.digest) if last else Commit()):
            for block in commit.blocks:
                table = pq.read_table(state.path(commit, block.name).removeprefix("file://"))
                assert len(table) == block.rows > 0
                found.append((block.order_digest, block.is_correction, table))
        return found


@contextmanager
def small_rounds() -> Iterator[None]:
    """Let few rows be many: units, rounds and commits of a handful."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT", 4)
        for module in (log_of_a_side, leader):
            patch.setattr(module, "ROUND_ROWS", 8)
        patch.setattr(log_of_a_side, "MOST_OF_ROUND", 16)
        patch.setattr(follower, "_MOST_ROWS", 20)
        patch.setattr(half, "RAW_ROWS_OF_COMMIT", 20)
        yield


def run_to_the_end(case: JoinCase, join: JoinSettings) -> None:
    for ends in case.run(join):
        assert all(isinstance(end, Outcome) for end in ends), ends
        assert ends[0] == ends[1]


def check(case: JoinCase, join: JoinSettings, expected: Expected) -> None:
    """Compare what both sides have committed, and counted, with what a join of the logs comes to."""
    assert case.joined(join).as_expected == expected.pairs
    if not join.final:  # rows that were read and to which nothing came may be read again
        return
    sides: dict[str, Side] = {"leader": expected.leader, "follower": expected.follower}
    for number, role in enumerate(ROLES):
        counts, side = case.counts(role, join.stream), sides[role]
        matched = {pair[number]: is_correction for pair, is_correction in expected.pairs.items()}
        corrected = sum(matched.values())
        known = {
            "joined": len(matched) - corrected,
            "corrected": corrected,
            "late": len(side.late),
            "too_late": len(side.too_late),
            "duplicates": len(side.duplicates),
            "rejected": len(side.rejected),
        }
        assert counts == known | {"unmatched": len(side.kept) - len(matched)}, role
