"""A ticket as its grantor offers it: what is not said is filled in from this party's party.yaml and the clauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedtasks.clock import DAY_S
from fedtasks.config import Party
from fedtasks.dataclass_io import shown
from fedtasks.errors import ConfigError
from fedtasks.tickets.clauses import Group, clauses
from fedtasks.tickets.grant import DatasetScope, Grant, new_ticket_id


def offer(
    party: Party,
    *,
    to: str,
    dataset: str,
    pipelines: Sequence[str],
    now_s: int,
    days: int = 30,
    columns: Sequence[str] | None = None,
    roles: Sequence[str] = (),
    approval: str = "automatic",
    bounds: Mapping[str, Any] | None = None,
) -> Grant:
    """Return a new ticket of this party's, not signed yet.

    Parameters
    ----------
    party
        Who grants it.
    to
        The peer that may use it.
    dataset, columns
        One of this party's datasets, and which of its features may enter a run; all by default.
    pipelines
        What may run.
    now_s, days
        From when and how long it is valid.
    roles
        What the peer may be; by default leader, or follower where this party holds the label.
    approval
        Who lets a run begin: ``automatic`` or ``person``.
    bounds
        Clause by name, such as ``limits.runs``, → its bound; a clause's default where it is left out.

    Raises
    ------
    PeerUnknown, ConfigError
        Peer or dataset are not in party.yaml, or there is no such clause or bound.
    """
    peer, declared = party.peer(to), party.dataset(dataset)
    said: dict[str, dict[str, Any]] = {group.value: {} for group in Group}
    for name, bound in (bounds or {}).items():
        clause = clauses().get(name)
        if clause is None:
            raise ConfigError(f"no clause is called `{shown(name)}`", field="bounds")
        said[clause.group.value][clause.field] = bound
    return Grant(
        ticket_id=new_ticket_id(),
        grantor=party.name,
        holder=peer.name,
        datasets=(
            DatasetScope(
                declared.name,
                declared.schema_digest,
                tuple(columns) if columns is not None else tuple(declared.features),
            ),
        ),
        pipelines=tuple(pipelines),
        roles=tuple(roles) or ("follower" if declared.label else "leader",),
        not_before_s=now_s,
        expires_s=now_s + days * DAY_S,
        approval=approval,
        **said,
    )
