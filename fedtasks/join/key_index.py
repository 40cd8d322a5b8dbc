"""Keys and times of many rows, among which others are looked up: the newest in memory, the others on the local disk."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedtasks.join.event_table import EVENT, make_table
from fedtasks.join.rows import Integers, Mask, Words

_NEVER = np.iinfo(np.int64).min
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Run:
    """Events on the disk, by key.

    Parameters
    ----------
    events
        An array of `EVENT`, sorted by the first half of the key.
    most
        How many share a first half at most.
    newest
        The newest time of all.
    """

    events: np.ndarray
    most: int
    newest: int

    @classmethod
    def of(cls, events: np.ndarray, folder: Path) -> _Run:
        """Write events into a file that has no name once it is mapped, so that nothing is left of a killed process."""
        if not len(events):
            return cls(events, 0, _NEVER)
        starts = np.flatnonzero(np.concatenate([[True], events["hi"][1:] != events["hi"][:-1]]))
        most = int(np.diff(np.append(starts, len(events))).max())
        path = folder / f"{uuid.uuid4().hex}.events"
        events.tofile(path)
        mapped = np.memmap(path, EVENT, mode="r")
        path.unlink()
        return cls(mapped, most, int(events["last"].max()))

    def find(
        self, hi: Words, lo: Words, times: Integers, within_ms: int, *, duplicates: bool
    ) -> tuple[Integers, Integers]:
        """Return which rows there is an event for, and its place.

        Parameters
        ----------
        duplicates
            Whether all of an event's times count, and not only its own.
        """
        found = np.full(len(hi), -1)
        place = np.searchsorted(self.events["hi"], hi)
        for offset in range(self.most):
            open_ = np.flatnonzero((found < 0) & (place + offset < len(self.events)))
            some = self.events[place[open_] + offset]
            is_same = (some["hi"] == hi[open_]) & (some["lo"] == lo[open_])
            first, last = (some["first"], some["last"]) if duplicates else (some["time"], some["time"])
            is_near = (times[open_] >= first - within_ms) & (times[open_] <= last + within_ms)
            right = is_same & is_near & (duplicates | (some["reference"] > 0))
            found[open_[right]] = place[open_[right]] + offset
        which = np.flatnonzero(found >= 0)
        return which, found[which]


class KeyIndex:
    """Rows by key and time, each with a reference.

    Parameters
    ----------
    folder
        On the local disk, for what does not fit into memory.
    most_bytes
        How much memory it may take.

    Notes
    -----
    Cost: about 100 bytes and 20 ns a row; what lies on the disk is looked through by bisection, once for each time that
    the memory was full.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._table = make_table()
        self._spilled: list[_Run] = []
        self._before = _NEVER

    def __len__(self) -> int:
        return len(self._table) + sum(len(run.events) for run in self._spilled)

    @property
    def spilled_bytes(self) -> int:
        """How much lies on the disk."""
        return sum(len(run.events) for run in self._spilled) * EVENT.itemsize

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return self._table.bytes

    def enter(self, hi: Words, lo: Words, times: Integers, references: Integers, within_ms: int) -> Mask:
        """Enter rows in their order, but for those of whose key an earlier one lies near.

        Parameters
        ----------
        references
            From 0.
        within_ms
            How near.

        Returns
        -------
        ndarray
            Which were left out, ``bool``; later rows near to them are too.
        """
        known = np.zeros(len(hi), dtype=bool)
        for run in self._spilled:
            known[run.find(hi, lo, times, within_ms, duplicates=True)[0]] = True
        found = self._table.enter(hi, lo, times, references + 1, within_ms, known)
        if self._table.bytes > self._most_bytes:
            self._spilled.append(_Run.of(self._table.events(self._before), self._folder))
            self._table = make_table()
        return found

    def find(self, hi: Words, lo: Words, times: Integers, within_ms: int) -> tuple[Integers, Integers, Integers]:
        """Look rows up.

        Returns
        -------
        which, references, times
            Which rows there is one for that is no duplicate and lies so near at most, its reference and its time.
        """
        which, references, found = self._table.find(hi, lo, times, within_ms)
        if not self._spilled:
            return which, references - 1, found
        parts = [(which, references - 1, found)]
        for run in self._spilled:
            which, place = run.find(hi, lo, times, within_ms, duplicates=False)
            parts.append((which, run.events["reference"][place] - 1, run.events["time"][place]))
        which, references, found = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        which, first = np.unique(which, return_index=True)
        return which, references[first], found[first]

    def forget(self, before_ms: int) -> None:
        """Forget rows before a time; some may be found for a while yet."""
        self._before = max(self._before, before_ms)
        self._table.forget(self._before)
        self._spilled = [run for run in self._spilled if run.newest >= self._before]
