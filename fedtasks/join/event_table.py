"""Events by key and time in memory, into which others are entered and among which others are looked up.

========  ============================================================
kernel    how
========  ============================================================
native    a hash table in C, see ``event_keys.c``
portable  a dictionary, row by row in Python, where there is no kernel
========  ============================================================
"""

from __future__ import annotations

import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import native
from fedtasks.crypto.kernels import get_kernel
from fedtasks.join.rows import Integers, Mask, Words

EVENT = np.dtype(
    [("hi", "<u8"), ("lo", "<u8"), ("time", "<i8"), ("reference", "<i8"), ("first", "<i8"), ("last", "<i8")]
)
"""An event: its key, its time, a reference above 0 (below, where it only makes others duplicates), and the earliest and
the latest time of it and its duplicates."""

_FORM = 2
"""What `FEDTASKS_EVENTS_FORM` is in the header; kernels that were built of other sources are left alone."""

_LEAST_SLOTS = 1 << 12
_SEED_BITS = 62


class EventTable(Protocol):
    """Events by key and time."""

    def __len__(self) -> int: ...

    @property
    def bytes(self) -> int:
        """How much memory it takes."""

    def enter(
        self, hi: Words, lo: Words, times: Integers, references: Integers, within_ms: int, are_duplicates: Mask
    ) -> Mask:
        """Enter events in their order, but for duplicates.

        Parameters
        ----------
        references
            Above 0.
        within_ms
            An event is a duplicate if it lies so near to one of the same key, or to a duplicate of that.
        are_duplicates
            Which are duplicates of events that are known elsewhere; events behind them may be duplicates of them.

        Returns
        -------
        ndarray
            Which are duplicates, ``bool``.
        """

    def find(self, hi: Words, lo: Words, times: Integers, within_ms: int) -> tuple[Integers, Integers, Integers]:
        """Return which events there is one for that lies so far from them at most, its reference and its time."""

    def events(self, before_ms: int) -> np.ndarray:
        """Return all events that have no time before `before_ms` alone, as an array of `EVENT`, by key."""

    def forget(self, before_ms: int) -> None:
        """Forget events all of whose times lie before one."""


def make_table() -> EventTable:
    """Return an empty table of the fastest kind that there is."""
    form = getattr(native.load(), "fedtasks_events_form", None)
    is_native = form is not None and form() == _FORM and get_kernel().name != "portable"
    return NativeTable() if is_native else PortableTable()


class NativeTable:
    """An `EventTable` in C.

    Notes
    -----
    Cost: 48 bytes an event, and three to six slots of 8 bytes; entering or finding one takes about 20 ns.
    """

    def __init__(self) -> None:
        self._seed = secrets.randbits(_SEED_BITS)
        self._events, self._slots = _room(_LEAST_SLOTS)
        self._n_events = 0
        self._before = np.array([np.iinfo(np.int64).min])

    def __len__(self) -> int:
        return self._n_events

    @property
    def bytes(self) -> int:
        """See `EventTable.bytes`."""
        return self._n_events * EVENT.itemsize + self._slots.nbytes

    def enter(
        self, hi: Words, lo: Words, times: Integers, references: Integers, within_ms: int, are_duplicates: Mask
    ) -> Mask:
        """See `EventTable.enter`."""
        n = len(hi)
        self._make_room(n)
        found = are_duplicates.astype(np.uint8)
        columns = [np.ascontiguousarray(column) for column in (hi, lo, times, references)]
        table = self._events, self._n_events, self._slots, len(self._slots), self._seed
        self._n_events = native.call("fedtasks_events_enter", *table, *columns, n, within_ms, found)
        return found.astype(bool)

    def find(self, hi: Words, lo: Words, times: Integers, within_ms: int) -> tuple[Integers, Integers, Integers]:
        """See `EventTable.find`."""
        n = len(hi)
        references, found = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        columns = [np.ascontiguousarray(column) for column in (hi, lo, times)]
        table = self._events, self._slots, len(self._slots), self._seed
        native.call("fedtasks_events_find", *table, *columns, n, within_ms, references, found)
        which = np.flatnonzero(references)
        return which, references[which], found[which]

    def events(self, before_ms: int) -> np.ndarray:
        """See `EventTable.events`."""
        known = self._events[: self._n_events]
        taken = known[known["last"] >= before_ms]
        found: np.ndarray = taken[np.argsort(taken["hi"], kind="stable")]
        return found

    def forget(self, before_ms: int) -> None:
        """See `EventTable.forget`; memory becomes free when there is need of it."""
        self._before[0] = max(self._before[0], before_ms)

    def _make_room(self, n: int) -> None:
        """Let there be room for more events, without those that are forgotten."""
        if self._n_events + n <= len(self._events):
            return
        n_kept = int(np.count_nonzero(self._events["last"][: self._n_events] >= self._before[0]))
        n_slots = max(_LEAST_SLOTS, 1 << (3 * (n_kept + n) - 1).bit_length())
        into, slots = self._events, self._slots
        if n_slots == len(slots):
            slots[:] = 0  # what is moved within its memory costs the system no new pages
        else:
            into, slots = _room(n_slots)
        table = self._events, self._n_events, into, slots, n_slots, self._seed, self._before
        self._n_events = native.call("fedtasks_events_move", *table)
        self._events, self._slots = into, slots


