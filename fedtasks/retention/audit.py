"""The beginning of the audit, where a party's policy has it cut off: what is left says so, signed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep, Party
from fedtasks.retention.removal import Removal
from fedtasks.store import Store
from fedtasks.tickets import load_ticket_key, sign_cut


def removals(party: Party, store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    """Yield the decisions that go: the first ones, as far as all are old enough."""
    if keep.audit_days is None:
        return
    before_ms = now_ms - keep.audit_days * DAY_MS
    n_rows = store.audit.total_before(before_ms)
    if n_rows:
        why = f"made more than {keep.audit_days} days ago; what is left says up to where, signed by {party.name}"
        cut = partial(store.audit.cut, party.name, before_ms, partial(_signed, party))
        yield Removal("audit", "decisions at the beginning of the audit", why, cut, n_rows=n_rows)


def _signed(party: Party, said: Mapping[str, Any]) -> str:
    return sign_cut({"iss": party.name, **said}, load_ticket_key(party.gateway.ticket_key))
