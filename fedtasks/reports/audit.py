"""Decisions, and whether their chain is whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fedtasks.errors import DataCorrupt
from fedtasks.store import Store, check_chain


def audit_report(store: Store, limit: int, before: int | None = None) -> dict[str, Any]:
    """Return decisions, newest first, and whether those shown fit each other; `chain_report` looks at all.

    Parameters
    ----------
    limit
        How many.
    before
        Only rows that come before this one.
    """
    rows = store.audit.list(limit=limit, before=before)
    try:
        check_chain(rows)
        text = f"rows {rows[0].seq}–{rows[-1].seq} fit the chain" if rows else "no decisions yet"
        chain = {"ok": True, "text": text}
    except DataCorrupt as error:
        chain = {"ok": False, "text": error.detail}
    return {
        "rows": [{name: value for name, value in asdict(row).items() if name != "previous"} for row in reversed(rows)],
        "more": bool(rows) and rows[0].seq > 1,
        "chain": chain,
    }


def chain_report(store: Store) -> dict[str, Any]:
    """Return whether the whole chain is unbroken.

    Notes
    -----
    Cost: reads every decision.
    """
    try:
        store.audit.verify()
    except DataCorrupt as error:
        return {"ok": False, "text": error.detail}
    newest = store.audit.list(limit=1)
    return {"ok": True, "text": f"all {newest[0].seq:,} rows fit the chain" if newest else "no decisions yet"}
