"""The peers as this party knows them: how they are, whether a run could start, which tickets were asked for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from fedtasks import __version__
from fedtasks.clock import DAY_MS
from fedtasks.config import NAME, PIPELINE
from fedtasks.errors import (
    AirflowIncomplete,
    AirflowUnreachable,
    CertificateEnds,
    ClockSkew,
    ConfigError,
    FedtasksError,
    LabelLeakSpent,
    PeerAirflowUnreachable,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.locks import Locks
from fedtasks.gateway.messages import failure_row
from fedtasks.identity import valid_until
from fedtasks.label_budget import limit_of
from fedtasks.names import parts_of
from fedtasks.reports.airflow_parts import said
from fedtasks.reports.labels import in_words, limit_in
from fedtasks.reports.tickets import readable
from fedtasks.store import PeerRow, TicketRequestRow
from fedtasks.text import MAX_TEXT, plain_text
from fedtasks.wire.v1 import peer_pb2, run_pb2, ticket_pb2, worker_pb2

log = logging.getLogger(__name__)

SEEN_EVERY_MS = 15_000
"""How often a peer that has not changed is said to have been looked at."""

RENEW_MS = 14 * DAY_MS
"""A certificate with less time left is complained of."""

MAX_OPEN_REQUESTS = 20
"""So many tickets one peer may ask for before a person has answered."""

MAX_PIPELINES = 20

_DAG_STATES = {
    "PEER_DAG_MISSING": "is not deployed in",
    "PEER_DAG_BROKEN": "has import errors in",
    "PEER_PAUSED": "is paused in",
}


class Preflights:
    """Keeps the peers' rows of the store current, and asks and answers what precedes a run.

    Parameters
    ----------
    base
        This party, its Airflow and its connections.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._airflow, self._connections, self._clock = base.airflow, base.connections, base.clock
        self._ledger = base.ledger
        self._last: dict[str, PeerRow] = {}
        self._answering = Locks()
        # Requests are counted before one is kept.
        self._keeping = threading.Lock()

    # ------------------------------------------------------------------------------------------------------- looking
    async def look(self) -> None:
        """Write down how each peer is, if that is news or was last said a while ago."""
        for name, connection in self._connections.items():
            row, last = self._seen(name, connection), self._last.get(name)
            if last is None or row.seen_ms - last.seen_ms >= SEEN_EVERY_MS or _state(row) != _state(last):
                await asyncio.to_thread(self._store.peers.put_state, row)
                self._last[name] = row
        await asyncio.to_thread(self._settle_requests)

    def _seen(self, name: str, connection: PeerConnection) -> PeerRow:
        failure = connection.complaint
        row = failure_row(failure, name, "", connection.since_ms, private=True) if failure else None
        return PeerRow(
            name,
            connection.is_connected,
            connection.version,
            connection.clock_skew_s,
            row,
            connection.since_ms,
            self._clock(),
        )

    # ----------------------------------------------------------------------------------------------------- preflight
    async def preflight(self, request: worker_pb2.PreflightRequest) -> list[run_pb2.Check]:
        """Look whether a run with a peer could start now, and keep what was found.

        Raises
        ------
        PeerUnknown
            The peer is not in party.yaml.

        Notes
        -----
        Reveals: to the peer, that somebody looks, and at which pipeline.
        """
        self._base.connection(request.peer)
        checks = [check async for check in self._checks(request.peer, request.pipeline)]
        plain = [{"name": check.name, "ok": check.ok, "code": check.code, "text": check.text} for check in checks]
        row = self._seen(request.peer, self._connections[request.peer])
        await asyncio.to_thread(self._store.peers.put_checks, replace(row, checks=plain, checked_ms=self._clock()))
        return checks

    async def _checks(self, peer: str, pipeline: str) -> AsyncIterator[run_pb2.Check]:
        connection = self._connections[peer]
        for check in self._connection_checks(peer, connection):
            yield check
        async for check in self._local_checks(peer, pipeline):
            yield _of(self._party.name, check)
        if pipeline:
            for check in await asyncio.to_thread(lambda: list(self._label_checks(peer, pipeline))):
                yield _of(self._party.name, check)
        if silent := said(self._base.health.silent, self._party.name):
            yield _of(self._party.name, _check("Airflow", silent, AirflowIncomplete()))
        if not connection.is_connected:
            return
        try:
            answer = await connection.request(preflight=peer_pb2.Preflight(pipeline=pipeline))
        except FedtasksError as error:
            yield _check("answer", error.detail or error.public, error)
            return
        for check in answer.preflight_report.checks:
            yield _of(
                peer,
                run_pb2.Check(
                    name=plain_text(check.name, 32),
                    ok=check.ok,
                    code=plain_text(check.code, 64),
                    text=plain_text(check.text),
                ),
            )

    def _connection_checks(self, peer: str, connection: PeerConnection) -> Iterator[run_pb2.Check]:
        failure = connection.failure
        if failure is not None:
            yield _check("connection", failure.detail or failure.public, failure)
            return
        yield _check("connection", f"the gateways are connected, {'dialled' if connection.dialled else 'accepted'}")
        yield _check("version", f"{self._party.name} {__version__}, {peer} {connection.version}")
        skew_s, allowed_s = connection.clock_skew_s, self._base.party.max_clock_skew_s
        text = f"the clocks differ by {abs(skew_s):.1f} s, allowed are {allowed_s:.0f} s"
        yield _check("clock", text, ClockSkew() if abs(skew_s) > allowed_s else None)

    async def answer(self, peer: str, request: peer_pb2.Preflight) -> peer_pb2.PreflightReport:
        """Say whether a run could start here; to each peer once at a time.

        Notes
        -----
        Reveals: how long the certificate, which the peer sees anyway, is valid; of a pipeline that a ticket in force
        joins both parties in, whether its DAG is there and a part of this Airflow does not run, not which; of any other
        pipeline nothing.
        """
        async with self._answering.hold(peer):
            checks = [check async for check in self._local_checks(peer, request.pipeline)]
        return peer_pb2.PreflightReport(checks=checks)

    async def _local_checks(self, peer: str, pipeline: str) -> AsyncIterator[run_pb2.Check]:
        left_ms = valid_until(self._party.gateway.certificate) - self._clock()
        text = f"the gateway's certificate is valid for {max(0, left_ms) // DAY_MS} more days"
        yield _check("certificate", text, CertificateEnds() if left_ms < RENEW_MS else None)
        if not pipeline:
            return
        try:
            await asyncio.to_thread(self._tickets.require_any, peer, pipeline)
        except FedtasksError as error:
            yield _check("ticket", error.public, error)
            return
        yield _check("ticket", "a ticket in force covers this pipeline")
        dag_id, _ = parts_of(pipeline)
        try:
            await self._airflow.require_ready(dag_id)
            if self._base.health.silent:
                raise PeerAirflowUnreachable(f"a part of {self._party.name}'s Airflow does not run")
        except PeerAirflowUnreachable as error:
            yield _check("DAG", error.detail, error)
        except AirflowUnreachable:
            unreachable = PeerAirflowUnreachable()
            yield _check("DAG", f"the gateway of {self._party.name} cannot reach its Airflow", unreachable)
        except FedtasksError as error:
            state = _DAG_STATES.get(error.code, "is not ready in")
            yield _check("DAG", f"{dag_id} {state} {self._party.name}'s Airflow", error)
        else:
            yield _check("DAG", f"{dag_id} would start at once in {self._party.name}'s Airflow")

    def _label_checks(self, peer: str, pipeline: str) -> Iterator[run_pb2.Check]:
        """Say of each column of labels that a peer was told of how much the tickets for a pipeline leave."""
        held, granted = self._tickets.held_now(peer), self._tickets.granted_now(peer)
        grants = [grant for grant in (*held, *granted) if pipeline in grant.pipelines]
        for told in self._store.label_spends.list():
            if told.labels.peer != peer:
                continue
            limits = [limit_of(limit_in(grant)) for grant in grants]
            is_spent = bool(limits) and all(limit is not None and told.epsilon >= limit for limit in limits)
            yield _check("labels", in_words(told), LabelLeakSpent() if is_spent else None)

    # ------------------------------------------------------------------------------------------------ ticket requests
    async def request_ticket(self, request: worker_pb2.RequestTicketRequest) -> str:
        """Ask a peer for a ticket; a person there decides. Returns the request's name.

        Raises
        ------
        PeerUnknown, ConfigError
            Nobody can be asked for that.
        PeerUnreachable
            The peer does not answer; nothing was asked.
        """
        self._base.connection(request.peer)
        asked = request.request
        row = self._row(request.peer, asked, own=True)
        await self._connections[request.peer].request(ticket_request=asked)
        await asyncio.to_thread(self._keep_request, row, plain_text(request.actor, 128) or self._party.name)
        return str(asked.request_id)

    async def learn_request(self, peer: str, asked: ticket_pb2.TicketRequest) -> None:
        """Keep what a peer asks for; what it says is data, to be shown as plain text."""
        row = self._row(peer, asked, own=False)
        await asyncio.to_thread(self._keep_request, row, peer)

    def _row(self, peer: str, asked: ticket_pb2.TicketRequest, *, own: bool) -> TicketRequestRow:
        """Check a request, whoever makes it."""
        if not 0 < len(asked.pipelines) <= MAX_PIPELINES or not all(map(PIPELINE.fullmatch, asked.pipelines)):
            raise ConfigError(f"name 1 to {MAX_PIPELINES} pipelines", field="pipelines")
        if asked.dataset and not NAME.fullmatch(asked.dataset):
            raise ConfigError("the dataset's name is not a plain name", field="dataset")
        if asked.role not in ("leader", "follower"):
            raise ConfigError("expected leader or follower", field="role")
        if not 0 < asked.days <= 3650:
            raise ConfigError("expected 1 to 3650 days", field="days")
        if not asked.request_id or not NAME.fullmatch(f"r{asked.request_id[:64]}"):
            raise ConfigError("the request's name is not a plain name", field="request_id")
        if len(asked.reason) > MAX_TEXT:
            raise ConfigError(f"longer than {MAX_TEXT} characters", field="reason")
        plain = {
            "pipelines": list(asked.pipelines),
            "dataset": asked.dataset,
            "role": asked.role,
            "days": asked.days,
            "reason": plain_text(asked.reason),
        }
        return TicketRequestRow(asked.request_id, peer, own, plain, "open", self._clock())

    def _keep_request(self, row: TicketRequestRow, actor: str) -> None:
        with self._keeping:
            known = self._store.ticket_requests.list()
            if any(each.request_id == row.request_id for each in known):
                return  # said again
            waiting = [each for each in known if each.peer == row.peer and not each.own and each.state == "open"]
            if not row.own and len(waiting) >= MAX_OPEN_REQUESTS:
                raise ConfigError(f"{MAX_OPEN_REQUESTS} requests wait for an answer already", field="ticket_request")
            self._store.ticket_requests.add(row)
            facts = {"request": row.request_id, "peer": row.peer, **row.asked}
            self._ledger.add(actor, "ticket.requested", "noted", **facts)

    def _settle_requests(self) -> None:
        """A request is granted when a ticket that covers it has come to be since."""
        for request in self._store.ticket_requests.list():
            if request.state != "open":
                continue
            rows = self._store.tickets.list(peer=request.peer, granted=not request.own)
            granted = (grant for row, grant in readable(rows) if row.issued_ms >= request.at_ms)
            if any(set(request.asked["pipelines"]) <= set(grant.pipelines) for grant in granted):
                self._store.ticket_requests.settle(request.request_id, "granted")


def _state(row: PeerRow) -> tuple[object, ...]:
    return row.connected, row.version, row.clock_skew_s, row.failure, row.since_ms


def _check(name: str, text: str, error: FedtasksError | None = None) -> run_pb2.Check:
    return run_pb2.Check(name=name, ok=error is None, code=error.code if error else "", text=plain_text(text))


def _of(party: str, check: run_pb2.Check) -> run_pb2.Check:
    return run_pb2.Check(name=f"{party}: {check.name}", ok=check.ok, code=check.code, text=check.text)
