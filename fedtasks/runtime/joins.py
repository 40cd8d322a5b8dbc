"""What a half of a streaming join commits, as its context takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class JoinCommitted:
    """The last commit of a shard.

    Parameters
    ----------
    number
        1, 2, 3, …, equal on both sides.
    digest
        Of the order of rows, 64 hexadecimal digits; equal on both sides.
    """

    number: int
    digest: str


@dataclass(frozen=True)
class JoinWindow:
    """What a commit adds to what is known of this party's rows of one window of event time.

    Parameters
    ----------
    start_ms
        Where the window begins.
    joined
        Rows that this commit has joined in time.
    corrected
        Rows that it has joined late, in a correction block.
    late, too_late
        Rows that came later than the lateness, and those that came too late for a correction, or without corrections.
    unmatched
        Rows of which it is decided that none of the peer's belongs to them.
    duplicates, rejected
        Rows of an id that was there before, and rows without a usable id or time: those without a time count where the
        newest row before them lies.
    lag_ms
        Of all rows joined and corrected together: how long after its event time each was committed.
    """

    start_ms: int
    joined: int = 0
    corrected: int = 0
    late: int = 0
    too_late: int = 0
    unmatched: int = 0
    duplicates: int = 0
    rejected: int = 0
    lag_ms: int = 0

    def __add__(self, other: JoinWindow) -> JoinWindow:
        """Add the counts of the same window; raise `ValueError` if it is another one."""
        if other.start_ms != self.start_ms:
            raise ValueError("windows that begin at different times do not add up")
        return JoinWindow(self.start_ms, *(getattr(self, name) + getattr(other, name) for name in COUNTS))


COUNTS = tuple(field.name for field in fields(JoinWindow) if field.name != "start_ms")
"""What is counted of a window."""