def _room(n_slots: int) -> tuple[np.ndarray, npt.NDArray[np.uint64]]:
    """Return room for events, and empty slots of which so many name one at most."""
    return np.empty(n_slots * 5 // 8, EVENT), np.zeros(n_slots, dtype=np.uint64)


class PortableTable:
    """An `EventTable` in Python, row by row."""

    def __init__(self) -> None:
        self._events: dict[tuple[int, int], list[list[int]]] = {}
        self._n_events = 0
        self._before = np.iinfo(np.int64).min

    def __len__(self) -> int:
        return self._n_events

    @property
    def bytes(self) -> int:
        """See `EventTable.bytes`."""
        return 8 * EVENT.itemsize * self._n_events

    def enter(
        self, hi: Words, lo: Words, times: Integers, references: Integers, within_ms: int, are_duplicates: Mask
    ) -> Mask:
        """See `EventTable.enter`."""
        found = are_duplicates.copy()
        rows = zip(hi.tolist(), lo.tolist(), times.tolist(), references.tolist(), strict=True)
        for place, (upper, lower, time, reference) in enumerate(rows):
            known = self._events.setdefault((upper, lower), [])
            for event in known:
                _, _, first, last = event
                if first - within_ms <= time <= last + within_ms:
                    found[place] = True
                    event[2:] = min(first, time), max(last, time)
                    break
            else:
                known.append([time, -1 if found[place] else reference, time, time])
                self._n_events += 1
        return found

    def find(self, hi: Words, lo: Words, times: Integers, within_ms: int) -> tuple[Integers, Integers, Integers]:
        """See `EventTable.find`."""
        found = []
        for place, (upper, lower, time) in enumerate(zip(hi.tolist(), lo.tolist(), times.tolist(), strict=True)):
            for other, reference, _, _ in self._events.get((upper, lower), ()):
                if reference > 0 and abs(other - time) <= within_ms:
                    found.append((place, reference, other))
                    break
        columns = np.array(found, dtype=np.int64).reshape(-1, 3)
        return columns[:, 0], columns[:, 1], columns[:, 2]

    def events(self, before_ms: int) -> np.ndarray:
        """See `EventTable.events`."""
        rows = [(*key, *event) for key, known in self._events.items() for event in known if event[3] >= before_ms]
        return np.array(sorted(rows), dtype=EVENT)

    def forget(self, before_ms: int) -> None:
        """See `EventTable.forget`."""
        if before_ms <= self._before:
            return
        self._before = before_ms
        kept = {key: [event for event in known if event[3] >= before_ms] for key, known in self._events.items()}
        self._events = {key: known for key, known in kept.items() if known}
        self._n_events = sum(map(len, self._events.values()))
