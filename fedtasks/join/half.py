"""Task `join`: two live logs become aligned blocks; both halves of one shard."""

from __future__ import annotations

import abc
import logging
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.data.growing import open_stream
from fedtasks.dataclass_io import build
from fedtasks.engines.memory import share_freed
from fedtasks.errors import ConfigError, JoinDiffers, ProtocolViolated, RowOrderDiffers
from fedtasks.join import health, late, messages
from fedtasks.join.health import Health
from fedtasks.join.keys import check_shards, key_facts
from fedtasks.join.log import BEGINNING, Log
from fedtasks.join.pairs import Pairs
from fedtasks.join.reading import Reader
from fedtasks.join.rows import Mask, Rows
from fedtasks.join.settings import JoinSettings, Match
from fedtasks.join.spread import Files, SpreadUnits
from fedtasks.join.state import Commit, ShardState, stream_uri
from fedtasks.join.tally import Tally, total
from fedtasks.join.units import Columns, DirectUnits, Source, Units
from fedtasks.link.link import Link
from fedtasks.names import JOINING
from fedtasks.runtime.context import Outcome, TaskContext, facts_of
from fedtasks.runtime.joins import JoinWindow

log = logging.getLogger(__name__)

REPORT_S = 1.0
"""So often, at most, a half reports how it goes."""

MEMORY_MS = 300_000
"""What open rows take is told for windows of event time of this length, at least."""

IDLE_S = 0.1
"""So long a half that follows a log waits before it looks for more."""

SLACK_S = 60.0
"""So far ahead of the other side, by event time, a half reads at least."""

RAW_ROWS_OF_COMMIT = 1 << 22
"""After so many rows of the log a commit ends, also if few of them were joined: from there it goes on."""

NEVER = 2**61
"""An event time after all others."""

_BEYOND_MS = 2**62 + 2**45
TOKEN_BYTES = 8
"""So long is what the leader calls a commit: halves of two attempts that hold the same rows are no commit together."""

_MEGABYTE = 1 << 20


def run(context: TaskContext) -> Outcome:
    """Join this party's log with the other's, and return what of it is in blocks.

    Raises
    ------
    ConfigError
        The dataset is no stream, or its keys do not decide the shards.
    JoinDiffers
        The two sides' commits do not belong together.
    RowOrderDiffers
        The two sides have found other rows.
    JoinTaken
        Another attempt has committed meanwhile.

    Notes
    -----
    Reveals: to the follower when the leader has rows, and which of them are about ids that it has too; to the leader
    which of its own matched. Of other ids the follower sees hashes under a key that it knows.
    Cost: about 1 µs a row and side; memory for rows within lateness and reach, up to `memory_mb`.
    """
    from fedtasks.join.follower import Follower
    from fedtasks.join.leader import Leader

    settings = build(JoinSettings, context.config.settings, path="settings")
    _check(context, settings)
    share_freed()
    with tempfile.TemporaryDirectory(prefix="fedtasks-join-") as folder:
        half = (Leader if context.is_leader else Follower)(context, settings, Path(folder))
        facts = facts_of(settings, **key_facts(context.dataset, settings), **health.facts(context))
        with context.open_link(facts) as link:
            outcome = half.join(link)
        if context.is_leader:
            half.relabel()
        return outcome


def _check(context: TaskContext, settings: JoinSettings) -> None:
    """Refuse what cannot be joined, before anything crosses."""
    dataset = context.dataset
    if not dataset.is_stream:
        text = f"dataset `{dataset.name}` is no stream: name the column of its rows' times in `event_time`"
        raise ConfigError(text, field="dataset")
    if settings.match is not Match.ID:
        check_shards(dataset, settings.shards)
    if not context.is_leader:
        return
    if settings.negatives < 1 and dataset.label_kind is not LabelKind.BINARY:
        text = f"the label is of kind `{dataset.label_kind.value}`, and only a binary one has negatives"
        raise ConfigError(f"{text}; leave it out", field="negatives")
    late.labels_of(context, settings)


