"""The tags that a party remembers of its ids from one intersection to the next.

A new key is a new folder, so rotation begins anew and leaves the old tables as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from fedtasks.data.ascending import are_in, keys_of, walk
from fedtasks.data.batch_files import BatchFile
from fedtasks.data.dated import new_name
from fedtasks.data.row_files import from_column
from fedtasks.data.storage import make_private, remove, settle
from fedtasks.data.tag_files import (
    KEYS,
    TAGS,
    Generation,
    Run,
    State,
    TagFiles,
    bucket_file,
    newest,
    states_of,
    without_gone,
)
from fedtasks.dataclass_io import to_plain
from fedtasks.engines.engine import Batches, Engine, Frame, new_file
from fedtasks.names import TAG_BYTES
from fedtasks.psi.ids import ID_SHARD, PAIRS, SHARD, keys_of_ids, move, pairs_batch

_COMPACT = 4
"""A run is merged into the one before unless that has more than so many times its rows."""

_WHOLE_AFTER = 30
"""After so many generations all runs become one, so that no file holds ids any longer that have left the dataset."""

_COUNTS = pa.schema([(state.name, pa.int64()) for state in State])
_WRITTEN = pa.schema([("kind", pa.string()), ("bucket", pa.int32()), *_COUNTS, ("uri", pa.string())])
_SCHEMAS = {"keys": KEYS, "tags": TAGS}


class TagTable(TagFiles):
    """The tags of a dataset's ids under one key, as an engine extends them.

    Notes
    -----
    Cost: an intersection writes its changes. A row is written again whenever its run is merged into one of up to four
    times its size: about as often as the logarithm of the table's size says; and there are no more runs than that.
    """

    def extend(
        self,
        engine: Engine,
        generation: Generation,
        changes: Frame,
        n_buckets: int,
        folder: str,
        reader: str,
        *,
        before: str | None = None,
    ) -> Generation:
        """Make a generation with what has changed, and let it count.

        If another run's has come to count meanwhile, one counts that has the changes of both; this run goes on with
        its own, which knows the ids of its own dataset alone.

        Parameters
        ----------
        changes
            `PAIRS` that `generation` has not, or that are in it and gone.
        n_buckets
            Into how many parts it is cut.
        folder
            What is not done yet is written here.
        reader
            For whom it stays.
        before
            The name of the generation that it replaces, by default that of `generation`.

        Notes
        -----
        Cost: if another run's has come meanwhile, one more pass over the hashes of ids.
        """
        rows = [
            *self._sorted(engine, changes, "keys", ID_SHARD, n_buckets, folder),
            *self._sorted(engine, changes, "tags", SHARD, n_buckets, folder),
        ]
        run, counts = self._take(rows, n_buckets)
        is_due = generation.age + 1 >= _WHOLE_AFTER
        runs = self._compacted(engine, [*generation.runs, run], n_buckets, folder, whole=is_due)
        extended = _counting(generation, counts, runs)
        self._commit(engine, generation.name if before is None else before, extended, run, reader)
        return extended

    def _commit(self, engine: Engine, before: str, extended: Generation, run: Run, reader: str) -> None:
        """Let a generation count; if that is not what it was made from, one that has its newest run on top."""
        new, now = [extended], before
        while not self._shelf.add(reader, [to_plain(each) for each in new], on=now):
            current = self.hold(reader)
            new = [extended] if current.name == before else [extended, self._joined(engine, current, run)]
            now = current.name
        if not any(run in each.runs for each in new):
            remove(f"{self.uri}/{run.name}")

    def _joined(self, engine: Engine, generation: Generation, run: Run) -> Generation:
        """Put a run on top of a generation that it was not made for, some of which rows may say nothing new."""
        n_shards = run.n_buckets

        def count(shard: int) -> Batches:
            counts = np.zeros(len(State), dtype=np.int64)
            sources = self.by_key(generation.runs, shard, n_shards), self.run_by_key(run, shard, n_shards)
            for known, changes in walk(*((KEYS, source) for source in sources)):
                state = changes.column("state").to_numpy()
                is_news = are_in(keys_of(changes), keys_of(known)) == (state == State.GONE)
                counts += np.bincount(state[is_news], minlength=len(State))
            yield pa.RecordBatch.from_pylist([{s.name: int(counts[s]) for s in State}], schema=_COUNTS)

        told = engine.collect(engine.each(range(n_shards), count, _COUNTS))
        counts = {state: sum(row[state.name] for row in told) for state in State}
        return _counting(generation, counts, [*generation.runs, run])

    def in_runs(self, engine: Engine, generation: Generation, n_buckets: int, folder: str, reader: str) -> Generation:
        """Return a generation as it is, or what a release before 0.4 has left in the form of today."""
        if not generation.files:
            return generation

        def read(name: str) -> Batches:
            for batch in self.read_file(generation, name):
                tags, ids = from_column(batch.column("tag"), TAG_BYTES), batch.column("id")
                yield pairs_batch(tags, ids, keys_of_ids(ids), states_of(ids), n_buckets)

        changes = engine.each(generation.files, read, PAIRS)
        return self.extend(engine, Generation(), changes, n_buckets, folder, reader, before=generation.name)

    def _sorted(
        self, engine: Engine, changes: Frame, kind: str, shard: str, n_buckets: int, folder: str
    ) -> list[dict[str, object]]:
        schema = _SCHEMAS[kind]

        def write(bucket: int, batches: Batches) -> Batches:
            yield _written(kind, bucket, (batch.select(schema.names) for batch in batches), folder)

        rows = engine.select(changes, [*schema.names, shard])
        return engine.collect(engine.by_shard(rows, shard, n_buckets, [schema.names[0]], write, _WRITTEN))

    def _compacted(self, engine: Engine, runs: Sequence[Run], n_buckets: int, folder: str, *, whole: bool) -> list[Run]:
        """Merge the newest runs as far as the one before them is not much larger, or all of them."""
        first = len(runs) - 1
        n_rows = runs[first].rows
        while first and (whole or runs[first - 1].rows <= _COMPACT * n_rows):
            first -= 1
            n_rows += runs[first].rows
        if first == len(runs) - 1:
            return list(runs)
        merged = runs[first:]

        def merge(item: tuple[str, int]) -> Batches:
            kind, bucket = item
            read = self.run_by_key if kind == "keys" else self.run_by_tag
            batches = newest(_SCHEMAS[kind], [read(run, bucket, n_buckets) for run in merged])
            # Below the oldest run is nothing that could be gone.
            yield _written(kind, bucket, batches if first else without_gone(batches), folder)

        items = [(kind, bucket) for kind in _SCHEMAS for bucket in range(n_buckets)]
        run, _ = self._take(engine.collect(engine.each(items, merge, _WRITTEN)), n_buckets)
        return [*runs[:first], run]

    def _take(self, written: Iterable[dict[str, object]], n_buckets: int) -> tuple[Run, dict[State, int]]:
        """Move files into a folder of the table, as a run; returns what its rows say, too."""
        name = new_name()
        make_private(self.uri)
        make_private(f"{self.uri}/{name}")
        buckets: dict[str, list[int]] = {"keys": [], "tags": []}
        counts = dict.fromkeys(State, 0)
        for row in written:
            kind, bucket = str(row["kind"]), int(row["bucket"])  # type: ignore[call-overload]
            if not row["uri"]:
                continue
            move(str(row["uri"]), f"{self.uri}/{name}/{bucket_file(kind, bucket)}")
            buckets[kind].append(bucket)
            if kind == "keys":
                for state in State:
                    counts[state] += int(row[state.name])  # type: ignore[call-overload]
        settle(f"{self.uri}/{name}")
        ordered = {kind: tuple(sorted(found)) for kind, found in buckets.items()}
        return Run(name, sum(counts.values()), n_buckets, **ordered), counts


def _counting(before: Generation, counts: Mapping[State, int], runs: Sequence[Run]) -> Generation:
    """Return a generation of these runs, by what has changed since the one before."""
    return Generation(
        name=new_name(),
        rows=before.rows + counts[State.HERE] + counts[State.PADDING] - counts[State.GONE],
        padding=before.padding + counts[State.PADDING],
        runs=tuple(runs),
        age=before.age + 1 if len(runs) > 1 else 0,
    )


def _written(kind: str, bucket: int, batches: Batches, folder: str) -> pa.RecordBatch:
    """Write what ascends into a file, if it has rows."""
    counts = np.zeros(len(State), dtype=np.int64)
    with BatchFile(new_file(folder, kind, bucket), _SCHEMAS[kind]) as file:
        for batch in batches:
            file.write(batch)
            counts += np.bincount(batch.column("state").to_numpy(), minlength=len(State))
    found = {state.name: int(counts[state]) for state in State}
    row = {"kind": kind, "bucket": bucket, **found, "uri": file.uri if counts.any() else ""}
    return pa.RecordBatch.from_pylist([row], schema=_WRITTEN)
