"""Both halves of a task in one process, each in a thread, over a link in memory that may fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedtasks.data.storage import RunStorage
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import FedtasksError, LinkLost, PeerFailed
from fedtasks.link.memory import MemoryLink, memory_pair
from fedtasks.runtime.context import Outcome

RUN = "credit.2026-11-21.1"
ROLES = ("leader", "follower")


class Context:
    """One party's half of a task, with a link in memory in place of the gateway's."""

    def __init__(
        self, root: Path, role: str, task: str, *, settings: object, attempt: int = 1, run_id: str = RUN
    ) -> None:
        plain = to_plain(settings)
        self.config = SimpleNamespace(run_id=run_id, task=task, attempt=attempt, settings=plain, shared_digest="s")
        self.is_leader = role == "leader"
        self.storage = RunStorage(f"file://{root}/{role}", run_id)
        self.reports: list[tuple[Mapping[str, Any] | None, dict[str, float]]] = []
        self.facts: dict[str, str] = {}
        self.meeting: Meeting | None = None

    @property
    def folder(self) -> str:
        return self.storage.attempt(self.config.task, self.config.attempt)

    def open_link(self, facts: Mapping[str, str]) -> Any:
        self.facts = dict(facts)
        assert self.meeting is not None
        return self.meeting.link("leader" if self.is_leader else "follower")

    def report(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        self.reports.append((progress, metrics))


class FailingLink:
    """Raises `LinkLost` at the given call of `send`; the other half learns of it as from a gateway."""

    def __init__(self, link: MemoryLink, fail_at: int) -> None:
        self._link = link
        self._left = fail_at

    def send(self, name: str, payload: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise LinkLost("the test cut it")
        self._link.send(name, payload)

    def receive(self, name: str, *, timeout_s: float | None = None) -> Any:
        return self._link.receive(name, timeout_s=timeout_s)

    def __enter__(self) -> FailingLink:
        self._link.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._link.__exit__(*exception)


class Meeting:
    """Gives two contexts the two ends of one link once both have asked for it."""

    def __init__(self, leader: Context, follower: Context, fail: tuple[str, int] | None) -> None:
        self._halves = {"leader": leader, "follower": follower}
        self._fail = fail
        self._links: dict[str, Any] = {}
        self._error: FedtasksError | None = None
        self._asked = False
        self._barrier = threading.Barrier(2, action=self._connect, timeout=60)

    def link(self, role: str) -> Any:
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise PeerFailed("the other half failed before they met") from None
        if self._error is not None:
            raise self._error
        return self._links[role]

    def leave(self) -> None:
        """Let a half that ended before it asked for its link not be waited for."""
        if not self._asked:
            self._barrier.abort()

    def _connect(self) -> None:
        self._asked = True
        try:
            pair = memory_pair(facts_a=self._halves["leader"].facts, facts_b=self._halves["follower"].facts)
        except FedtasksError as error:
            self._error = error
            return
        self._links = dict(zip(self._halves, pair, strict=True))
        if self._fail is not None:
            role, fail_at = self._fail
            self._links[role] = FailingLink(self._links[role], fail_at)


def run_both(
    algorithm: Callable[[Any], Outcome], leader: Context, follower: Context, *, fail: tuple[str, int] | None = None
) -> tuple[Outcome | FedtasksError, Outcome | FedtasksError]:
    """Run both halves, each in its thread; return what each ended with."""
    meeting = Meeting(leader, follower, fail)

    def half(context: Context) -> Outcome | FedtasksError:
        context.meeting = meeting
        try:
            return algorithm(context)
        except FedtasksError as error:
            meeting.leave()
            return error

    with ThreadPoolExecutor(2) as pool:
        leaders, followers = pool.submit(half, leader), pool.submit(half, follower)
        return leaders.result(), followers.result()
