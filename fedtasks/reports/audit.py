"""Decisions, and whether their chain is whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fedtasks.clock import utc
from fedtasks.errors import DataCorrupt
from fedtasks.store import AuditFilter, AuditRow, Store, check_chain
from fedtasks.text import printable

MAX_EXPORTED = 10_000
"""So many decisions one export holds, the newest of those that were asked for."""

EXPORTED = ("number", "time (UTC)", "who", "what", "outcome", "facts", "digest")
"""The columns of an export."""

_FORMULA = tuple("=+-@\t\r")


def audit_report(
    store: Store, limit: int, before: int | None = None, where: AuditFilter | None = None
) -> dict[str, Any]:
    """Return decisions, newest first, and whether those shown fit each other; `chain_report` looks at all.

    Parameters
    ----------
    limit
        How many.
    before
        Only rows that come before this one.
    where
        Only these; rows that do not follow each other cannot be compared, so each is checked for itself.
    """
    chosen = where or AuditFilter()
    rows = store.audit.list(limit=limit + 1, before=before, where=chosen)
    more, rows = len(rows) > limit, rows[-limit:]
    return {
        "rows": [{name: value for name, value in asdict(row).items() if name != "previous"} for row in reversed(rows)],
        "more": more,
        "chain": _shown(rows, chosen),
    }


def _shown(rows: Sequence[AuditRow], where: AuditFilter) -> dict[str, Any]:
    """Say whether rows are as they were written, and follow each other where none is left out."""
    if not rows:
        return {"ok": True, "text": "no decisions yet" if where.is_open else "no decision is like that"}
    try:
        if where.is_open:
            check_chain(rows)
            return {"ok": True, "text": f"rows {rows[0].seq}–{rows[-1].seq} fit the chain"}
        for row in rows:
            check_chain([row])
    except DataCorrupt as error:
        return {"ok": False, "text": error.detail}
    return {"ok": True, "text": f"{len(rows)} rows, each as it was written"}


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


def audit_csv(store: Store, where: AuditFilter) -> str:
    """Return decisions as CSV, newest first, at most `MAX_EXPORTED`; no spreadsheet reads a text in it as a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(EXPORTED)
    for row in reversed(store.audit.list(limit=MAX_EXPORTED, where=where)):
        facts = json.dumps(row.detail, ensure_ascii=False, sort_keys=True)
        at = utc(row.at_ms, "%Y-%m-%dT%H:%M:%SZ")
        writer.writerow([row.seq, at, *map(_cell, (row.actor, row.action, row.decision, facts)), row.digest])
    return out.getvalue()


def _cell(text: str) -> str:
    plain = printable(text)
    return f"'{plain}" if plain.startswith(_FORMULA) else plain
