"""What goes by a party's policy, part by part; each part knows what of it is in use."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

from fedtasks.config import Keep, Party
from fedtasks.gateway.known_store import require_known
from fedtasks.retention import audit, joined, models, rows, runs, tags
from fedtasks.retention.removal import Removal
from fedtasks.store import Store

log = logging.getLogger(__name__)


def removals(party: Party, store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    """Yield what goes; what one removal lets go of is found after it was carried out, or as if it had been.

    Raises
    ------
    StoreReplaced
        The store is not the one that this party's gateway has served: what is in use cannot be known.
    """
    require_known(party, store)
    given_up = list(models.removals(store, keep, now_ms))
    yield from (removal for _, removal in given_up)
    yield from runs.removals(party.storage, store, keep, now_ms, [version for version, _ in given_up])
    yield from joined.removals(party.storage, store, keep, now_ms)
    yield from tags.removals(party, store, keep, now_ms)
    yield from rows.removals(store, keep, now_ms)
    yield from audit.removals(party, store, keep, now_ms)


def carry_out(party: Party, store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    """Remove what goes and yield each thing once it is gone; the audit keeps how much went.

    Notes
    -----
    A process that ends in the midst leaves nothing half removed that anybody reads: what goes counts no more before its
    files go, and the next process removes what is left.
    """
    gone: dict[str, list[Removal]] = defaultdict(list)
    try:
        for removal in removals(party, store, keep, now_ms):
            removal.carry_out()
            gone[removal.kind].append(removal)
            yield removal
    finally:
        for kind, removed in gone.items():
            facts = {"kind": kind, "removed": len(removed), "bytes": sum(each.n_bytes for each in removed)}
            store.audit.add(party.name, "keep.remove", "noted", **facts, rows=sum(each.n_rows for each in removed))
