"""Whether a ticket of this party covers a run: asked when it opens, and when the peer lets it go on after its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedtasks.gateway.base import Base
from fedtasks.store import RunCharge
from fedtasks.store.runs import RUNS
from fedtasks.tickets import DatasetScope, Grant, Per, check_request, request_of
from fedtasks.tickets.clauses import counting


def require_covered(
    base: Base, peer: str, ticket_id: str, pipeline: str, config: Mapping[str, Any], step_kinds: Mapping[str, str]
) -> Grant:
    """Check all of a ticket but what is counted; returns what it grants.

    Parameters
    ----------
    base
        This party, as its gateway has read it.
    peer, ticket_id, pipeline
        Who asks, under which ticket, for what.
    config, step_kinds
        The shared configuration of the run; step → its kind.

    Raises
    ------
    TicketMissing, TicketRevoked, TicketExpired, TicketScope, FloorViolated, …
        With the clause.
    ConfigError
        The configuration names no dataset of this party, or settings that are not valid.
    """
    grant = base.tickets.granted(peer, ticket_id, pipeline)
    known = {
        dataset.name: DatasetScope(dataset.name, dataset.schema_digest, tuple(dataset.features))
        for dataset in base.party.datasets
    }
    asked = request_of(
        config, grantor=grant.grantor, holder=peer, pipeline=pipeline, datasets=known, step_kinds=step_kinds
    )
    check_request(grant, asked, base.clock() / 1000)
    return grant


def charge_of(grant: Grant) -> RunCharge:
    """Return within which limits a ticket lets one more run go on."""
    return RunCharge(*grant.budget(RUNS), grant.bound(counting(RUNS)[Per.NOW].name))


def declaration_of(base: Base, config: Mapping[str, Any]) -> str:
    """Return the digest of this party's dataset in a run as the gateway has read it; empty if it declares none."""
    named = config.get("datasets")
    name = named.get(base.party.name) if isinstance(named, Mapping) else None
    return next((each.declaration_digest for each in base.party.datasets if each.name == name), "")
