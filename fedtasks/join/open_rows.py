"""Rows of one side to which the other side's may still come: what of them goes into blocks waits here."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.join.key_filter import KeyFilter
from fedtasks.join.rows import Integers, Mask, Picked, Rows

_NEVER = np.iinfo(np.int64).max
_KEY_BYTES = 42
_SPARSE = 4
"""Where so many times as many numbers lie between the first and the last as there are rows, no table has them all."""

_NONE = np.empty(0, dtype=np.int64)


@dataclass(eq=False)
class _Batch:
    """Rows that came together.

    Parameters
    ----------
    numbers
        What they are called, ascending.
    is_open, is_used
        Which of them still wait, and which belong to rows of the other side nevertheless.
    oldest, newest
        Times between which those that wait lie, or within which they lie.
    n_bytes
        How much memory it takes.
    is_spilled
        Whether what goes into blocks lies on the disk.
    """

    numbers: Integers
    rows: Rows
    is_open: Mask
    is_used: Mask
    n_open: int
    oldest: int
    newest: int
    n_bytes: int
    is_spilled: bool = False

    def places_of(self, numbers: Integers) -> Integers:
        """Return at which place each of some numbers stands; of those that are not here a place where another does."""
        beyond = numbers - self.numbers[0]
        if self._span == len(self.numbers):
            places = beyond
        elif self._span <= _SPARSE * len(self.numbers):
            places = self._table[np.minimum(beyond, self._span - 1)]
        else:
            places = np.searchsorted(self.numbers, numbers)
        inside: Integers = np.minimum(places, len(self.numbers) - 1)
        return inside

    @cached_property
    def _span(self) -> int:
        return int(self.numbers[-1] - self.numbers[0]) + 1

    @cached_property
    def _table(self) -> npt.NDArray[np.int32]:
        """The place of each number between the first and the last; a look there costs a tenth of a bisection."""
        table = np.zeros(self._span, np.int32)
        table[self.numbers - self.numbers[0]] = np.arange(len(self.numbers), dtype=np.int32)
        return table


class OpenRows:
    """Rows by the numbers that they get as they come, until they are taken or too old.

    Parameters
    ----------
    folder
        On the local disk, for what does not fit into memory.
    most_bytes
        How much memory they may take: beyond it the oldest lie on the disk.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._batches: list[_Batch] = []
        self.n_rows = 0

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        return sum(batch.n_bytes for batch in self._batches if not batch.is_spilled)

    @property
    def spilled_bytes(self) -> int:
        """How much lies on the disk."""
        return sum(batch.n_bytes for batch in self._batches if batch.is_spilled)

    @property
    def n_open(self) -> int:
        """How many still wait."""
        return sum(batch.n_open for batch in self._batches)

    def enter(self, rows: Rows, numbers: Integers, is_open: Mask | None = None) -> None:
        """Let rows wait under numbers that ascend, and lie behind those of all that came before.

        Parameters
        ----------
        is_open
            Which of them; by default all.
        """
        if not len(rows):
            return
        self.n_rows = int(numbers[-1]) + 1
        times, n = rows.times, len(rows)
        is_open = np.ones(n, dtype=bool) if is_open is None else is_open.copy()
        n_open = int(np.count_nonzero(is_open))
        if n_open:
            n_bytes, is_used = rows.payload.nbytes + _KEY_BYTES * n, np.zeros(n, dtype=bool)
            ends = int(times.min()), int(times.max())
            self._batches.append(_Batch(numbers, rows, is_open, is_used, n_open, *ends, n_bytes))
            self._spill()

    def take(self, numbers: Integers) -> list[tuple[Picked, Integers]]:
        """Return rows that wait in parts, each with the places of its numbers; from now on they do not wait.

        Raises
        ------
        ValueError
            One does not wait, or stands there twice.
        """
        parts = []
        for batch, where, local in self._each(numbers):
            if not batch.is_open[local].all():
                raise ValueError("a row does not wait")
            batch.is_open[local] = False
            if np.count_nonzero(batch.is_open) != batch.n_open - len(local):
                raise ValueError("a row stands there twice")
            batch.n_open -= len(local)
            parts.append((Picked(batch.rows, local), where))
        self._batches = [batch for batch in self._batches if batch.n_open]
        return _all_of(numbers, parts)

    def use(self, numbers: Integers) -> list[tuple[Picked, Integers]]:
        """Return rows that wait, as `take` does, but numbers may repeat, and they go on waiting.

        Raises
        ------
        ValueError
            One does not wait.
        """
        parts = []
        for batch, where, local in self._each(numbers):
            if not batch.is_open[local].all():
                raise ValueError("a row does not wait")
            batch.is_used[local] = True
            parts.append((Picked(batch.rows, local), where))
        return _all_of(numbers, parts)

    def mark_used(self, numbers: Integers) -> None:
        """Say of rows that wait that they belong to rows of the other side already."""
        for batch, _, local in self._each(numbers):
            batch.is_used[local] = True

    def drop(self, numbers: Integers) -> None:
        """Let rows wait no longer."""
        for batch, _, local in self._each(numbers):
            batch.n_open -= int(batch.is_open[local].sum())
            batch.is_open[local] = False
        self._batches = [batch for batch in self._batches if batch.n_open]

    def expire(self, before_ms: int, first: int) -> list[Picked]:
        """Let rows before a time, whose numbers lie before `first`, wait no longer.

        Returns
        -------
        list
            Those of them that belong to none of the other side, in batches.
        """
        found = []
        for batch in self._batches:
            if batch.oldest >= before_ms or batch.numbers[-1] >= first:
                continue
            gone = batch.is_open & (batch.rows.times < before_ms)
            n_gone = int(gone.sum())
            if n_gone:
                alone = gone & ~batch.is_used
                if alone.any():
                    found.append(Picked(batch.rows, np.flatnonzero(alone)))
                batch.is_open &= ~gone
                batch.n_open -= n_gone
            batch.oldest = before_ms if batch.newest >= before_ms else _NEVER
        self._batches = [batch for batch in self._batches if batch.n_open]
        return found

    def waiting(self) -> Iterator[tuple[Integers, Rows]]:
        """Yield the rows that wait, with their numbers, in the order of numbers."""
        for batch in self._batches:
            which = np.flatnonzero(batch.is_open)
            yield batch.numbers[which], batch.rows.take(which)

    def count_before(self, before_ms: int) -> int:
        """Return how many that wait lie before a time."""
        found = 0
        for batch in self._batches:
            if batch.newest < before_ms:
                found += batch.n_open
            elif batch.oldest < before_ms:
                found += int((batch.is_open & (batch.rows.times < before_ms)).sum())
        return found

    def keys_before(
        self, before_ms: int, *, since_ms: int | None = None, wanted: KeyFilter | None = None
    ) -> tuple[Integers, Rows]:
        """Return numbers and rows of those that wait and lie before a time, without what goes into blocks.

        Parameters
        ----------
        before_ms, since_ms
            Between which times; by default from the beginning.
        wanted
            Which keys others have: rows that have none of them may be left out.
        """
        numbers, parts = [_NONE], []
        for batch in self._batches:
            if batch.oldest >= before_ms or (since_ms is not None and batch.newest < since_ms):
                continue
            chosen = batch.is_open & (batch.rows.times < before_ms)
            if since_ms is not None:
                chosen &= batch.rows.times >= since_ms
            if wanted is not None:
                chosen &= wanted.may_hold(batch.rows.keys)
            which = np.flatnonzero(chosen)
            if len(which):
                numbers.append(batch.numbers[which])
                parts.append(batch.rows.bare.take(which))
        return np.concatenate(numbers), concat(parts) if parts else Rows.none()

    def _each(self, numbers: Integers) -> Iterator[tuple[_Batch, Integers, Integers]]:
        """Yield each batch that has some of the rows, their places among `numbers` and in the batch."""
        firsts = np.array([batch.numbers[0] for batch in self._batches], dtype=np.int64)
        owner = np.searchsorted(firsts, numbers, side="right") - 1
        order = np.argsort(owner, kind="stable")
        cuts = np.searchsorted(owner[order], np.arange(len(firsts) + 1))
        for place, batch in enumerate(self._batches):
            where = order[cuts[place] : cuts[place + 1]]
            if not len(where):
                continue
            wanted = numbers[where]
            local = batch.places_of(wanted)
            there = batch.numbers[local] == wanted
            if there.all():
                yield batch, where, local
            elif there.any():
                yield batch, where[there], local[there]

    def _spill(self) -> None:
        held = self.bytes
        for batch in self._batches:
            if held <= self._most_bytes:
                return
            if batch.is_spilled:
                continue
            held -= batch.n_bytes
            path, rows = self._folder / f"{uuid.uuid4().hex}.arrow", batch.rows
            with pa.OSFile(os.fspath(path), "wb") as sink, pa.ipc.new_file(sink, rows.payload.schema) as writer:
                writer.write_batch(rows.payload)
            with pa.memory_map(os.fspath(path)) as source:
                mapped = pa.ipc.open_file(source).get_batch(0)
            path.unlink()  # what is mapped stays, and nothing is left of a process that is killed
            batch.rows, batch.is_spilled = dataclasses.replace(rows, payload=mapped), True


def concat(parts: list[Rows]) -> Rows:
    """Put rows behind each other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([part.hi for part in parts]),
        np.concatenate([part.lo for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.late for part in parts]),
        np.concatenate([part.places for part in parts]),
        pa.concat_batches([part.payload for part in parts]),
        np.concatenate([part.keys for part in parts], axis=1),
    )


def _all_of(numbers: Integers, parts: list[tuple[Picked, Integers]]) -> list[tuple[Picked, Integers]]:
    if sum(len(where) for _, where in parts) != len(numbers):
        raise ValueError("a row is not there")
    return parts
