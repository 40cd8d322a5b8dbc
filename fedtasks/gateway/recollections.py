"""What both parties remember of their runs, compared: a store that was lost, or restored from a copy, is noticed.

Each gateway tells its peer which runs the peer must know, and how far it knows the peer's half of each. What the peer's
store does not know any more ends on both sides, and is charged again to the ticket that the peer has granted for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from fedtasks.config import PIPELINE
from fedtasks.errors import ConfigError, FedtasksError, ProtocolViolated, StoreUnavailable
from fedtasks.gateway.airflow_api import TERMINAL
from fedtasks.gateway.base import Base
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.runs import MEMORY_MS, Runs
from fedtasks.names import parts_of, pipeline_of
from fedtasks.reports.labels import labels_of, what_is_told
from fedtasks.store import LabelSpendRow, PeerRow, RunRow
from fedtasks.tickets import peek
from fedtasks.wire.v1 import peer_pb2

log = logging.getLogger(__name__)

EVERY_MS = 300_000
"""How often is compared while nothing calls for it."""

SOON_MS = 10_000
"""How long after the last time it is compared again since the peer does."""

PAGE = 200
"""So many runs are told at once."""

MAX_LOST = 100_000
"""So many lost runs one peer may tell of."""

MAX_RETOLD = 1_000
"""Of so many runs it is remembered that their news were told again."""

PAUSE_MS = 1_000
"""How long there is at least between two comparisons with a peer, whatever it says."""

MAX_AHEAD = 1_000_000
"""How far a peer may say that it knows a version beyond the one that is here."""

RESTORED = "store.restored"
"""The action under which the audit has what was found missing, and in whose store."""

_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_TICKET_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
_STORE_ID = re.compile(r"[A-Za-z0-9]{0,64}")


class Recollections:
    """Compares with every peer at the beginning of a conversation, after an outage of the store, and now and then.

    Parameters
    ----------
    base
        This party, its store and its connections.
    runs
        Ends what a store has lost.

    Notes
    -----
    Reveals: to a peer, a random name of this party's store and how many runs there are with that peer, which it knows;
    and of those runs, how far this party has heard of them.
    """

    def __init__(self, base: Base, runs: Runs) -> None:
        self._base, self._runs = base, runs
        self._party, self._store, self._clock = base.party.name, base.store, base.clock
        self._connections = base.connections
        self._compared: dict[str, tuple[object, int]] = {}
        self._wanted: set[str] = set()
        self._doubted: dict[str, set[str]] = defaultdict(set)
        self._retold: deque[tuple[str, int]] = deque(maxlen=MAX_RETOLD)
        self._store_id = ""

    # ------------------------------------------------------------------------------------------------------- telling
    def renew(self) -> None:
        """Have it compared with every peer again: this store was away, and may have come back as another one."""
        self._compared.clear()
        self._store_id = ""

    async def store_id(self) -> str:
        """Return which store this is; empty while that cannot be known."""
        try:
            self._store_id = await asyncio.to_thread(self._store.identity.get)
        except StoreUnavailable as error:
            log.warning("%s", error)
        return self._store_id

    async def compare(self, name: str, connection: PeerConnection) -> None:
        """Compare with a peer if that is due."""
        if self._is_due(name, connection):
            await self._try_to_compare(name, connection)

    def _is_due(self, name: str, connection: PeerConnection) -> bool:
        conversation = connection.conversation
        if conversation is None or not connection.peer_store_id:
            return False
        last, at_ms = self._compared.get(name, (None, 0))
        since_ms = self._clock() - at_ms
        if last is not conversation or since_ms < 0:
            return True
        return since_ms >= (PAUSE_MS if name in self._wanted else EVERY_MS)

    async def _try_to_compare(self, name: str, connection: PeerConnection) -> None:
        conversation, began_ms = connection.conversation, self._clock()
        self._wanted.discard(name)
        try:
            await self._compare(name, connection)
        except FedtasksError as error:  # which must not keep the others from being compared with
            log.info("what %s remembers is not known yet: %s", name, error)
        else:
            self._compared[name] = conversation, began_ms

    async def _compare(self, name: str, connection: PeerConnection) -> None:
        # Counted before the peer does: what is entered meanwhile must not look like a loss.
        before = await asyncio.to_thread(self._store.runs.total_known_to, name)
        current = await asyncio.to_thread(self._store.runs.remembered, name, self._clock() - MEMORY_MS)
        doubted = await asyncio.to_thread(self._take_doubted, name, {run.run_id for run in current})
        current = [*current, *doubted]
        for start in range(0, max(1, len(current)), PAGE):
            mark = await self._tell(name, connection, current[start : start + PAGE])
        seen = await asyncio.to_thread(self._seen, name)
        has_lost = bool(mark.store_id) and (
            seen.store_id not in ("", mark.store_id) or mark.runs < max(before, seen.store_runs)
        )
        if has_lost:
            await self._remind(name, connection)
        # Until now a peer that has asked for nothing else grants nothing: it may have lost what was used.
        await self._tell(name, connection, (), complete=True)
        await asyncio.to_thread(self._keep, seen, mark, has_lost)

    def _take_doubted(self, name: str, listed: set[str]) -> list[RunRow]:
        """Return the runs of which the peer knows less than it has confirmed, and have their news told again."""
        doubted, self._doubted[name] = self._doubted[name], set()
        found = [self._store.runs.get(run_id) for run_id in sorted(doubted)]
        for run in found:
            if run is not None:
                self._store.runs.change(run.run_id, acked_version=0)
                self._retold.append((run.run_id, run.version))  # once: what it refuses then it does not want to know
        return [run for run in found if run is not None and run.run_id not in listed]

    async def _remind(self, name: str, connection: PeerConnection) -> None:
        """Tell a peer whose store has lost something of all runs that it has known, and all that was signed."""
        known_to = self._store.runs.known_to
        page = await asyncio.to_thread(known_to, name, after="", limit=PAGE)
        while page:
            await self._tell(name, connection, page)
            page = await asyncio.to_thread(known_to, name, after=page[-1].run_id, limit=PAGE)
        await asyncio.to_thread(self._store.tickets.mark_unsynced, name)

    async def _tell(
        self, name: str, connection: PeerConnection, page: Sequence[RunRow], *, complete: bool = False
    ) -> peer_pb2.StoreMark:
        """Tell a peer of runs, end those that it does not know any more, and return how far its store has come."""
        told = peer_pb2.Remembered(
            store=await self._mark(name),
            runs=[
                peer_pb2.RememberedRun(
                    run_id=run.run_id,
                    ticket_id=run.ticket_id,
                    version=run.peer_version,
                    opened_ms=run.opened_ms,
                    running=run.state == "running",
                )
                for run in page
            ],
            complete=complete,
        )
        answer = (await connection.request(remembered=told)).recalled
        asked = {run.run_id for run in page}
        for run_id in asked.intersection(answer.unknown):
            await asyncio.to_thread(self._runs.lost_by, name, run_id)
        return answer.store

    async def _mark(self, peer: str) -> peer_pb2.StoreMark:
        def count() -> int:
            # What was lost and is known to be so has come back as far as it ever will.
            return self._store.runs.total_with(peer) + self._store.lost_runs.total(peer)

        return peer_pb2.StoreMark(store_id=await self.store_id(), runs=await asyncio.to_thread(count))

    def _seen(self, name: str) -> PeerRow:
        now = self._clock()
        return self._store.peers.get(name) or PeerRow(name, False, "", 0.0, None, now, now)

    def _keep(self, seen: PeerRow, mark: peer_pb2.StoreMark, has_lost: bool) -> None:
        """Remember how far a peer's store has come, and that it has lost something."""
        kept = replace(seen, store_id=_checked(mark).store_id, store_runs=mark.runs)
        if has_lost:
            kept = replace(kept, restored_ms=self._clock())
            log.warning("the store of %s was restored from an older copy, or is another one", seen.name)
            facts = {"peer": seen.name, "store": seen.name, "runs": mark.runs, "known": seen.store_runs}
            self._store.audit.add(self._party, RESTORED, "noted", **facts)
        if kept != seen:
            self._store.peers.put_store(kept)

    # ----------------------------------------------------------------------------------------------------- answering
    async def answer(self, peer: str, request: peer_pb2.Remembered) -> peer_pb2.Recalled:
        """Take in what a peer remembers: end what this store knows less of, charge what it does not know at all.

        Raises
        ------
        ProtocolViolated
            It says what no gateway says.
        """
        mark = _checked(request.store)
        if len(request.runs) > PAGE:
            raise ProtocolViolated(field="runs", asked=len(request.runs), allowed=PAGE)
        unknown = await asyncio.to_thread(self._take_in, peer, list(request.runs))
        for run in request.runs:
            if run.running and run.run_id in unknown:
                await self._fail_dag_run(peer, run.run_id)
        seen = await asyncio.to_thread(self._seen, peer)
        connection = self._connections[peer]
        _, at_ms = self._compared.get(peer, (None, self._clock()))
        has_changed = seen.store_id not in ("", mark.store_id) or mark.runs < seen.store_runs
        if has_changed or self._doubted[peer] or self._clock() - at_ms > SOON_MS:
            self._wanted.add(peer)
            self._base.changes.notify()
        if request.complete:
            connection.compared.set()
        return peer_pb2.Recalled(store=await self._mark(peer), unknown=unknown)

    async def _fail_dag_run(self, peer: str, run_id: str) -> None:
        """Fail the DAG run that was started for a lost run of the peer; nobody would look after it any more.

        One that somebody has triggered here is not known any more, and ends by its tasks, which are told the reason.
        """
        lost = await asyncio.to_thread(self._store.lost_runs.get, run_id)
        pipeline = pipeline_of(run_id)
        if lost is None or lost.peer != peer or _asker(run_id) != peer or not PIPELINE.fullmatch(pipeline):
            return
        dag_id, _ = parts_of(pipeline)
        try:
            state = await self._base.airflow.state(dag_id, run_id)
            if state is not None and state not in TERMINAL:
                await self._base.airflow.fail(dag_id, run_id)
        except FedtasksError as error:
            log.warning("the DAG run of %s, which is lost, cannot be failed: %s", run_id, error)

    def _take_in(self, peer: str, told: Sequence[peer_pb2.RememberedRun]) -> list[str]:
        """Return the runs that this store does not know."""
        unknown, new = [], 0
        room = MAX_LOST - self._store.lost_runs.total(peer) if told else 0
        for run in told:
            if not (_RUN_ID.fullmatch(run.run_id) and _TICKET_ID.fullmatch(run.ticket_id)):
                raise ProtocolViolated(field="run_id")
            row = self._store.runs.get(run.run_id)
            if row is None or row.peer != peer:
                unknown.append(run.run_id)
                if row is None and new < room:
                    new += self._enter_lost(peer, run)
            elif run.version > row.version:
                if run.version > row.version + MAX_AHEAD:
                    raise ProtocolViolated(field="version", asked=run.version, allowed=row.version + MAX_AHEAD)
                self._runs.fallen_behind(row.run_id, run.version)
                new += 1
            elif run.version < row.acked_version and (row.run_id, row.version) not in self._retold:
                self._doubted[peer].add(run.run_id)
        if new:
            log.warning("%s remembers %d runs that this store does not know as they were: it was restored", peer, new)
            self._store.audit.add(peer, RESTORED, "noted", peer=peer, store=self._party, runs=new)
        return unknown

    def _enter_lost(self, peer: str, run: peer_pb2.RememberedRun) -> bool:
        """Enter a run that was lost, and charge it if the peer has asked for it under a ticket of this party."""
        row = self._store.tickets.get(run.ticket_id)
        charged = row is not None and row.granted and row.peer == peer
        if charged and row is not None:
            charged = _asker(run.run_id) == peer and pipeline_of(run.run_id) in peek(row.grant).pipelines
        at_ms = max(0, min(run.opened_ms, self._clock()))
        is_new = self._store.lost_runs.add(run.run_id, peer, run.ticket_id, at_ms, charge=charged)
        if is_new:
            self._charge_labels(peer, run.run_id)
        return is_new

    def _charge_labels(self, peer: str, run_id: str) -> None:
        """Charge what a lost run may have told of labels: as much as the newest run of its pipeline that is known may.

        What it has told indeed was in the store alone; of a pipeline that has no other run, nothing is known.
        """
        known = self._store.runs.list(peer=peer, pipeline=pipeline_of(run_id), limit=1)
        if not known:
            return
        config = json.loads(known[0].config_json)
        labels = labels_of(self._base.party, peer, config)
        if labels is None:
            return
        kinds = {step["name"]: step["kind"] for step in json.loads(known[0].steps_json)}
        try:
            epsilon = what_is_told(self._store, labels, config, kinds)
        except ConfigError as error:  # of a kind that is not installed any more
            log.warning("what %s, which is lost, may have told of labels is not known: %s", run_id, error)
            return
        if epsilon:
            spent = self._store.label_spends.spend(LabelSpendRow(labels, f"{run_id}, lost", epsilon, run_id, ""), None)
            facts = {"run_id": run_id, "epsilon": epsilon, "spent": spent, **vars(labels)}
            self._store.audit.add(peer, "labels.spend", "noted", **facts)


def _asker(run_id: str) -> str:
    """Return who has asked for a run, by its name."""
    return next(iter(run_id.rsplit(".", 2)[-2:-1]), "")


def _checked(mark: peer_pb2.StoreMark) -> peer_pb2.StoreMark:
    """Return what a peer says of its store, if it is what a gateway says."""
    if not _STORE_ID.fullmatch(mark.store_id) or mark.runs >= 1 << 53:
        raise ProtocolViolated(field="store")
    return mark
