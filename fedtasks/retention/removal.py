"""One thing that goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedtasks.clock import utc


@dataclass(frozen=True)
class Removal:
    """Something that goes because nobody needs it any more.

    Parameters
    ----------
    kind
        What it is, by its name in the section `keep` of party.yaml.
    what
        Which one.
    why
        By which rule.
    carry_out
        Removes it; doing so again, also after only a part was done, has no further effect.
    n_bytes, n_rows
        How much that frees: of the storage, and of the store.
    """

    kind: str
    what: str
    why: str
    carry_out: Callable[[], object]
    n_bytes: int = 0
    n_rows: int = 0


def too_old(what: str, since_ms: float, days: int) -> str:
    """Say that something is older than it may become."""
    return f"{what} on {utc(int(since_ms), '%Y-%m-%d')}, and stays for {days} days"
