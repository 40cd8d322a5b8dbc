"""Refuses what a ticket does not cover, naming the clause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedtasks.errors import TicketExpired, TicketNotYetValid, TicketScope
from fedtasks.tickets.asked import Asked, Request
from fedtasks.tickets.clauses import Clause, clauses
from fedtasks.tickets.grant import DatasetScope, Grant


def check_request(grant: Grant, request: Request, now_s: float) -> None:
    """Refuse what a ticket does not cover.

    Raises
    ------
    TicketNotYetValid, TicketExpired
        Outside the time window.
    TicketScope, FloorViolated
        The field ``clause`` names what refused; ``asked`` and ``allowed`` are safe to show to the holder.

    Notes
    -----
    What is counted over several runs (runs, ids) is the store's part.
    """
    check_window(grant, now_s)
    _require(request.holder == grant.holder, "holder", request.holder, grant.holder)
    _require(request.pipeline in grant.pipelines, "pipelines", request.pipeline, " ".join(grant.pipelines))
    _check_dataset(grant, request)
    _require(request.holder_role in grant.roles, "roles", request.holder_role, " ".join(grant.roles))
    check_settings(grant.bounds, request.settings)


def check_lookup(
    grant: Grant, *, pipeline: str, dataset: str, schema_digest: str, answers: Iterable[Asked], now_s: float
) -> None:
    """Refuse a live lookup that a ticket does not cover.

    Parameters
    ----------
    pipeline
        The one that the ticket must name.
    dataset, schema_digest
        Which of the grantor's datasets, as it is now.
    answers
        What the grantor's own service would answer with.

    Raises
    ------
    TicketNotYetValid, TicketExpired, TicketScope
        As `check_request`.
    """
    check_window(grant, now_s)
    _require(pipeline in grant.pipelines, "pipelines", pipeline, " ".join(grant.pipelines))
    _require_schema(grant, dataset, schema_digest)
    check_settings(grant.bounds, answers)


def check_settings(bounds: Mapping[str, Any], settings: Iterable[Asked]) -> None:
    """Refuse settings beyond the bounds of a ticket; the gateway and the worker of a task both ask here.

    Parameters
    ----------
    bounds
        Clause → bound; a clause that is not named has its default.
    settings
        What is asked for.

    Raises
    ------
    TicketScope, FloorViolated
        The first one that is beyond its bound, or that a step names without being of a kind that declares it.
    """
    known = clauses()
    for asked in settings:
        clause = known[asked.clause]
        bound = clause.bound_in(bounds)
        facts = {"clause": clause.name, "setting": f"{asked.step}.{asked.setting}", "allowed": clause.allowed(bound)}
        if not asked.is_declared and clause.demands(bound):
            text = f"`{asked.setting}` is bounded, and step `{asked.step}` is of no kind that declares it"
            raise clause.refusal(text, asked="a setting of a step of no known kind", **facts)
        if asked.is_declared and not clause.permits(bound, asked.value):
            raise clause.refusal(asked=_shown(clause, bound, asked.value), **facts)


def check_window(grant: Grant, now_s: float) -> None:
    """Refuse a ticket before or after its time.

    Raises
    ------
    TicketNotYetValid, TicketExpired
        With the bound that was passed.
    """
    if now_s < grant.not_before_s:
        raise TicketNotYetValid(clause="not_before_s", asked=int(now_s), allowed=grant.not_before_s)
    if now_s >= grant.expires_s:
        raise TicketExpired(clause="expires_s", asked=int(now_s), allowed=grant.expires_s)


def _shown(clause: Clause, bound: Any, value: Any) -> str:
    """Return what was asked for; the holder has no right to the names of columns that were not granted."""
    return f"{len(set(value) - set(bound))} other" if clause.only_with else str(value)


def _check_dataset(grant: Grant, request: Request) -> None:
    scope = _require_schema(grant, request.grantor_dataset, request.schema_digest)
    granted = set(scope.columns)
    others = [column for column in request.columns if column not in granted]
    if others:
        # The holder has no right to the names of columns that were not granted.
        raise TicketScope(
            f"columns outside the ticket: {' '.join(others)}",
            clause=f"datasets.{scope.name}.columns",
            asked=f"{len(others)} other",
            allowed=" ".join(scope.columns),
        )


def _require_schema(grant: Grant, dataset: str, schema_digest: str) -> DatasetScope:
    scopes = {scope.name: scope for scope in grant.datasets}
    scope = scopes.get(dataset)
    if scope is None:
        raise TicketScope(clause="datasets", asked=dataset, allowed=" ".join(scopes))
    same_schema = schema_digest == scope.schema_digest
    _require(same_schema, f"datasets.{scope.name}.schema", schema_digest[:12] or "none", scope.schema_digest[:12])
    return scope


def _require(condition: bool, clause: str, asked: object, allowed: object) -> None:
    if not condition:
        raise TicketScope(clause=clause, asked=asked, allowed=allowed)
