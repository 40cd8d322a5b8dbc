"""Whether this party's gateway runs with party.yaml as it is now; said by whoever reports, in the same words."""

from __future__ import annotations

from fedtasks.checks import Finding, Verdict
from fedtasks.errors import GatewayOutdated
from fedtasks.store import Store

READ_AGAIN = "gateway.config"
"""The action under which the audit remembers how party.yaml stands against what the gateway runs with."""


def outdated(store: Store) -> Finding | None:
    """Return why the gateway does not run with all of party.yaml, as it has said last; None if it does."""
    row = next(iter(store.audit.list(action=READ_AGAIN, limit=1)), None)
    fields, problem = (row.detail["restart_for"], str(row.detail["problem"])) if row else ([], "")
    if problem:
        text = f"{problem}; the gateway goes on with what it has read before"
        return Finding("party.yaml", Verdict.WRONG, text, "Correct party.yaml")
    if fields:
        named = ", ".join(f"`{field}`" for field in fields)
        text = f"{GatewayOutdated.code}: {GatewayOutdated.summary}, in {named}"
        return Finding("party.yaml", Verdict.WARNING, text, GatewayOutdated.advice())
    return None
