"""Notes that Airflow has not taken, so that they are written again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedtasks.clock import DAY_MS

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 2_000, 300_000
"""How long after Airflow has refused a note it is written again, at first and at most."""

MOST = 1_000
"""So many notes are remembered, the newest."""

Place = tuple[str, str, str]
"""DAG, DAG run and pipeline."""


@dataclass
class _Unshown:
    note: str
    at_ms: int
    pause_ms: int = FIRST_PAUSE_MS
    due_ms: int = 0


class UnshownNotes:
    """What has yet to be shown of DAG runs that came to no run; a run's note is compared at every pass anyway."""

    def __init__(self) -> None:
        self._notes: dict[Place, _Unshown] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, place: Place, note: str, now_ms: int) -> None:
        """Remember that Airflow has not taken a note; each time, the pause until it is tried again doubles."""
        known = self._notes.pop(place, None)
        kept = known if known is not None and known.note == note else _Unshown(note, now_ms)
        kept.due_ms = now_ms + kept.pause_ms
        kept.pause_ms = min(2 * kept.pause_ms, LONGEST_PAUSE_MS)
        self._notes[place] = kept
        for oldest in list(self._notes)[: max(0, len(self._notes) - MOST)]:
            del self._notes[oldest]

    def remove(self, place: Place) -> None:
        """Forget a note: it is shown, or something else counts."""
        self._notes.pop(place, None)

    def has(self, place: Place, note: str) -> bool:
        """Return whether this very note has yet to be shown."""
        return place in self._notes and self._notes[place].note == note

    def due(self, now_ms: int) -> Iterator[tuple[Place, str]]:
        """Yield what to try again now; what Airflow has not taken for a day is given up."""
        for place, unshown in list(self._notes.items()):
            if now_ms - unshown.at_ms > DAY_MS:
                del self._notes[place]
            elif unshown.due_ms <= now_ms:
                yield place, unshown.note
