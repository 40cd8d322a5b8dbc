"""What peers cause in the audit: every refusal is accounted for, and no flood of them grows it without bound."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from fedtasks.clock import Clock
from fedtasks.errors import FedtasksError
from fedtasks.gateway.bucket import Bucket
from fedtasks.store import Store

log = logging.getLogger(__name__)

BURST, PER_S = 60, 0.1
"""So many decisions of one peer are written in full at once, and so many more each second."""

SUMMARY_BURST, SUMMARY_PER_S = 10, 1 / 60
"""So many summaries of one peer there may be at first, and so many more each second: one a minute."""

FLUSH_S = 1.0
"""How often it is looked whether there is anything to sum up."""

QUIET_MS, LONGEST_MS = 1_000, 60_000
"""It is summed up when nothing has come for a moment, and at the latest after a minute."""

SUMMARY = "peer.summary"
"""The action of such a row; its facts are `count`, and how often which action ended how."""


@dataclass
class _Account:
    """One peer's decisions."""

    in_full: Bucket
    summaries: Bucket
    counted: Counter[str] = field(default_factory=Counter)
    since_ms: int = 0
    last_ms: int = 0

    def is_due(self, now_ms: int) -> bool:
        quiet_ms, waiting_ms = now_ms - self.last_ms, now_ms - self.since_ms
        is_time = not 0 <= quiet_ms < QUIET_MS or not 0 <= waiting_ms < LONGEST_MS
        return is_time and self.summaries.take()


class Ledger:
    """Writes what peers cause into the audit: in full while that is seldom, else counted and summed up in one row.

    Parameters
    ----------
    store
        Where the audit is.
    clock
        The gateway's clock.

    Notes
    -----
    Cost: a peer that asks without pause causes at most 7 rows a minute after the first 60. What has been counted and
    not yet summed up, at most a minute's, is lost when the process is killed; an orderly end writes it.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._accounts: dict[str, _Account] = {}
        self._refused: WeakKeyDictionary[FedtasksError, bool] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self.refusals: Counter[tuple[str, str]] = Counter()
        """Who was refused, why (a code of the registry), and how often since this process began."""

    def add(self, actor: str, action: str, decision: str, **facts: Any) -> bool:
        """Write a decision that `actor` caused, or count it; returns whether it was written in full.

        Notes
        -----
        A decision that the store cannot take is counted, and written when it can.
        """
        account = self._account(actor)
        if account.in_full.take():
            try:
                self._store.audit.add(actor, action, decision, **facts)
            except FedtasksError as error:
                log.warning("a decision could not be written yet: %s", error)
            else:
                return True
        ending = f"{action} {decision} {facts.get('code', '')}".strip()
        with self._lock:
            account.last_ms = self._clock()
            account.since_ms = account.since_ms or account.last_ms
            account.counted[ending] += 1
        return False

    def refuse(self, actor: str, action: str, error: FedtasksError, /, **facts: Any) -> bool:
        """Account for a refusal, once: who knows most of it does so first, and who passes the error on finds it done.

        Returns
        -------
        bool
            Whether it was written in full.
        """
        if error not in self._refused:
            facts = {**facts, "code": error.code, "clause": error.fields.get("clause", "")}
            with self._lock:
                self.refusals[actor, error.code] += 1
            self._refused[error] = self.add(actor, action, "refused", **facts)
        return self._refused[error]

    def flush(self, *, all_at_once: bool = True) -> None:
        """Sum up what was only counted; unless `all_at_once`, only where that has not been done too often."""
        for actor, account in list(self._accounts.items()):
            with self._lock:
                counted, since_ms = account.counted, account.since_ms
                if not counted or not (all_at_once or account.is_due(self._clock())):
                    continue
                account.counted, account.since_ms = Counter(), 0
            try:
                facts = {"count": counted.total(), "since_ms": since_ms, "endings": dict(sorted(counted.items()))}
                decision = "refused" if any(" refused " in f"{ending} " for ending in counted) else "noted"
                self._store.audit.add(actor, SUMMARY, decision, **facts)
            except FedtasksError:
                with self._lock:
                    account.counted.update(counted)
                    account.since_ms = since_ms
                raise
            log.warning("%d more decisions about %s since the last that is told in full", facts["count"], actor)

    async def run(self) -> None:
        """Sum up now and then, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            if not any(account.counted for account in list(self._accounts.values())):
                continue
            try:
                await asyncio.to_thread(self.flush, all_at_once=False)
            except FedtasksError as error:
                log.warning("%s", error)

    def _account(self, actor: str) -> _Account:
        with self._lock:
            if actor not in self._accounts:
                in_full = Bucket(BURST, PER_S, self._clock)
                self._accounts[actor] = _Account(in_full, Bucket(SUMMARY_BURST, SUMMARY_PER_S, self._clock))
            return self._accounts[actor]
