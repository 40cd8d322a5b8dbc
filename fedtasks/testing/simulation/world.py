"""A whole simulated world: parties, the wires between them, and what happens from outside."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import random
from collections.abc import Callable
from typing import Any

from fedtasks.errors import FedtasksError
from fedtasks.names import APPROVE, CLOSE_RUN, OPEN_RUN
from fedtasks.testing.simulation import cast
from fedtasks.testing.simulation.airflow import RETRY_S, Airflow, DagRun
from fedtasks.testing.simulation.auditor import Auditor, Violation
from fedtasks.testing.simulation.history import History
from fedtasks.testing.simulation.loop import SimulatedLoop
from fedtasks.testing.simulation.network import Network
from fedtasks.testing.simulation.operators import MODEL, Operators
from fedtasks.testing.simulation.party import Side, register
from fedtasks.testing.simulation.person import YES
from fedtasks.testing.simulation.plan import Event, Plan
from fedtasks.testing.simulation.stores import Disk, Killed
from fedtasks.wire.v1 import worker_pb2

STEPS = {"psi": "psi", "train": "split_nn"}
"""The steps of the simulated pipeline."""

TASKS = (OPEN_RUN, APPROVE, *STEPS, CLOSE_RUN)

CROWD = "crowd"
"""With what the partitions of runs begin that are there only to be many."""

PATIENCE_S = 300.0
"""How long after the last event everything must have come to its end."""

SETTLE_S = 4.0, 12.0
"""How long after that both sides are left alone at least, and how long at most until each has been told the news."""


@dataclasses.dataclass(frozen=True)
class Revocation:
    """A ticket that was revoked, as its grantor's gateway has confirmed it."""

    at_s: float
    grantor: str
    ticket_id: str


@dataclasses.dataclass(frozen=True)
class Landing:
    """A partition of a party's dataset that is complete, as its gateway has confirmed it.

    Parameters
    ----------
    asked_s, at_s
        When the gateway was told, and when it had confirmed that.
    party, partition
        What has landed: a party has one dataset.
    """

    asked_s: float
    at_s: float
    party: str
    partition: str


