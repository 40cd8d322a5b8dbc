"""What this party's store has lost, by what its peers remember."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedtasks.store import Store


@dataclass(frozen=True)
class Loss:
    """What one peer remembers and this store does not.

    Parameters
    ----------
    peer
        Who remembers it.
    text, remedy
        What was lost, and what to do about it.
    at_ms
        When the last of it was found.
    """

    peer: str
    text: str
    remedy: str
    at_ms: int


def losses(store: Store) -> Iterator[Loss]:
    """Yield what each peer remembers of runs that a store does not know, by the peers' names."""
    for peer, (n_runs, at_ms) in sorted(store.lost_runs.by_peer().items()):
        text = f"{peer} remembers {n_runs} {'run' if n_runs == 1 else 'runs'} that this party's store has lost"
        remedy = (
            "Look through the tickets: what was granted is gone since the copy was made, what was revoked may count; "
            "of labels, what those runs may have told is counted only if their pipeline had runs before"
        )
        yield Loss(peer, text, remedy, at_ms)
