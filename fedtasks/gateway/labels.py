"""Charges what a task is about to tell a peer of this party's labels."""

from __future__ import annotations

import json
from typing import Any

from fedtasks.errors import ConfigError, FedtasksError
from fedtasks.gateway.base import Base
from fedtasks.gateway.runs import Runs
from fedtasks.label_budget import ALL
from fedtasks.reports.labels import labels_of, limit_in
from fedtasks.store import LabelSpendRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import worker_pb2

_MAX_ITEM = 200


def spend(base: Base, runs: Runs, request: worker_pb2.SpendLabelLeakRequest) -> int:
    """Charge what a task is about to tell of this party's labels; every decision is an audit row.

    Whose labels they are, this party's declaration says, and up to what they may be told the run's ticket, whoever has
    granted it: both parties have signed that.

    Parameters
    ----------
    base, runs
        This party, and its runs.
    request
        Which attempt tells how much of what.

    Returns
    -------
    int
        What the peer was told of these labels in all, in millionths of a nat.

    Raises
    ------
    AttemptStale, RunEnded, …
        The attempt may not speak.
    TicketRevoked, TicketExpired, …
        With the clause; nothing was charged.
    LabelLeakSpent
        The peer would be told more than the ticket allows; nothing was charged.
    ConfigError
        This party has no label in this run, or what is told has no usable name or amount.
    """
    store, party, item = base.store, base.party.name, plain_text(request.item, _MAX_ITEM)
    facts: dict[str, Any] = {"run_id": request.run_id, "task": request.task, "attempt": request.attempt}
    facts |= {"item": item, "epsilon": request.epsilon}
    try:
        if not item or item != request.item:
            raise ConfigError(f"expected 1 to {_MAX_ITEM} printable characters", field="item")
        if not 0 <= request.epsilon <= ALL:
            raise ConfigError(f"expected 0 to {ALL:,} millionths of a nat", field="epsilon")
        run, _half = runs.require_attempt(request.run_id, request.task, request.attempt)
        labels = labels_of(base.party, run.peer, json.loads(run.config_json))
        if labels is None:
            raise ConfigError(f"{party}'s dataset of this run has no label", field="label", where=run.run_id)
        facts |= {"ticket": run.ticket_id, **vars(labels)}
        percent = limit_in(base.tickets.in_force(run.ticket_id))
        row = LabelSpendRow(labels, item, request.epsilon, run.run_id, request.task)
        spent = store.label_spends.spend(row, percent)
    except FedtasksError as error:
        store.audit.add(party, "labels.spend", "refused", **facts, code=error.code)
        raise
    store.audit.add(party, "labels.spend", "allowed", **facts, spent=spent)
    return spent