class Half(abc.ABC):
    """One side of a shard.

    Parameters
    ----------
    context, settings
        Of the task.
    folder
        On the local disk, for what does not fit into memory.
    """

    def __init__(self, context: TaskContext, settings: JoinSettings, folder: Path) -> None:
        self.context, self.settings, self.folder = context, settings, folder
        config = context.config
        self._shard = config.shard or 0
        uri = stream_uri(context.party.storage, settings.stream, config.peer)
        self._state = ShardState(uri, self._shard)
        self._tally = Tally(settings.window_s)
        self._pairs = Pairs(settings.keep_unmatched, settings.block_rows)
        self._last = Commit()
        self._of_run: list[Commit] = []
        self._token = ""
        self._peer_newest_ms = BEGINNING
        self._reported_s = 0.0
        # Ids fall into shards by their hash, so that one of these tells how all go.
        self._health = Health(context, settings) if self._shard == 0 else None
        self.log: Log

    # -------------------------------------------------------------------------------------------------- from the start
    def join(self, link: Link) -> Outcome:
        """Go on from the last commit to the end, and return what the run has joined."""
        self.link = link
        secret = self._agree_on_secret()
        settings = self.settings
        self._state.pin(
            {"shards": settings.shards, "match": settings.match.value, "leader": self.context.config.leader}
        )
        self._last = self._agree_on_commit()
        run_id = self.context.config.run_id
        self._of_run = list(takewhile(lambda commit: commit.run_id == run_id, self._state.backwards(self._last)))
        self._peer_newest_ms = self._last.peer_newest_ms
        stream: Source = open_stream(self.context.dataset, f"{self._state.stream_uri}/pieces")
        if self._health is not None:
            stream = self._health.seen(stream)
        columns = Columns(self.context.dataset, self.settings, secret)
        with closing(self._units(columns, stream)) as units:
            reader = Reader(columns, units, self.settings, self._shard, self._last.replay, self._tally)
            sampled = self._sampled if self.context.is_leader and self.settings.is_in_part else None
            self.log = Log(reader, self.settings, self.folder, self._tally, sampled)
            self.log.replay(self._state, self._last)
            self._resume()
            self._run()
        self._report(is_last=True)
        return self._outcome()

    def _units(self, columns: Columns, source: Source) -> Units:
        """Return how rows are read: directly, or shared with the workers of the other shards."""
        shards = self.settings.shards
        if shards == 1:
            return DirectUnits(columns, source, None)
        files = Files.of_stream(self._state.stream_uri, columns, shards)
        return SpreadUnits(columns, source, files, self._shard, self.folder)

    def relabel(self) -> None:
        """Let labels that became known late count in what is joined."""
        late.consume(self.context, self.settings, self._state, self._last)

    def _agree_on_commit(self) -> Commit:
        """Let what both have prepared count, and return the last commit.

        Raises
        ------
        JoinDiffers
            One side has committed what the other has never prepared.
        """
        known = self.context.join_commit(self.settings.stream, self._shard)
        ours = self._state.committed(known.number, known.digest) if known else Commit()
        following = {commit.digest: commit for commit in self._state.prepared(ours.number + 1)}
        said = {"committed": ours.number, "digest": ours.digest, "prepared": sorted(following)}
        messages.POSITION.send(self.link, said)
        theirs = messages.POSITION.receive(self.link)
        ahead = theirs["committed"] - ours.number
        if ahead == 0 and theirs["digest"] == ours.digest:
            both = sorted(set(following) & {each for each in theirs["prepared"] if isinstance(each, str)})
            return self._commit(following[both[0]]) if both else ours
        if ahead == 1 and theirs["digest"] in following:
            return self._commit(following[theirs["digest"]])
        if ahead == -1 and ours.digest in theirs["prepared"]:
            return ours
        text = f"commit {ours.number} of shard {self._shard} is the last here, {theirs['committed']} is there"
        raise JoinDiffers(text if ahead else f"{text}, with other rows", stream=self.settings.stream)

    @abc.abstractmethod
    def _agree_on_secret(self) -> bytes:
        """Return the stream's secret, which the leader tells."""

    def _sampled(self, rows: Rows) -> tuple[Mask, Rows]:
        """Say which rows take part, and return these; by default all do."""
        return np.ones(len(rows), dtype=bool), rows

    @abc.abstractmethod
    def _resume(self) -> None:
        """Tell, or hear, which rows of the leader still wait."""

    @abc.abstractmethod
    def _run(self) -> None:
        """Join until the end."""

    # ----------------------------------------------------------------------------------------------------- to a commit
    def _seal(self, *, is_final: bool = False) -> None:
        """Make what was joined since the last commit durable on both sides.

        Raises
        ------
        RowOrderDiffers
            The other side has joined other rows.
        """
        number = self._last.number + 1
        folder = self._state.begin(number)
        blocks = self._pairs.write(f"{self._state.uri}/{folder}")
        counted = self._tally.taken()
        windows = [JoinWindow(start, lag_ms=self._lag_ms(start, counts), **counts) for start, counts in counted.items()]
        commit = Commit(
            number,
            folder,
            self._last.folder,
            blocks,
            self.log.position,
            self.log.replay_from,
            self._peer_newest_ms,
            self.log.expired_ms,
            is_final,
            self.log.position if is_final else self._last.closed,
            total(counted),
            tuple(windows),
            self.context.config.run_id,
            self._token,
        )
        self._state.prepare(commit, self._pairs.places)
        messages.SEALED.send(self.link, {"number": number, "rows": commit.rows, "digest": commit.digest})
        theirs = messages.SEALED.receive(self.link)
        if (theirs["number"], theirs["rows"], theirs["digest"]) != (number, commit.rows, commit.digest):
            raise RowOrderDiffers(f"commit {number} of shard {self._shard} has {commit.rows} and {theirs['rows']} rows")
        self._commit(commit)
        self._of_run.append(commit)
        if self._health is not None:
            self._health.exchange(self.link)
        self.log.forget(commit.replay)
        self._pairs.clear()
        self.log.n_read = 0
        self._report()

    def _commit(self, commit: Commit) -> Commit:
        self.context.commit_join(self.settings.stream, self._shard, commit.number, commit.state_digest, commit.windows)
        self._state.forget(commit.number, commit.folder)
        self._last = commit
        if self._health is not None:
            self._health.add(commit.windows, commit.expired_ms)
        self.context.reached(commit.number)
        return commit

    @property
    def _is_to_be_sealed(self) -> bool:
        settings = self.settings
        return (
            self._pairs.n_rows >= settings.block_rows
            or self._pairs.n_bytes >= settings.block_bytes
            or self.log.n_read >= RAW_ROWS_OF_COMMIT
        )

    # ----------------------------------------------------------------------------------------------------- what is told
    def _lag_ms(self, start_ms: int, counts: Mapping[str, int]) -> int:
        """Return how long after their event times the rows of a window were committed, added up."""
        middle_ms = start_ms + int(self.settings.window_s * 500)
        return (counts["joined"] + counts["corrected"]) * max(0, int(time.time() * 1000) - middle_ms)

    def _report(self, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if now - self._reported_s < REPORT_S and not is_last:
            return
        self._reported_s = now
        progress = {"phase": "joining", "commit": self._last.number}
        newest_ms, window_ms = self.log.newest_ms, int(1000 * self.settings.window_s)
        if newest_ms == BEGINNING:
            self.context.report(progress)
            return
        every_ms = max(window_ms, MEMORY_MS)
        figures = {
            "memory_mb": self.log.memory_bytes / _MEGABYTE,
            "spilled_mb": self.log.spilled_bytes / _MEGABYTE,
            **self._figures(),
        }
        if self.log.expired_ms > BEGINNING:
            # What is decided for ever ends with the window of what was read.
            figures["watermark_ms"] = float(min(self.log.expired_ms, newest_ms - newest_ms % window_ms + window_ms))
        told = {f"{JOINING}{name}": figure for name, figure in figures.items()}
        self.context.report(progress, step=newest_ms - newest_ms % every_ms, **told)
        if self._health is not None:
            self._health.report(figures.get("clock_offset_ms"), is_last=is_last)

    def _figures(self) -> Mapping[str, float]:
        """Return what a side measures beside, by its name behind `JOINING`."""
        return {}

    def _outcome(self) -> Outcome:
        """Return what the run has joined, in all its attempts."""
        commits = self._of_run
        blocks = [block for commit in commits for block in commit.blocks]
        counts = {
            "rows": sum(block.rows for block in blocks),
            "rows_joined": sum(commit.counts["joined"] + commit.counts["corrected"] for commit in commits),
            "rows_corrected": sum(commit.counts["corrected"] for commit in commits),
            "blocks": len(blocks),
            "commits": self._last.number,
        }
        return Outcome(counts=counts, digests={"commit": self._last.digest})

    def _limit_ms(self, is_peer_idle: bool) -> int | None:
        """Return how far to read: not far ahead of the other side, unless it has no more."""
        if self._peer_newest_ms == BEGINNING or is_peer_idle:
            return None
        ahead_s = max(SLACK_S, self.settings.lateness_s + self.settings.reach_s)
        return self._peer_newest_ms + int(ahead_s * 1000)


def checked_time(told_ms: int) -> int:
    """Return an event time that the other side has told; raise `ProtocolViolated` if it is beyond all bounds."""
    if abs(told_ms) >= _BEYOND_MS:
        raise ProtocolViolated(f"{told_ms} is no time in milliseconds")
    return told_ms
