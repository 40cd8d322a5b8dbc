"""Opens runs: asks the peer for them as the initiator, grants or refuses them as the responder."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fedtasks.config import check_partition
from fedtasks.digests import canonical, digest
from fedtasks.errors import (
    AirflowUnreachable,
    ClockSkew,
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    PeerAirflowUnreachable,
    ProtocolViolated,
    RunCancelled,
    RunExists,
    RunUnknown,
    StoreUnavailable,
    from_code,
)
from fedtasks.gateway.airflow_api import TIMEOUT_S
from fedtasks.gateway.asked import check_roles, difference_of, plain_steps, readable_config
from fedtasks.gateway.asker import require_asker
from fedtasks.gateway.base import Base
from fedtasks.gateway.dag_runs import DagRuns
from fedtasks.gateway.locks import Locks
from fedtasks.gateway.messages import check_start, failure_row
from fedtasks.gateway.notes import not_needed, refused
from fedtasks.gateway.openings import Openings
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.scope import charge_of, declaration_of, require_covered
from fedtasks.gateway.wishes import Subject, Wish, Wishes
from fedtasks.names import OPEN_RUN
from fedtasks.reports.labels import labels_of, require_budget
from fedtasks.store import ApprovalRow, RefusalRow, RunRow
from fedtasks.text import plain_text
from fedtasks.tickets import Grant
from fedtasks.wire.v1 import peer_pb2, worker_pb2

log = logging.getLogger(__name__)

START_TIMEOUT_S = 2 * TIMEOUT_S
"""How long the peer may take to start its DAG run."""

CROSSED_S = 5.0
"""How long to wait for the peer's own request where both have crossed; what it refuses may make the other one ask."""

ASK_AGAIN_S = 0.2
"""How long to wait so at first before the peer is asked again, and then twice as long each time."""

MAX_GAP = 1_000
"""How far a run's number may lie above the last one of its initiator that is known here.

An initiator numbers its runs of a partition over all its peers, and some are refused or never arrive.
"""