class World:
    """Two parties or more, for one schedule.

    Parameters
    ----------
    seed
        Decides what the plan leaves open: threads, flights, how long things take.
    plan
        What happens from outside.
    """

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed, self.plan = seed, plan
        self.history = History()
        self.loop = SimulatedLoop(self._chances("threads"))
        self.loop.set_task_factory(register)  # type: ignore[arg-type]
        self.network = Network(self.loop, self._chances("network"), plan.parties)
        self.skew_ms = dict.fromkeys(plan.parties, 0)
        self.revocations: list[Revocation] = []
        self.landings: list[Landing] = []
        self.quiet_s: float | None = None
        self.auditor = Auditor(self)
        self._disturbances: list[tuple[str, str, float, float]] = []
        self._armed: dict[str, list[tuple[str, int, float]]] = {name: [] for name in plan.parties}
        self.sides = {name: self._side(name) for name in plan.parties}
        self._enter_tickets()

    def _chances(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}/{what}")  # noqa: S311 - to be drawn again

    def _side(self, name: str) -> Side:
        member = cast.members(self.plan.parties)[name]
        self.network.introduce(name, member.certificate)
        say: Callable[[str], None] = lambda what: self.history.add(self.loop.time(), name, what)  # noqa: E731
        noted: Callable[[str], None] = lambda note: self.auditor.after_note(name, note)  # noqa: E731
        airflow = Airflow({cast.PIPELINE: TASKS}, self._chances(f"airflow {name}"), say, noted)
        disk = Disk(name, self.loop.pause, lambda when: self._at_commit(name, when))
        chances = self._chances(f"calls {name}")

        def clock() -> int:
            return cast.EPOCH_MS + int(self.loop.time() * 1000) + self.skew_ms[name]

        side = Side(member.party, self.loop, self.network, self.history, airflow, disk, clock, chances)
        Operators(side, STEPS, self.plan.frames, publishes=self.plan.publishes)
        return side

    def _enter_tickets(self) -> None:
        plan = self.plan
        for grantor in plan.parties:
            for holder in plan.parties:
                if grantor == holder:
                    continue
                row = cast.ticket(plan.parties, grantor, holder, plan.runs, plan.at_once, plan.person)
                for name, kept in ((grantor, row), (holder, dataclasses.replace(row, peer=grantor, granted=False))):
                    side = self.sides[name]
                    side.disk.open(side.clock, lambda: True).tickets.put(kept)

    # ------------------------------------------------------------------------------------------------------- playing
    def play(self) -> list[Violation]:
        """Let everything happen until it is quiet; returns every rule that did not hold."""
        random.seed(self.seed)
        asyncio.set_event_loop(None)
        logging.disable(logging.CRITICAL)
        gc.disable()
        try:
            self.loop.run_until_complete(self._play())
            for side in self.sides.values():
                if side.airflow.broken is not None:
                    raise side.airflow.broken
            return self.auditor.audit()
        finally:
            logging.disable(logging.NOTSET)
            gc.enable()
            self.loop.close()

    async def _play(self) -> None:
        for side in self.sides.values():
            side.start()
        for event in self.plan.of("restore store"):
            disk = self.sides[event.party].disk
            self.loop.call_at(max(0.0, event.at_s - event.number), self._back_up, disk)
        for event in self.plan.events:
            self.loop.call_at(event.at_s, self._begin, event)
        await asyncio.sleep(self.plan.over_s + 1.0)
        end_s = self.plan.over_s + PATIENCE_S
        while self.loop.time() < end_s and not self._is_quiet():
            await asyncio.sleep(1.0)
        for armed in self._armed.values():
            armed.clear()  # what has not come to its moment by now would end a gateway in the midst of the audit
        if self._is_quiet():
            self.quiet_s = self.loop.time()
        quiet_s, (least_s, most_s) = self.loop.time(), SETTLE_S
        await asyncio.sleep(least_s)
        while self.loop.time() < quiet_s + most_s and not self.auditor.accounts_agree():
            await asyncio.sleep(1.0)
        await self._stop()

    async def _stop(self) -> None:
        for side in self.sides.values():
            side.kill()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _is_quiet(self) -> bool:
        sides = self.sides.values()
        has_ended = all(run.state != "running" for side in sides for run in side.airflow.runs.values())
        has_landed = len(self.landings) == len(list(self.plan.of("land")))
        return has_ended and has_landed and all(side.process is not None for side in sides) and self.auditor.all_know()

    # -------------------------------------------------------------------------------------------------------- events
    def _begin(self, event: Event) -> None:
        side = self.sides[event.party]
        side.say(f"— {event}")
        begin, end = self._faults(event, side)
        begin()
        self._disturbances.append((event.kind, side.name, event.at_s, event.at_s + event.lasts_s))
        if event.lasts_s:
            self.loop.call_later(event.lasts_s, end)

    def _faults(self, event: Event, side: Side) -> tuple[Callable[[], object], Callable[[], object]]:
        """Return how an event begins and how it ends."""
        network, disk, airflow = self.network, side.disk, side.airflow
        other = self._peer_of(event)

        def put(owner: Any, name: str, value: object) -> Callable[[], object]:
            return lambda: setattr(owner, name, value)

        def turn_clock(by_s: int) -> Callable[[], object]:
            return lambda: self.skew_ms.update({side.name: 1000 * by_s})

        match event.kind:
            case "trigger":
                return lambda: self._trigger(side, event), _nothing
            case "kill gateway":
                return side.kill, side.start
            case "kill gateway before a commit" | "kill gateway after a commit":
                when = event.kind.split()[2]
                armed = (when, disk.commits + event.number, event.lasts_s)
                return lambda: self._armed[side.name].append(armed), _nothing
            case "cut":
                return network.cut, network.heal
            case "hold":
                return lambda: network.hold(side.name, other), lambda: network.heal(side.name, other)
            case "silence":
                return lambda: network.silence(side.name, other), lambda: network.heal(side.name, other)
            case "restore store":
                return lambda: self._restore(side, event), side.start
            case "crowd":
                return lambda: self._crowd(side, event.number), _nothing
            case "slow":
                return lambda: network.slow(1.0), network.heal
            case "lose worker":
                return airflow.lose_worker, _nothing
            case "airflow away":
                return put(airflow, "is_away", True), put(airflow, "is_away", False)
            case "scheduler dead":
                return airflow.stop_scheduler, airflow.start_scheduler
            case "store away":
                return put(disk, "is_away", True), put(disk, "is_away", False)
            case "disk full":
                return put(disk, "is_full", True), put(disk, "is_full", False)
            case "clock":
                return turn_clock(event.number), turn_clock(0)
            case "land":
                return lambda: self._do(self._land(side, event.day)), _nothing
            case "promote":
                return lambda: self._do(self._promote(side, event.number)), _nothing
            case "person says no" | "person says nothing" | "person says both":
                return put(side.person, "says", event.kind.split()[-1]), put(side.person, "says", YES)
            case "clear":
                return lambda: self._clear(side, event), _nothing
            case "fail":
                return lambda: self._fail(side, event), _nothing
            case "cancel":
                return lambda: self._do(self._cancel(side, event)), _nothing
            case "revoke":
                return lambda: self._do(self._revoke(side, other)), _nothing
        raise ValueError(f"nothing is known of `{event.kind}`")

    def _at_commit(self, name: str, when: str) -> None:
        """Kill a gateway at the commit that the plan names."""
        side = self.sides[name]
        if when == "after":
            self.auditor.after_commit(name)
        for armed in self._armed[name]:
            kind, commit, lasts_s = armed
            if kind == when and side.disk.commits >= commit and side.process is not None:
                self._armed[name].remove(armed)
                side.say(f"gateway dies {when} commit {side.disk.commits}")
                side.kill()
                self._disturbances.append(
                    (f"kill gateway {when} a commit", name, self.loop.time(), self.loop.time() + lasts_s)
                )
                self.loop.call_later(lasts_s, side.start)
                raise Killed

    def disturbances(self, *kinds: str, party: str = "") -> list[tuple[float, float]]:
        """Return from when until when something of these kinds has gone on so far, at a party or at any."""
        return [
            (start_s, end_s)
            for kind, whom, start_s, end_s in self._disturbances
            if kind in kinds and party in ("", whom)
        ]

    def _trigger(self, side: Side, event: Event) -> None:
        number = len(side.airflow.runs) + 1
        conf = {"peer": self._peer_of(event)}
        side.airflow.trigger(cast.PIPELINE, f"manual-{side.name}-{number}", conf, event.day)

    def _peer_of(self, event: Event) -> str:
        return event.peer or next(name for name in self.plan.parties if name != event.party)

    def _back_up(self, disk: Disk) -> None:
        disk.kept = disk.backup()

    def _restore(self, side: Side, event: Event) -> None:
        """Let a party's store be as it was `number` seconds ago; a gateway is started over it when the event ends."""
        side.kill()
        side.disk.restore(side.disk.kept)
        side.say(f"store restored as it was {event.number} s ago")

    def _crowd(self, side: Side, n_runs: int) -> None:
        """Enter runs that have ended, all younger than those that go on."""
        store = side.disk.open(side.clock, lambda: True)
        model = store.runs.active()[0]
        now = side.clock()
        for number in range(n_runs):
            run = dataclasses.replace(
                model,
                run_id=f"{model.run_id}9{number}",
                partition=f"{CROWD}{number}",
                dag_run_id=f"old-{number}",
                state="succeeded",
                peer_state="succeeded",
                opened_ms=now + 1,
                closed_ms=now,
                at_rest=True,
                version=1,
                acked_version=1,
            )
            store.runs.add(run)

    def _runs(self, side: Side, day: str) -> list[DagRun]:
        return [run for run in side.airflow.runs.values() if run.partition == day]

    def _clear(self, side: Side, event: Event) -> None:
        for run in self._runs(side, event.day):
            begun = [task for task in run.tasks[2:] if task.state is not None]
            if begun:
                side.airflow.clear(run, begun[event.number % len(begun)].name)

    def _fail(self, side: Side, event: Event) -> None:
        for run in self._runs(side, event.day):
            side.airflow.fail(run, "ann")

    def _do(self, work: Any) -> None:
        self.loop.create_task(work)

    async def _cancel(self, side: Side, event: Event) -> None:
        for run in self._runs(side, event.day):
            found = run.results.get(OPEN_RUN)
            if found:
                try:
                    await side.ask("CancelRun", worker_pb2.CancelRunRequest(run_id=found, reason="a person"))
                except FedtasksError as error:
                    side.say(f"cannot cancel: {error.code}")

    async def _land(self, side: Side, day: str) -> None:
        """Say that a partition has landed, again until it is confirmed."""
        request = worker_pb2.LandPartitionRequest(dataset=cast.dataset(side.name), partition=day, rows=1)
        asked_s = self.loop.time()
        while True:
            try:
                await side.ask("LandPartition", request)
                break
            except FedtasksError as error:
                side.say(f"cannot say that {day} has landed: {error.code}")
                await asyncio.sleep(RETRY_S)
        self.landings.append(Landing(asked_s, self.loop.time(), side.name, day))
        side.say(f"{day} has landed")

    async def _promote(self, side: Side, version: int) -> None:
        """Put a version into use, again while the peer may have changed already: that brings both in step."""
        request = worker_pb2.ChangeChampionRequest(model=MODEL, version=version, reason="a person", actor="ann")
        while True:
            try:
                await side.ask("ChangeChampion", request)
            except FedtasksError as error:
                side.say(f"cannot promote version {version}: {error.code}")
                if not error.retryable:
                    return
                await asyncio.sleep(RETRY_S)
            else:
                side.say(f"version {version} promoted")
                return

    async def _revoke(self, side: Side, holder: str) -> None:
        plan = self.plan
        ticket_id = cast.ticket(plan.parties, side.name, holder, plan.runs, plan.at_once, plan.person).ticket_id
        try:
            await side.ask("RevokeTicket", worker_pb2.RevokeTicketRequest(ticket_id=ticket_id, reason="a person"))
        except FedtasksError as error:
            side.say(f"cannot revoke: {error.code}")
        else:
            self.revocations.append(Revocation(self.loop.time(), side.name, ticket_id))
            side.say(f"ticket {ticket_id} revoked")


def _nothing() -> None: ...
