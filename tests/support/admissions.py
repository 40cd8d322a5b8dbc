"""Two sides that ask each other for runs in one process: a test says when each message arrives, and who dies when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine

from fedtasks.clock import Clock, now_ms
from fedtasks.errors import FedtasksError, PeerUnreachable, from_code
from fedtasks.gateway.asker import ASKER, Asker
from fedtasks.store.repository import Repository
from fedtasks.wire.v1 import peer_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Member, shared_config, sign_ticket
from tests.support.runs import STEPS
from tests.support.sides import Side, side

T = TypeVar("T")

DAY = "2026-11-21"
LIMITS = {"runs": None, "concurrent_runs": 5000}


class Killed(BaseException):
    """Ends what a side does that has died; nothing catches it on purpose."""


class Inline(ThreadPoolExecutor):
    """Runs what is meant for a thread at once, so that nothing but the test decides what comes first."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class Messages:
    """What is on its way, in the order in which it was sent."""

    sent: list[asyncio.Future[None]] = field(default_factory=list)

    async def fly(self) -> None:
        """Be on the way until the test lets this message arrive."""
        arrival = asyncio.get_running_loop().create_future()
        self.sent.append(arrival)
        await arrival

    async def deliver(self, choose: Callable[[int], int], work: list[asyncio.Task[Any]]) -> None:
        """Let messages arrive one by one, each time the one that `choose` names of so many, until all work is done."""
        until_s = asyncio.get_running_loop().time() + 20
        while True:
            for _ in range(60):  # until nobody has anything to do any more
                await asyncio.sleep(0)
            if all(task.done() for task in work):
                return
            self.sent = [each for each in self.sent if not each.done()]
            if not self.sent:  # somebody waits before asking again
                assert asyncio.get_running_loop().time() < until_s, "all wait, and no message is on its way"
                await asyncio.sleep(0.01)
                continue
            self.sent.pop(choose(len(self.sent))).set_result(None)


@dataclass
class Wire:
    """A conversation as one side sees it: what it asks arrives at the other one's admission."""

    party: str
    peer: str
    world: World
    clock_skew_s: float = 0.0

    async def request(self, _: float, *, start_run: peer_pb2.StartRun) -> peer_pb2.Envelope:
        asked = peer_pb2.StartRun.FromString(start_run.SerializeToString())
        side = self.world.sides[self.party]
        await self.world.messages.fly()
        ASKER.set(Asker(lambda: self.party not in self.world.dead and self.world.sides[self.party] is side))
        try:
            answer = await self.world.sides[self.peer].start(self.party, **_fields(asked))
        except FedtasksError as error:
            await self.world.messages.fly()
            raise from_code(error.code, error.public, where=self.peer) from error
        except Killed:
            raise PeerUnreachable("the connection was lost") from None
        await self.world.messages.fly()
        return peer_pb2.Envelope(run_started=answer)

    async def wait_answered(self, _: float) -> None:
        """Return at once: what arrives is looked at before anything else arrives."""


def _fields(message: peer_pb2.StartRun) -> dict[str, Any]:
    return {descriptor.name: value for descriptor, value in message.ListFields()}


@dataclass
class World:
    """Bank and shop; a side that has died is started again over the same store."""

    folder: Path
    members: dict[str, Member]
    clock: Clock = now_ms
    messages: Messages = field(default_factory=Messages)
    sides: dict[str, Side] = field(default_factory=dict)
    dying: tuple[str, str, int] | None = None
    dead: set[str] = field(default_factory=set)
    commits: dict[str, int] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self, name: str) -> None:
        """Start a side, or start it again."""
        self.dead.discard(name)
        peer = "shop" if name == "bank" else "bank"
        triggered = self.sides[name].airflow if name in self.sides else None
        made = side(
            self.members[name],
            self.folder / f"{name}.db",
            self.clock,
            connections={peer: Wire(name, peer, self)},
            airflow=triggered,
        )
        self.sides[name] = self._stack.enter_context(made)

    def grant(self, grantor: str, holder: str) -> None:
        """Let one side grant the other one a ticket."""
        row = sign_ticket(self.members[grantor], self.members[holder], limits=LIMITS)
        self.sides[grantor].store.tickets.put(row)
        self.sides[holder].store.tickets.put(type(row)(**{**vars(row), "peer": grantor, "granted": False}))

    async def ask(self, name: str, dag_run_id: str = "", **changes: Any) -> worker_pb2.OpenRunResponse:
        """Let a DAG run of a side, which its Airflow knows, ask for the run of a day."""
        dag_run_id = dag_run_id or f"manual-{name}"
        self.sides[name].airflow.states.setdefault(dag_run_id, "running")
        values: dict[str, Any] = {
            "dag_id": PIPELINE,
            "dag_run_id": dag_run_id,
            "pipeline": PIPELINE,
            "steps": STEPS,
            "partition": DAY,
            "config_json": shared_config(),
            "peer": "shop" if name == "bank" else "bank",
            **changes,
        }
        return await self.sides[name].admission.open(worker_pb2.OpenRunRequest(**values))

    async def settle(self, choose: Callable[[int], int], *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """Do all of it at once, with messages that arrive as `choose` says."""
        tasks = [asyncio.create_task(each) for each in work]
        await self.messages.deliver(choose, tasks)
        return await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a test's work in a loop without threads."""

        async def alone() -> T:
            asyncio.get_running_loop().set_default_executor(Inline())
            return await work

        return asyncio.run(alone())

    def charged(self) -> int:
        """Return how many runs both sides' tickets were charged."""
        books = [each.store for each in self.sides.values()]
        granted = [(book, row.ticket_id) for book in books for row in book.tickets.list(granted=True)]
        return sum(book.uses.total(ticket_id).get("runs", 0) for book, ticket_id in granted)

    def run_ids(self, name: str, state: str | None = None) -> list[str]:
        """Return the runs that a side knows."""
        return sorted(run.run_id for run in self.sides[name].store.runs.list(state=state))

    def at_commit(self, engine: Engine, when: str) -> None:
        """Let a side die at the commit that the test names, and do nothing once it is dead."""
        name = Path(str(engine.url.database)).stem
        if name in self.dead:
            raise Killed
        if when == "before":
            self.commits[name] = self.commits.get(name, 0) + 1
        if self.dying == (name, when, self.commits.get(name)):
            self.dying = None
            self.dead.add(name)
            raise Killed

    def close(self) -> None:
        """Close both stores."""
        self._stack.close()


@contextmanager
def two_sides(folder: Path, members: tuple[Member, Member], clock: Clock = now_ms) -> Iterator[World]:
    """Start bank and shop over empty stores; each commit of theirs may be their last (`World.dying`)."""
    world = World(folder, dict(zip(("bank", "shop"), members, strict=True)), clock)
    begin = Repository._transaction

    @contextmanager
    def transaction(self: Repository, engine: Engine) -> Iterator[Connection]:
        writes = bool(engine.get_execution_options().get("writes"))
        with begin(self, engine) as connection:
            yield connection
            if writes:
                world.at_commit(engine, "before")
        if writes:
            world.at_commit(engine, "after")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repository, "_transaction", transaction)
        try:
            for name in world.members:
                world.start(name)
            yield world
        finally:
            world.close()
