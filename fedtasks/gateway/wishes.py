"""What this party's DAG runs ask peers for now, so that two parties that ask for the same come to one run.

Both may trigger a partition at the same time. No gateway waits for the other's answer before it answers itself: the
party whose name sorts first initiates. It tells the other one that the requests have *crossed*, and that one takes
the first one's request up with the DAG run that has asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fedtasks.errors import FedtasksError

LINGER_S = 600.0
"""How long a DAG run whose request failed, and which Airflow may try again, is still said to ask."""


class Subject(NamedTuple):
    """What two requests must have in common to be for the same run.

    Parameters
    ----------
    peer, pipeline, partition, config_digest
        With whom, of what, and with which shared configuration.
    """

    peer: str
    pipeline: str
    partition: str
    config_digest: str


@dataclass(eq=False)
class Wish:
    """One DAG run of this party that asks for a run.

    Parameters
    ----------
    subject, dag_id, dag_run_id
        What for, and which DAG run.
    number
        The run's number, while the peer is asked.
    is_asked
        Whether the peer has been asked and its answer has not been dealt with yet.
    is_crossed
        Whether the peer has asked for the same meanwhile, whichever of the two requests counts.
    """

    subject: Subject
    dag_id: str
    dag_run_id: str
    number: int = 0
    is_asked: bool = False
    is_crossed: bool = False
    _ends_s: float | None = None
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Say, after `begin`, when the peer's answer has been dealt with."""
        try:
            yield
        finally:
            self.is_asked = False
            self._answered.set()

    def begin(self, number: int) -> None:
        """Say that the peer is asked from now on."""
        self.number, self.is_asked, self.is_crossed = number, True, False
        self._heard.clear()
        self._answered.clear()

    async def wait_answered(self) -> None:
        """Wait until the peer's answer to this one has been dealt with."""
        await self._answered.wait()

    def hear(self) -> None:
        """Say that a request of the peer for the same has been granted or refused."""
        self._heard.set()

    async def wait_heard(self, timeout_s: float) -> None:
        """Wait until that happens, or happened since `begin`, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()


class Wishes:
    """The wishes of a gateway; what is forgotten when it stops is asked for again by the DAG runs themselves."""

    def __init__(self) -> None:
        self._wishes: dict[Subject, dict[tuple[str, str], Wish]] = {}

    @contextlib.contextmanager
    def made(self, subject: Subject, dag_id: str, dag_run_id: str) -> Iterator[Wish]:
        """Keep a wish while a DAG run asks, and for a while after a failure that may be tried again."""
        place = dag_id, dag_run_id
        self._forget_old(place, subject.pipeline)
        wish = self._wishes.setdefault(subject, {})[place] = Wish(subject, *place)
        try:
            yield wish
        except FedtasksError as error:
            if error.retryable:
                wish._ends_s = asyncio.get_running_loop().time() + LINGER_S
            raise
        finally:
            if wish._ends_s is None:
                self._forget(wish)

    def of(self, subject: Subject) -> list[Wish]:
        """Return the wishes for one thing, the oldest first."""
        now_s = asyncio.get_running_loop().time()
        found = self._wishes.get(subject, {}).values()
        return [wish for wish in found if wish._ends_s is None or wish._ends_s > now_s]

    def asked(self, subject: Subject) -> Wish | None:
        """Return the wish of which the peer is asked now; there is one at most."""
        return next((wish for wish in self.of(subject) if wish.is_asked), None)

    def last_number(self, pipeline: str, partition: str) -> int:
        """Return the highest number of a partition that a peer is asked for now; 0 if none is."""
        found = (wish for wishes in self._wishes.values() for wish in wishes.values() if wish.is_asked)
        same = (wish.number for wish in found if wish.subject[1:3] == (pipeline, partition))
        return max(same, default=0)

    def hear(self, subject: Subject) -> None:
        """Tell all wishes for one thing that a request of the peer for it has been granted or refused."""
        for wish in self.of(subject):
            wish.hear()

    def _forget_old(self, place: tuple[str, str], pipeline: str) -> None:
        """Forget what is over, and what this DAG run has asked for before."""
        now_s = asyncio.get_running_loop().time()
        for wish in [each for wishes in self._wishes.values() for each in wishes.values()]:
            is_same = (wish.dag_id, wish.dag_run_id) == place and wish.subject.pipeline == pipeline
            if wish._ends_s is not None and (is_same or wish._ends_s <= now_s):
                self._forget(wish)

    def _forget(self, wish: Wish) -> None:
        wishes = self._wishes.get(wish.subject, {})
        place = wish.dag_id, wish.dag_run_id
        if wishes.get(place) is wish:
            del wishes[place]
            if not wishes:
                del self._wishes[wish.subject]
