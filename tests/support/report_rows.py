"""Rows of a store as two gateways would have left them, and a clock that a test sets."""

from __future__ import annotations

import json
from typing import Any

from fedtasks import tickets
from fedtasks.store import HalfRow, RunRow, Store, TicketRow

NOW_MS = 1_764_000_000_000
RUN_ID = "credit.2026-11-21.1"


class Clock:
    """A clock that a test sets."""

    now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def make_run(number: int = 1, **changes: Any) -> RunRow:
    """Return a run of the bank's, which leads, with the shop."""
    config = {"leader": "bank", "datasets": {}, "steps": {"psi": {"learns": "both"}, "train": {"epochs": 3}}}
    steps = [{"name": name, "digest": ""} for name in ("psi", "align", "train")]
    values: dict[str, Any] = {
        "run_id": f"credit.2026-11-21.{number}",
        "pipeline": "credit",
        "partition": "2026-11-21",
        "number": number,
        "peer": "shop",
        "initiated": True,
        "ticket_id": "t-1",
        "config_digest": "",
        "config_json": json.dumps(config),
        "steps_json": json.dumps(steps),
        "dag_id": "credit",
        "dag_run_id": f"manual-{number}",
        "opened_ms": NOW_MS + number,
    }
    return RunRow(**(values | changes))


def make_half(task: str, state: str, *, own: bool = True, **changes: Any) -> HalfRow:
    """Return a half of the run."""
    values: dict[str, Any] = {"run_id": RUN_ID, "attempt": 1, "since_ms": NOW_MS}
    return HalfRow(task=task, own=own, state=state, **(values | changes))


def put_ticket(store: Store, *, granted: bool = False, accepted: bool = True, **changes: Any) -> tickets.Grant:
    """Keep a ticket that the shop has granted to the bank, or the bank to the shop."""
    grantor, holder = ("bank", "shop") if granted else ("shop", "bank")
    values: dict[str, Any] = {
        "ticket_id": "t-1",
        "grantor": grantor,
        "holder": holder,
        "datasets": (tickets.DatasetScope("customers", "0" * 64, ("age",)),),
        "pipelines": ("credit",),
        "roles": ("leader",),
        "not_before_s": NOW_MS // 1000 - 10,
        "expires_s": NOW_MS // 1000 + 30 * 86_400,
        "limits": {"runs": 10, "concurrent_runs": 2, "epochs": 5, "ids_blinded": 1000, "ids_blinded_per_day": 100},
    }
    grant = tickets.Grant(**(values | changes))
    text = tickets.issue(grant, tickets.generate_ticket_key())
    accepted_text = "signed" if accepted else None
    store.tickets.put(TicketRow(grant.ticket_id, "shop", granted, text, accepted_text, None, NOW_MS, True))
    return grant
