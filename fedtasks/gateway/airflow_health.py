"""Whether all parts of this party's own Airflow run: looked at now and then, and told to whoever waits for them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from fedtasks.clock import Clock
from fedtasks.errors import AirflowUnreachable, PeerAirflowUnreachable
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.reports.airflow_parts import API_SERVER, STARTING, Silent, keep, said, silent_now, silent_parts
from fedtasks.store import Store

log = logging.getLogger(__name__)

LOOK_EVERY_MS = 15_000
"""How often it is looked whether all parts run."""

LOOK_AGAIN_MS = 4_000
"""How often while one of them does not."""


@dataclass
class AirflowHealth:
    """Which parts of this party's Airflow have not been heard of for too long.

    Parameters
    ----------
    silent
        Those, as they were seen last; empty also until the first look.
    """

    silent: tuple[Silent, ...] = ()
    _looked_ms: int | None = field(default=None, init=False)
    _unreachable_ms: int | None = field(default=None, init=False)
    _told: tuple[Silent, ...] | None = field(default=None, init=False)

    @property
    def is_startable(self) -> bool:
        """Whether a DAG run would begin if it were started, as far as was seen last."""
        return not any(each.part in STARTING for each in self.silent)

    def require_startable(self) -> None:
        """Check that a DAG run would begin if it were started.

        Raises
        ------
        PeerAirflowUnreachable
            As the initiator will read it, for whom this Airflow is the peer's; which part is missing is not said.
        """
        if not self.is_startable:
            raise PeerAirflowUnreachable()

    async def look(self, airflow: AirflowApi, store: Store, party: str, clock: Clock, *, at_once: bool = False) -> bool:
        """Look if it is time to, or `at_once`, and write down what is news; return whether anything is.

        Notes
        -----
        Cost: one request in `LOOK_EVERY_MS`, answered by Airflow with three small queries; one
        transaction whenever a part falls silent or is back.
        """
        now = clock()
        pause_ms = LOOK_AGAIN_MS if self.silent or self._unreachable_ms is not None else LOOK_EVERY_MS
        if not at_once and self._looked_ms is not None and 0 <= now - self._looked_ms < pause_ms:
            return False
        self._looked_ms = now
        try:
            self.silent = silent_parts(await airflow.health())
            self._unreachable_ms = None
        except AirflowUnreachable:
            if self._unreachable_ms is None:  # it may only be busy: the next look, which is soon, counts
                self._unreachable_ms = now
                return False
            self.silent = (Silent(API_SERVER, self._unreachable_ms),)
        if self._told is None:
            self._told = await asyncio.to_thread(silent_now, store, party)
        if self.silent == self._told:
            return False
        await asyncio.to_thread(keep, store, party, self.silent, now)
        self._told = self.silent
        log.warning("%s", said(self.silent, party) or f"all parts of {party}'s Airflow run again")
        return True
