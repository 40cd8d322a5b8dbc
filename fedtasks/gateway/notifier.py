"""Tells people once what needs them, over the webhook that party.yaml names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from fedtasks.clock import DAY_MS, utc
from fedtasks.config import Event
from fedtasks.errors import FedtasksError, RunCancelled
from fedtasks.gateway.base import Base
from fedtasks.gateway.bucket import Bucket
from fedtasks.names import APPROVE
from fedtasks.reports.runs import status_now
from fedtasks.reports.status import refusal_sentence, sentence, waits_of
from fedtasks.reports.tickets import EXPIRES_SOON_MS, readable
from fedtasks.webhook import Notice, post

log = logging.getLogger(__name__)

SENT = "notice.sent"
"""The action under which the audit remembers what was posted."""

REFUSED_FOR_MS = 60_000
"""How long a DAG run must stand refused: until then it may be tried again and come to a run."""

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 2_000, 300_000

NOTICES, NOTICES_PER_S = 30, 1 / 60
"""So many notices about one peer are posted at once, and so many more each second; the others wait."""

Key = tuple[str, str, int]


class Notifier:
    """Posts each notice once, also over restarts of the gateway; what is older than a day is not news any more.

    Parameters
    ----------
    base
        This party, whose configuration names the webhook.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._party, self._store = base.party, base.store
        self._airflow, self._clock = base.airflow, base.clock
        self._sent: set[Key] | None = None
        self._buckets: dict[str, Bucket] = {}
        self._pause_ms = FIRST_PAUSE_MS
        self._not_before_ms = 0

    async def tell(self) -> None:
        """Post what has not been posted yet; after a failure, a pause that doubles."""
        if self._base.party.notify is not None and self._clock() >= self._not_before_ms:
            await asyncio.to_thread(self._tell)

    def _tell(self) -> None:
        notify = self._base.party.notify
        if notify is None:
            return
        if self._sent is None:
            rows = self._store.audit.list(action=SENT)
            self._sent = {(row.detail["event"], row.detail["about"], row.detail["since_ms"]) for row in rows}
        current: set[Key] = set()
        for about, since_ms, notice in self._notices():
            key = (notice.event.value, about, since_ms)
            current.add(key)
            if notice.event not in notify.events or key in self._sent:
                continue
            if not self._buckets.setdefault(notice.peer, Bucket(NOTICES, NOTICES_PER_S, self._clock)).take():
                continue
            try:
                post(notify.webhook_url_file, notice)
            except FedtasksError:
                self._not_before_ms = self._clock() + self._pause_ms
                self._pause_ms = min(2 * self._pause_ms, LONGEST_PAUSE_MS)
                raise
            self._pause_ms = FIRST_PAUSE_MS
            facts = {"event": notice.event.value, "about": about, "since_ms": since_ms}
            self._store.audit.add(self._party.name, SENT, "noted", **facts)
            self._sent.add(key)
        self._sent &= current  # what needs nobody any more is not posted again

    def _notices(self) -> Iterator[tuple[str, int, Notice]]:
        """Yield what needs somebody: what it is about, since when that is so, and the notice."""
        yield from self._approvals()
        yield from self._failures()
        yield from self._refusals()
        yield from self._tickets_that_expire()

    def _approvals(self) -> Iterator[tuple[str, int, Notice]]:
        for asked in self._store.approvals.asked():
            run = self._store.runs.get(asked.run_id)
            if run is None or not asked.until_ms:
                continue  # its task has not asked yet
            text = (
                f"{run.peer} asks to run {run.pipeline} up to {run.partition}: answer until {_moment(asked.until_ms)}"
            )
            about = {"peer": run.peer, "pipeline": run.pipeline, "partition": run.partition}
            link = self._link(self._airflow.question(run, APPROVE))
            yield run.run_id, asked.asked_ms, self._notice(Event.APPROVAL_NEEDED, text, asked.asked_ms, link, **about)

    def _failures(self) -> Iterator[tuple[str, int, Notice]]:
        news = self._clock() - DAY_MS
        for run in self._store.runs.list(state="failed", closed_since_ms=news, limit=None):
            since_ms = run.closed_ms or 0
            # Who cancels a run here knows of it.
            if (run.failure or {}).get("code") == RunCancelled.code:
                continue
            text = sentence(status_now(self._store, run, (), (), self._party.name))
            about = {"peer": run.peer, "pipeline": run.pipeline, "partition": run.partition}
            link = self._link(self._airflow.page(run.dag_id, run.dag_run_id))
            yield run.run_id, since_ms, self._notice(Event.RUN_FAILED, text, since_ms, link, **about)

    def _refusals(self) -> Iterator[tuple[str, int, Notice]]:
        for refusal in self._store.refusals.list(since_ms=self._clock() - DAY_MS, limit=None):
            if self._clock() - refusal.at_ms < REFUSED_FOR_MS:
                continue
            if waits_of(refusal) is not None:
                continue  # it asks again by itself
            text = refusal_sentence(refusal, self._party.name)
            about = {"peer": refusal.peer, "pipeline": refusal.pipeline, "partition": refusal.partition}
            link = self._link(self._airflow.page(refusal.dag_id, refusal.dag_run_id))
            name = f"{refusal.pipeline}/{refusal.dag_run_id}"
            yield name, refusal.at_ms, self._notice(Event.RUN_FAILED, text, refusal.at_ms, link, **about)

    def _tickets_that_expire(self) -> Iterator[tuple[str, int, Notice]]:
        now = self._clock()
        for row, grant in readable(self._store.tickets.list()):
            until_ms = grant.expires_s * 1000
            if row.acceptance and not row.revocation and 0 < until_ms - now < EXPIRES_SOON_MS:
                pipelines = ", ".join(grant.pipelines)
                text = f"{grant.grantor}'s ticket for {grant.holder} to run {pipelines} expires {_moment(until_ms)}"
                yield row.ticket_id, until_ms, self._notice(Event.TICKET_EXPIRING, text, now, "", peer=row.peer)

    def _notice(self, event: Event, text: str, at_ms: int, link: str, **about: str) -> Notice:
        return Notice(event, self._party.name, text=text, at_ms=at_ms, link=link, **about)

    def _link(self, page: str) -> str:
        return f"{self._airflow.origin}{page}"


def _moment(at_ms: int) -> str:
    return utc(at_ms, "%Y-%m-%d %H:%M UTC")
