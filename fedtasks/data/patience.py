"""How long a remote store is waited for, and how often it is asked again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """What bounds every wait for a remote store.

    Parameters
    ----------
    connect_s
        How long a connection may take.
    answer_s
        How long a server that has been asked may say nothing.
    patience_s
        How long an operation is tried again since it last made progress.
    pause_s
        How long to wait between two tries.
    refusals
        How often a server that refuses, though it had been named by another to serve, is asked again.
    """

    connect_s: float = 10.0
    answer_s: float = 30.0
    patience_s: float = 120.0
    pause_s: float = 1.0
    refusals: int = 5


LIMITS = Limits()
"""Those of this process."""


@contextmanager
def at_most(patience_s: float) -> Iterator[None]:
    """Be less patient in a block, in the whole process: somebody sits and waits."""
    global LIMITS
    before = LIMITS
    LIMITS = replace(before, patience_s=patience_s, answer_s=min(before.answer_s, patience_s))
    try:
        yield
    finally:
        LIMITS = before


class Patience:
    """The patience that is left for one operation."""

    def __init__(self) -> None:
        self._refused = 0
        self.renew()

    def renew(self) -> None:
        """Begin anew: there has been progress."""
        self._deadline = time.monotonic() + LIMITS.patience_s

    def wait(self, *, refused: bool = False) -> bool:
        """Wait for the next try, or return False if there shall be none.

        Parameters
        ----------
        refused
            Whether the store has answered that it will not: that passes soon or never.
        """
        if not self.lasts(refused=refused):
            return False
        time.sleep(LIMITS.pause_s)
        return True

    def lasts(self, *, refused: bool = False) -> bool:
        """Return what `wait` does, and leave the waiting to the caller."""
        self._refused += refused
        return time.monotonic() <= self._deadline and self._refused <= LIMITS.refusals
