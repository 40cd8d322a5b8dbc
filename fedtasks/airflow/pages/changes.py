"""What the pages may change; every change goes through this party's gateway, which alone holds the keys."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from fedtasks import tickets
from fedtasks.airflow.pages.answers import PlainRoute
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.rights import APPROVE, CHANGE_PARTY, CHANGE_RUNS, INTENT, User, require_change_of
from fedtasks.errors import ModelUnknown, RunUnknown
from fedtasks.reports.tickets import terms
from fedtasks.wire.v1 import ticket_pb2, worker_pb2

MAX_TEXT = 500

MAX_CLAUSES = 200
MAX_COLUMNS = 1000

Name = Annotated[str, Field(min_length=1, max_length=128)]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Body(BaseModel):
    """A change's body: these fields and no other."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Revocation(Body):
    """A ticket to be withdrawn."""

    ticket_id: Name
    reason: Reason


class Declination(Body):
    """A ticket that a peer offers and that this party does not want."""

    ticket_id: Name
    reason: Reason


class Acceptance(Body):
    """A ticket that a peer offers and that this party counter-signs."""

    ticket_id: Name


class Granting(Body):
    """A ticket for a peer that has asked for one: whom, for which pipelines and as what, the request says."""

    request_id: Name
    dataset: Annotated[str, Field(min_length=1, max_length=64)]
    columns: Annotated[list[Name], Field(max_length=MAX_COLUMNS)]
    days: Annotated[int, Field(ge=1, le=3650)]
    approval: Literal["automatic", "person"]
    bounds: Annotated[dict[Name, int | str | list[Name] | None], Field(max_length=MAX_CLAUSES)]


class Refusal(Body):
    """A request for a ticket to which this party says no."""

    request_id: Name
    reason: Reason


class TicketRequest(Body):
    """A ticket that the peer is asked for."""

    peer: Name
    pipelines: Annotated[list[Name], Field(min_length=1, max_length=20)]
    dataset: Annotated[str, Field(max_length=64)] = ""
    role: Literal["leader", "follower"]
    days: Annotated[int, Field(ge=1, le=3650)]
    reason: Reason


class Preflight(Body):
    """A peer to be looked at, for one pipeline or for its connection alone."""

    peer: Name
    pipeline: Annotated[str, Field(max_length=64)] = ""


class Cancellation(Body):
    """A run to be ended."""

    run_id: Name
    reason: Reason


class Champion(Body):
    """A version of a model to be put into use."""

    model: Name
    version: Annotated[int, Field(ge=1)]
    reason: Reason


def change_routes(own: OwnParty) -> APIRouter:
    """Return the routes of the pages' API that change something."""
    routes = APIRouter(route_class=PlainRoute)

    @routes.post("/tickets/revoke", dependencies=[CHANGE_PARTY, INTENT])
    def revoke(body: Revocation, user: User) -> dict[str, Any]:
        with own.gateway() as gateway:
            gateway.revoke_ticket(body.ticket_id, body.reason, actor=user.get_name())
        return {"ticket_id": body.ticket_id, "state": "revoked"}

    @routes.post("/tickets/decline", dependencies=[CHANGE_PARTY, INTENT])
    def decline(body: Declination, user: User) -> dict[str, Any]:
        with own.gateway() as gateway:
            gateway.decline_ticket(body.ticket_id, body.reason, actor=user.get_name())
        return {"ticket_id": body.ticket_id, "state": "declined"}

    @routes.post("/tickets/accept", dependencies=[CHANGE_PARTY, APPROVE, INTENT])
    def accept(body: Acceptance, user: User) -> dict[str, Any]:
        with own.gateway() as gateway:
            gateway.accept_ticket(body.ticket_id, actor=user.get_name())
        return {"ticket_id": body.ticket_id, "state": "accepted"}

    @routes.post("/tickets/draft", dependencies=[CHANGE_PARTY, APPROVE, INTENT])
    def draft(body: Granting) -> dict[str, Any]:
        asked = own.ticket_request(body.request_id)
        grant = tickets.offer(
            own.party,
            to=asked.peer,
            dataset=body.dataset,
            columns=body.columns,
            pipelines=asked.asked["pipelines"],
            roles=(asked.asked["role"],),
            now_s=own.now_ms() // 1000,
            days=body.days,
            approval=body.approval,
            bounds=body.bounds,
        )
        return {"terms": terms(grant), "warnings": list(grant.warnings)}

    @routes.post("/tickets/grant", dependencies=[CHANGE_PARTY, APPROVE, INTENT])
    def grant(body: Granting, user: User) -> dict[str, Any]:
        named = worker_pb2.GrantTicketRequest(
            request_id=body.request_id,
            dataset=body.dataset,
            columns=body.columns,
            days=body.days,
            approval=body.approval,
            bounds_json=json.dumps(body.bounds),
            actor=user.get_name(),
        )
        with own.gateway() as gateway:
            ticket_id = gateway.grant_ticket(named)
        return {"ticket_id": ticket_id, "state": "issued"}

    @routes.post("/tickets/refuse", dependencies=[CHANGE_PARTY, INTENT])
    def refuse(body: Refusal, user: User) -> dict[str, Any]:
        with own.gateway() as gateway:
            gateway.decline_request(body.request_id, body.reason, actor=user.get_name())
        return {"request_id": body.request_id, "state": "declined"}

    @routes.post("/tickets/request", dependencies=[CHANGE_PARTY, INTENT])
    def request_ticket(body: TicketRequest, user: User) -> dict[str, Any]:
        asked = ticket_pb2.TicketRequest(
            pipelines=body.pipelines, dataset=body.dataset, role=body.role, days=body.days, reason=body.reason
        )
        with own.gateway() as gateway:
            request_id = gateway.request_ticket(body.peer, asked, actor=user.get_name())
        return {"request_id": request_id, "state": "open"}

    @routes.post("/peers/preflight", dependencies=[CHANGE_RUNS, INTENT])
    def preflight(body: Preflight) -> dict[str, Any]:
        with own.gateway() as gateway:
            checks = gateway.preflight(body.peer, body.pipeline)
        plain = [{"name": check.name, "ok": check.ok, "code": check.code, "text": check.text} for check in checks]
        return {"peer": body.peer, "checks": plain, "checked_ms": own.now_ms()}

    @routes.post("/run/cancel", dependencies=[CHANGE_RUNS, INTENT])
    def cancel(body: Cancellation, request: Request, user: User) -> dict[str, Any]:
        run = own.store.runs.get(body.run_id)
        if run is None:
            raise RunUnknown(f"run `{body.run_id}` is not known to {own.name}")
        require_change_of(run.dag_id, request, user)
        with own.gateway() as gateway:
            gateway.cancel_run(run.run_id, f"{user.get_name()}: {body.reason}")
        return {"run_id": run.run_id, "state": "failed"}

    @routes.post("/models/champion", dependencies=[CHANGE_RUNS, INTENT])
    def change_champion(body: Champion, request: Request, user: User) -> dict[str, Any]:
        version = own.store.models.get(body.model, body.version)
        run = own.store.runs.get(version.run_id) if version is not None else None
        if run is None:
            raise ModelUnknown(model=body.model, version=body.version)
        require_change_of(run.dag_id, request, user)
        with own.gateway() as gateway:
            gateway.change_champion(body.model, body.version, body.reason, actor=user.get_name())
        return {"model": body.model, "version": body.version, "champion": True}

    return routes