class Admission:
    """Decides whether a run may begin, once per (pipeline, partition, configuration) of two parties.

    Parameters
    ----------
    base
        This party and its connections.
    runs
        Where a run that may begin is entered.
    dag_runs
        Begin what is granted.

    Notes
    -----
    What both sides ask for at once becomes one run: see `wishes`. What is looked at and decided about a partition
    is so under its lock, which nobody holds while a peer is asked.
    """

    def __init__(self, base: Base, runs: Runs, dag_runs: DagRuns) -> None:
        self._base = base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._airflow, self._connections, self._clock = base.airflow, base.connections, base.clock
        self._runs, self._dag_runs = runs, dag_runs
        self._ledger = base.ledger
        self._locks = Locks()
        self._wishes = Wishes()
        self._opening: dict[bytes, asyncio.Task[worker_pb2.OpenRunResponse]] = {}
        self.openings = Openings(base)

    # ---------------------------------------------------------------------------------------------- as the initiator
    async def open(self, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        """Open the run that a DAG run of this side asks for, or take up the one it was started for.

        Why it was refused, here or by the peer, stands in the DAG run's note, and is kept until the DAG run comes to a
        run after all; a run that is there already tells itself what is wrong.

        What was asked of the peer is brought to its end, whether the caller waits for that or not: else the peer would
        be left with a run that nobody here knows. The same request again waits for the first one.

        Raises
        ------
        FedtasksError
            The refusal. Where asking again can help and the caller does, it is kept as a wait: `openings` knows when.
        """
        key = request.SerializeToString(deterministic=True)
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._open_and_note(request))
            task.add_done_callback(lambda task: self._opened_one(key, task))
        return await asyncio.shield(task)

    def _opened_one(self, key: bytes, task: asyncio.Task[worker_pb2.OpenRunResponse]) -> None:
        del self._opening[key]
        if not task.cancelled():
            task.exception()  # kept and shown already, where the caller has not waited for it

    async def _open_and_note(self, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        try:
            if request.HasField("failure"):
                raise from_code(request.failure.code, plain_text(request.failure.text))
            response = await self._open(request)
        except FedtasksError as error:
            log.warning("run of %s %s is refused: %s", request.pipeline, request.partition, error)
            waits = await self.openings.enter(request, error)
            await self._keep_refusal(request, self._refusal(request, error, waits))
            raise
        self.openings.leave(_place(request))
        self._base.forget_note(*_place(request))
        await asyncio.to_thread(self._store.refusals.remove, *_place(request))
        await self._note_if_not_needed(request, response)
        return response

    async def _keep_refusal(self, request: worker_pb2.OpenRunRequest, refusal: RefusalRow) -> None:
        if request.config_json or request.HasField("failure"):
            try:
                await asyncio.to_thread(self._store.refusals.put, refusal)
            except StoreUnavailable as error:
                log.warning("the refusal could not be kept: %s", error)
        await self._note(request, refused(refusal, self._party.name, self._page(request)))

    async def _note_if_not_needed(
        self, request: worker_pb2.OpenRunRequest, response: worker_pb2.OpenRunResponse
    ) -> None:
        done = response.opening == worker_pb2.OPENING_ALREADY_DONE
        if done or response.opening == worker_pb2.OPENING_ALREADY_RUNNING:
            run = response.run
            peer = run.responder if run.initiator == self._party.name else run.initiator
            await self._note(request, not_needed(run.run_id, peer, self._page(request), done=done))

    async def _note(self, request: worker_pb2.OpenRunRequest, text: str) -> None:
        try:
            await self._base.show_note(*_place(request), text)
        except FedtasksError as error:
            log.warning("the note could not be shown: %s", error)

    def _page(self, request: worker_pb2.OpenRunRequest) -> str:
        return self._airflow.page(request.dag_id, request.dag_run_id)

    def _refusal(
        self, request: worker_pb2.OpenRunRequest, error: FedtasksError, waits: Mapping[str, Any]
    ) -> RefusalRow:
        """Describe why nothing came of a request, or nothing yet."""
        refuser, now = request.peer if error.where == request.peer else self._party.name, self._clock()
        # A field that the peer refuses is one that this party has asked with.
        party = self._party.name if isinstance(error, ConfigError) else refuser
        failure = failure_row(error, party, OPEN_RUN, now, private=True) | {"refuser": refuser, **waits}
        return RefusalRow(*_place(request), request.partition, request.peer, failure, now)

    async def _open(self, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        known = await asyncio.to_thread(self._store.runs.of_dag_run, *_place(request))
        if known is not None and (known.state == "running" or not request.config_json):
            return await self._take_up(known, request)
        if not request.config_json:
            raise RunUnknown("the run that this DAG run was started for is not known", where=request.dag_run_id)
        check_partition(request.partition)
        config = await asyncio.to_thread(self._complete, readable_config(request), request)
        request.config_json = canonical(config)
        subject = Subject(request.peer, request.pipeline, request.partition, digest(config))
        with self._wishes.made(subject, request.dag_id, request.dag_run_id) as wish:
            return await self._fulfil(wish, request)

    async def _take_up(self, run: RunRow, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        """Go on with the run that this DAG run is at, or was started for."""
        if not run.initiated:
            await asyncio.to_thread(self._compare_steps, run, request)
            if not run.triggered:
                await asyncio.to_thread(self._runs.triggered, run.run_id)
        return self._opened(await self._declared(run), worker_pb2.OPENING_RESUMED)

    async def _fulfil(self, wish: Wish, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        """Find the run that a DAG run asks for, or ask the peer for it."""
        until_s, pause_s = asyncio.get_running_loop().time() + START_TIMEOUT_S, ASK_AGAIN_S
        while True:
            async with self._locks.hold(request.pipeline, request.partition):
                found = await self._found(wish, request)
                rival = self._wishes.asked(wish.subject)
                if found is None and rival is None:
                    wish.begin(await asyncio.to_thread(self._next_number, request))
            if found is not None:
                return found
            if rival is not None:  # another DAG run of this party has asked for the same
                await rival.wait_answered()
                continue
            with wish.asking():
                response = await self._ask_or_take_up(wish, request)
            if response is not None:
                return response
            if asyncio.get_running_loop().time() > until_s:
                raise RunExists(f"{request.peer} says that it has asked for the same run, and has not")
            # Its request is on the way, or was refused here a moment ago.
            await wish.wait_heard(pause_s)
            pause_s = min(2 * pause_s, CROSSED_S)

    async def _found(self, wish: Wish, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse | None:
        """Return the run that a DAG run is at meanwhile, or that does or has done the same, whoever has asked."""
        known = await asyncio.to_thread(self._store.runs.of_dag_run, *_place(request))
        if known is not None and known.state == "running":
            return await self._take_up(known, request)
        for run in await self._same(wish.subject):
            if run.state == "running":
                return self._opened(run, worker_pb2.OPENING_ALREADY_RUNNING)
            if run.state == "succeeded" and not request.force:
                return self._opened(run, worker_pb2.OPENING_ALREADY_DONE)
        return None

    async def _same(self, subject: Subject) -> list[RunRow]:
        """Return the runs for one thing, whichever side has initiated them, by number."""
        peer, pipeline, partition, config_digest = subject
        history = await asyncio.to_thread(self._store.runs.of_partition, pipeline, partition)
        return [run for run in history if run.peer == peer and run.config_digest == config_digest]

    def _next_number(self, request: worker_pb2.OpenRunRequest) -> int:
        """Return the lowest number of a partition that this party has neither used nor asks for now."""
        history = self._store.runs.of_partition(request.pipeline, request.partition)
        used = max((run.number for run in history if run.initiated), default=0)
        return 1 + max(used, self._wishes.last_number(request.pipeline, request.partition))

    async def _ask_or_take_up(
        self, wish: Wish, request: worker_pb2.OpenRunRequest
    ) -> worker_pb2.OpenRunResponse | None:
        """Ask the peer; None if it asks for the same itself and its request counts.

        If it refuses, but asks for the same, its own request is what is left: it is looked at now, or was told to
        wait, and is made again.
        """
        try:
            return await self._ask(wish, request)
        except FedtasksError as error:
            if error.where == request.peer:  # what it has asked before it refused may not have been looked at
                await self._base.connection(request.peer).wait_answered(CROSSED_S)
            wish.is_asked = False
            if wish.is_crossed:
                await wish.wait_heard(CROSSED_S)
                found = await self._found(wish, request)
                if found is not None:
                    return found
            raise

    async def _declared(self, run: RunRow) -> RunRow:
        """Return a run that is taken up again, with this party's dataset as the gateway knows it now."""
        return await asyncio.to_thread(self._runs.declare, run.run_id) if run.state == "running" else run

    async def _ask(self, wish: Wish, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse | None:
        connection = self._base.connection(request.peer)
        ticket_id = request.ticket_id = request.ticket_id or await asyncio.to_thread(self._choose_ticket, request)
        await asyncio.to_thread(self._require_own_budget, request)
        await self.openings.require_turn(request)
        start = peer_pb2.StartRun(
            ticket_id=ticket_id,
            pipeline=request.pipeline,
            dag_id=request.dag_id,
            steps=request.steps,
            partition=request.partition,
            config_json=request.config_json,
            force=request.force,
            reason=plain_text(request.reason),
            number=wish.number,
            within_ms=int(1000 * START_TIMEOUT_S),
        )
        started = (await connection.request(START_TIMEOUT_S, start_run=start)).run_started
        if started.crossed:
            return None
        row = self._started_row(start, started, wish)
        if started.already_done:
            return self._opened(row, worker_pb2.OPENING_ALREADY_DONE)
        await asyncio.to_thread(
            self._store.audit.add, self._party.name, "run.open", "noted", run_id=row.run_id, ticket=ticket_id
        )
        grant = self._tickets.held(request.peer, request.pipeline, ticket_id).get(ticket_id)
        approval = _question(row, grant) if grant else None
        row = await asyncio.to_thread(self._runs.create, row, approval)
        return self._opened(row, worker_pb2.OPENING_STARTED)

    def _started_row(self, start: peer_pb2.StartRun, started: peer_pb2.RunStarted, wish: Wish) -> RunRow:
        """Return the run that the peer has started, or has done before, as it is entered here.

        Raises
        ------
        ProtocolViolated, ConfigDiffers
            It is none that this party can have asked for.
        """
        if not 1 <= started.number <= wish.number + MAX_GAP:
            raise ProtocolViolated(field="number", asked=started.number, allowed=wish.number + MAX_GAP)
        # What is done may be a run of the peer that this store has lost.
        initiators = (self._party.name, wish.subject.peer) if started.already_done else (self._party.name,)
        named = (wish.subject.peer, wish.subject.config_digest, started.number)
        rows = [self._row(start, *named, initiator=each, dag_run_id=wish.dag_run_id) for each in initiators]
        found = next((row for row in rows if row.run_id == started.run_id), None)
        if found is None:
            raise ConfigDiffers(field="run_id", ours=rows[0].run_id, theirs=plain_text(started.run_id, 120))
        return found

    def _complete(self, config: dict[str, Any], request: worker_pb2.OpenRunRequest) -> dict[str, Any]:
        """Fill in the peer's dataset where the held tickets leave no choice.

        Raises
        ------
        ConfigError
            Naming the datasets that there are to choose from.
        """
        datasets = config.get("datasets")
        if not isinstance(datasets, dict) or datasets.get(request.peer) or not self._connections.get(request.peer):
            return config
        grants = self._tickets.held(request.peer, request.pipeline, request.ticket_id)
        known = sorted({scope.name for grant in grants.values() for scope in grant.datasets})
        if len(known) > 1:
            raise ConfigError(f"name {request.peer}'s dataset, one of: {', '.join(known)}", field="peer_dataset")
        if not known:
            return config  # the granting side says what is missing, and keeps the record
        return {**config, "datasets": {**datasets, request.peer: known[0]}}

    def _choose_ticket(self, request: worker_pb2.OpenRunRequest) -> str:
        """Return the held ticket that fits best; the granting side decides and keeps the record of a refusal."""
        dataset = json.loads(request.config_json).get("datasets", {}).get(request.peer)
        for ticket_id, grant in self._tickets.held(request.peer, request.pipeline, request.ticket_id).items():
            if dataset in {scope.name for scope in grant.datasets}:
                return ticket_id
        held = self._store.tickets.list(peer=request.peer, granted=False)
        return next((row.ticket_id for row in held if row.acceptance), "")

    def _require_own_budget(self, request: worker_pb2.OpenRunRequest) -> None:
        """Refuse what this party's labels may not be told any more; the peer counts its own."""
        grant = self._tickets.held(request.peer, request.pipeline, request.ticket_id).get(request.ticket_id)
        if grant is not None:  # without one the granting side refuses, and keeps the record
            kinds = {step.name: step.kind for step in request.steps}
            self._require_budget(request.peer, grant, json.loads(request.config_json), kinds)

    def _require_budget(
        self, peer: str, grant: Grant, config: Mapping[str, Any], step_kinds: Mapping[str, str]
    ) -> None:
        labels = labels_of(self._base.party, peer, config)
        require_budget(self._store, labels, grant, config, step_kinds)

    def _compare_steps(self, run: RunRow, request: worker_pb2.OpenRunRequest) -> None:
        """The responder's DAG must have the very steps that the initiator's has."""
        error = difference_of(plain_steps(request.steps), json.loads(run.steps_json))
        if error is not None:
            self._runs.cancel(run.run_id, error)
            raise error

    # ---------------------------------------------------------------------------------------------- as the responder
    async def start(self, peer: str, request: peer_pb2.StartRun) -> peer_pb2.RunStarted:
        """Grant or refuse what `peer` asks for; that it is granted is an audit row, as is every refusal by `Intake`.

        Where a DAG run of this party asks for the same, that one becomes its half of the run, and none is triggered.
        """
        check_start(request)
        config = readable_config(request)
        check_roles(config, peer, self._party.name)
        subject = Subject(peer, request.pipeline, request.partition, digest(config))
        if request.within_ms and (asked := self._wishes.asked(subject)):
            asked.is_crossed = True
        try:
            async with self._locks.hold(request.pipeline, request.partition):
                crossed = await self._crossed(subject, request)
                if crossed is not None:
                    return crossed
                try:
                    started, new = await self._decide(subject, config, request)
                finally:
                    self._wishes.hear(subject)
        except AirflowUnreachable as error:
            raise PeerAirflowUnreachable(error.detail) from error
        facts = {
            "peer": peer,
            "pipeline": request.pipeline,
            "partition": request.partition,
            "ticket": request.ticket_id,
            "run_id": started.run_id,
            "new": new,
        }
        # What was charged is always told in full; asking again for the same may be no more than counted.
        audit = self._store.audit.add if new else self._ledger.add
        await asyncio.to_thread(lambda: audit(peer, "run.start", "allowed", **facts))
        return started

    async def _crossed(self, subject: Subject, request: peer_pb2.StartRun) -> peer_pb2.RunStarted | None:
        """Return what a peer is told whose request has crossed this party's own, which counts; None if none does.

        A request counts that has come to a run; of two that are under way, that of the party whose name sorts first.
        """
        if not request.within_ms:  # a release that would not know what it is told
            return None
        for run in await self._same(subject):
            if run.initiated and run.state == "running":
                return peer_pb2.RunStarted(run_id=run.run_id, number=run.number, crossed=True)
        if self._wishes.asked(subject) is None or subject.peer < self._party.name:
            return None
        return peer_pb2.RunStarted(crossed=True)

    async def _decide(
        self, subject: Subject, config: dict[str, Any], request: peer_pb2.StartRun
    ) -> tuple[peer_pb2.RunStarted, bool]:
        peer = subject.peer
        skew_s = self._base.connection(peer).clock_skew_s
        allowed_s = self._base.party.max_clock_skew_s
        if abs(skew_s) > allowed_s:
            raise ClockSkew(skew_s=round(skew_s), allowed_s=round(allowed_s))
        kinds = {step.name: step.kind for step in request.steps}
        asked = request.ticket_id, request.pipeline, config, kinds
        grant = await asyncio.to_thread(require_covered, self._base, peer, *asked)
        found = await asyncio.to_thread(self._store.runs.of_partition, request.pipeline, request.partition)
        history = [run for run in found if run.peer == peer]
        last = max((run.number for run in history if not run.initiated), default=0)
        if not 1 <= request.number <= last + MAX_GAP:
            raise ProtocolViolated(field="number", asked=request.number, allowed=last + MAX_GAP)
        known = await self._known(history, subject, request)
        if known is not None:
            return known, False
        # An initiator that has lost its store begins to count anew; the numbers are its own.
        number = max(request.number, last + 1)
        await asyncio.to_thread(self._require_budget, peer, grant, config, kinds)
        await self._base.require_startable()
        await self._airflow.require_ready(request.dag_id)
        waiting = await self._dag_runs.waiting(self._wishes.of(subject)) if request.within_ms else ""
        row = self._row(request, peer, subject.config_digest, number, initiator=peer, dag_run_id=waiting)
        row = replace(row, triggered=bool(waiting))
        approval = await asyncio.to_thread(self._approval, row, grant)
        require_asker(request.within_ms)
        row = await asyncio.to_thread(self._runs.create, row, approval, charge_of(grant))
        if not row.triggered:
            await self._dag_runs.begin(row)
        return peer_pb2.RunStarted(run_id=row.run_id, number=number), True

    async def _known(
        self, history: Iterable[RunRow], subject: Subject, request: peer_pb2.StartRun
    ) -> peer_pb2.RunStarted | None:
        """Return the run that a peer attaches to, or that has done what it asks for, if there is one."""
        for run in history:
            if run.config_digest != subject.config_digest:
                continue
            # A release that does not know of crossed requests knows no answer but a run of its own.
            if run.state == "succeeded" and not request.force and (request.within_ms or not run.initiated):
                return peer_pb2.RunStarted(run_id=run.run_id, number=run.number, already_done=True)
            if run.state != "running" or run.initiated:
                continue
            if run.number >= request.number:
                if not run.triggered:
                    await self._dag_runs.begin(run)
                return peer_pb2.RunStarted(run_id=run.run_id, number=run.number)
            # The initiator has given this one up already; its news has not arrived yet.
            await asyncio.to_thread(self._runs.cancel, run.run_id, RunCancelled("the initiator began again"))
        return None

    def _approval(self, row: RunRow, grant: Grant) -> ApprovalRow | None:
        """Return what a run needs of a person; a yes to a run of the same kind counts for this one too."""
        asked = _question(row, grant)
        earlier = self._store.approvals.earlier(row) if asked else None
        return replace(earlier, run_id=row.run_id, asked_ms=row.opened_ms) if earlier else asked

    # ------------------------------------------------------------------------------------------------------- helpers
    def _row(
        self,
        start: peer_pb2.StartRun,
        peer: str,
        config_digest: str,
        number: int,
        *,
        initiator: str,
        dag_run_id: str = "",
    ) -> RunRow:
        run_id = f"{start.pipeline}.{start.partition}.{initiator}.{number}"
        return RunRow(
            run_id=run_id,
            pipeline=start.pipeline,
            partition=start.partition,
            number=number,
            peer=peer,
            initiated=initiator == self._party.name,
            ticket_id=start.ticket_id,
            config_digest=config_digest,
            config_json=start.config_json,
            steps_json=json.dumps(plain_steps(start.steps)),
            dag_id=start.dag_id,
            dag_run_id=dag_run_id or run_id,
            state="running",
            failure=None,
            peer_state="running",
            peer_failure=None,
            receipt="",
            peer_receipt="",
            version=1,
            acked_version=0,
            peer_version=0,
            note="",
            opened_ms=self._clock(),
            closed_ms=None,
            reason=plain_text(start.reason),
            dataset_digest=declaration_of(self._base, json.loads(start.config_json)),
        )

    def _opened(self, run: RunRow, opening: worker_pb2.Opening) -> worker_pb2.OpenRunResponse:
        return worker_pb2.OpenRunResponse(run=self._runs.message(run), opening=opening)


def _place(request: worker_pb2.OpenRunRequest) -> tuple[str, str, str]:
    """Return which DAG run asks, and for a run of which pipeline."""
    return request.dag_id, request.dag_run_id, request.pipeline


def _question(row: RunRow, grant: Grant) -> ApprovalRow | None:
    """Return the question that a new run begins with, None if its ticket asks nobody."""
    return ApprovalRow(row.run_id, "asked", "approval", row.opened_ms, 0) if grant.asks_for_a_person else None
