"""Says what must be true of a world, whatever has happened in it. It reads databases, Airflows and wires, no code.

What a gateway means to do is nothing to it: the rules are those that the parties rely on.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedtasks.testing.simulation import operators

if TYPE_CHECKING:
    from fedtasks.testing.simulation.world import World

HEARTBEAT_S = 10.0
"""How long after a revocation bytes may still cross."""

NOTICE_S = 17.0
"""How long after a fault has healed a note may still tell of it: a lost connection is noticed, and dialled again."""

WIRE = (
    "cut",
    "hold",
    "slow",
    "clock",
    "kill gateway",
    "kill gateway before a commit",
    "kill gateway after a commit",
    "restore store",
)
"""What may make a gateway unreachable, or seem so."""

CAUSES = {
    "cancel": {"RUN_CANCELLED", "PEER_CANCELLED"},
    "fail": {"RUN_CANCELLED", "PEER_CANCELLED", "RUN_FAILED", "PEER_FAILED"},
    "revoke": {"TICKET_REVOKED"},
    "clear": set(),
    "restore store": {"STORE_RESTORED"},
}
"""What ends runs, or has them repeated → the reasons that a run may then end with."""


@dataclass(frozen=True)
class Violation:
    """A rule that did not hold.

    Parameters
    ----------
    rule
        Which one.
    text
        What was found instead.
    """

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


Row = dict[str, Any]


class Auditor:
    """Audits one world: at every commit what must hold at any time, and at the end the rest.

    Parameters
    ----------
    world
        What is audited.
    """

    def __init__(self, world: World) -> None:
        self._world, self._plan = world, world.plan
        self._found: list[Violation] = []
        self._notes: list[tuple[float, str, str]] = []

    # -------------------------------------------------------------------------------------------------- at any time
    def after_commit(self, party: str) -> None:
        """Look at a database in which something has just changed."""
        counted = self._connection(party).execute(
            "SELECT ticket_id, count(*) FROM runs WHERE state = 'running' AND NOT initiated GROUP BY ticket_id"
        )
        for ticket_id, under_way in counted:
            if under_way > self._plan.at_once:
                self._find("limits hold", f"{under_way} runs under {ticket_id} at once, {self._plan.at_once} allowed")

    def after_note(self, party: str, note: str) -> None:
        """Look at what a DAG run's page says now."""
        for other in self._plan.parties:
            if f"{other}'s gateway is unreachable" in note and not self._is_disturbed(self._world.loop.time()):
                self._find("causes are true", f"{party} calls {other} unreachable, which it is not")

    def _is_disturbed(self, at_s: float) -> bool:
        return any(start_s <= at_s <= end_s + NOTICE_S for start_s, end_s in self._world.disturbances(*WIRE))

    def accounts_agree(self) -> bool:
        """Whether each party knows of every run what the others say of it."""
        return not any(self._accounts_agree(self._runs()))

    # ---------------------------------------------------------------------------------------------------- at the end
    def audit(self) -> list[Violation]:
        """Return every rule that did not hold."""
        runs = self._runs()
        rules: tuple[Callable[[dict[str, dict[str, Row]]], Iterator[Violation]], ...] = (
            self._every_end_is_reached,
            self._a_day_is_done_once,
            self._a_run_is_charged_once,
            self._accounts_agree,
            self._reasons_are_true,
            self._nothing_crosses_after_a_revocation,
            self._outputs_are_those_of_the_data,
        )
        for rule in rules:
            self._found += rule(runs)
        return list(dict.fromkeys(self._found))

    def _every_end_is_reached(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        rule = "every end is reached"
        for name, side in self._world.sides.items():
            for dag_run in side.airflow.runs.values():
                if dag_run.state == "running":
                    states = {task.name: task.state for task in dag_run.tasks}
                    yield Violation(rule, f"DAG run {dag_run.run_id} of {name} goes on: {states}, {dag_run.note}")
            for run in runs[name].values():
                if run["state"] == "running":
                    yield Violation(rule, f"run {run['run_id']} goes on at {name}")
        if not any(self._plan.of(*CAUSES)):
            done = {run["partition"] for rows in runs.values() for run in rows.values() if run["state"] == "succeeded"}
            for day in sorted({event.day for event in self._plan.of("trigger")} - done):
                reasons = {run["run_id"]: run["failure"] for rows in runs.values() for run in rows.values()}
                yield Violation(rule, f"{day} is not done although nobody has ended it: {reasons}")

    def _a_day_is_done_once(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        done = {(run["partition"], run_id) for rows in runs.values() for run_id, run in rows.items() if _is_done(run)}
        for day, times in Counter(day for day, _ in done).items():
            if times > 1:
                ids = sorted(run_id for each, run_id in done if each == day)
                yield Violation("a day is done once", f"{day} was done {times} times: {ids}")

    def _a_run_is_charged_once(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        rule, charged = "a run is charged once", defaultdict(list)
        crossed = {each.run_id for each in self._world.network.crossed}
        for name, side in self._world.sides.items():
            uses = {use["run_id"]: use["amount"] for use in self._rows(name, "uses") if use["kind"] == "runs"}
            reopened = Counter(
                json.loads(entry["detail"])["run_id"]
                for entry in self._rows(name, "audit")
                if entry["action"] == "run.reopen" and json.loads(entry["detail"])["charged"]
            )
            begun = {run_id for _, run_id in side.airflow.runs}
            for run_id, run in runs[name].items():
                if run["initiated"] or _is_crowd(run):
                    continue
                due = {1 + reopened[run_id]} if run["dag_run_id"] in begun else {0}
                if run_id not in runs[run["peer"]]:
                    due = {0}  # nothing can have left for who does not know of it
                elif run["state"] == "failed" and run_id not in crossed:
                    due.add(0)  # nothing has left
                if uses.get(run_id, 0) not in due:
                    yield Violation(rule, f"{name} has charged {uses.get(run_id, 0)} for {run_id} and not {due}")
            for run_id in begun - runs[name].keys() - uses.keys():
                if any(run_id in other for other in runs.values()):
                    yield Violation(rule, f"{name} knows nothing any more of {run_id}, which it has begun")
            if len(begun & {run_id for other in runs.values() for run_id in other}) > self._plan.runs:
                yield Violation(rule, f"{name} has begun more runs than the {self._plan.runs} that it has granted")
            for run_id in uses:
                charged[runs[name][run_id]["partition"] if run_id in runs[name] else run_id].append(run_id)
        if not any(self._plan.of(*CAUSES)):
            for day, ids in charged.items():
                if len(ids) > 1:
                    yield Violation(rule, f"{day} has cost {len(ids)} runs: {sorted(ids)}")

    def _accounts_agree(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        rule = "both accounts agree"
        lost = {name: {run["run_id"] for run in self._rows(name, "lost_runs")} for name in runs}
        for name, rows in runs.items():
            for run_id, run in rows.items():
                other = runs[run["peer"]].get(run_id)
                if _is_crowd(run):
                    continue  # entered by nobody but the simulation
                if other is None and run_id in lost[run["peer"]] and run["state"] != "running":
                    continue  # its store was restored, and it knows that
                if other is None and run["state"] == "failed" and not run["initiated"]:
                    continue  # it has asked for it and could not enter it, and nothing came of it here
                if other is None:
                    yield Violation(rule, f"{run['peer']} knows nothing of {run_id}, which {name} has")
                elif run["state"] != other["state"] or run["peer_state"] != other["state"]:
                    told = f"{name} says {run['state']} and of its peer {run['peer_state']}"
                    yield Violation(rule, f"{run_id}: {told}, {run['peer']} says {other['state']}")
                elif run["state"] == "succeeded" and run["receipt"] != other["peer_receipt"]:
                    yield Violation(rule, f"{run_id}: {run['peer']} has not the receipt that {name} has signed")
                elif run["version"] != run["acked_version"]:
                    yield Violation(rule, f"{run_id}: {run['peer']} has not been told all of {name}'s half")

    def _reasons_are_true(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        allowed = set().union(*(CAUSES[event.kind] for event in self._plan.of(*CAUSES)))
        for name, rows in runs.items():
            begun = {run_id for _, run_id in self._world.sides[name].airflow.runs}
            for run in rows.values():
                failure = json.loads(run["failure"]) if run["failure"] else None
                true = set(allowed)
                if run["run_id"] not in runs[run["peer"]]:
                    true.add("RUN_UNCLAIMED")
                if run["dag_run_id"] not in begun and any(self._plan.of("airflow away")):
                    true.add("AIRFLOW_UNREACHABLE")
                if failure and failure["code"] not in true:
                    text = f"{run['run_id']} ended at {name} with {failure['code']}: {failure['text']}"
                    yield Violation("reasons are true", text)

    def _nothing_crosses_after_a_revocation(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        for revocation in self._world.revocations:
            under = {
                run_id for run_id, run in runs[revocation.grantor].items() if run["ticket_id"] == revocation.ticket_id
            }
            late = [
                crossed
                for crossed in self._world.network.crossed
                if crossed.run_id in under
                and crossed.at_s > revocation.at_s + HEARTBEAT_S
                # Nobody can have told the holder over a wire that does not carry.
                and not (crossed.sender != revocation.grantor and self._is_disturbed(crossed.at_s))
            ]
            if late:
                size, last_s = sum(each.size for each in late), late[-1].at_s - revocation.at_s
                text = f"{size} bytes until {last_s:.0f} s after {revocation.ticket_id} was revoked"
                yield Violation("nothing crosses after a revocation", text)

    def _outputs_are_those_of_the_data(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        parties = self._plan.parties
        for name, rows in runs.items():
            for half in self._rows(name, "halves"):
                run = rows[half["run_id"]]
                if not half["own"] or run["state"] != "succeeded" or half["task"] not in ("psi", "train"):
                    continue
                two = [party for party in parties if party in (name, run["peer"])]
                frames = {
                    party: operators.frames_of(party, run["partition"], half["task"], self._plan.frames)
                    for party in two
                }
                outcome = json.loads(half["outcome"] or "{}")
                if outcome.get("digests", {}).get("exchange") != operators.digest_of(frames):
                    text = f"{half['task']} of {half['run_id']} at {name} has another outcome than undisturbed"
                    yield Violation("outputs are those of the data", text)

    # ------------------------------------------------------------------------------------------------------- reading
    def _runs(self) -> dict[str, dict[str, Row]]:
        return {name: {run["run_id"]: run for run in self._rows(name, "runs")} for name in self._plan.parties}

    def _connection(self, party: str) -> sqlite3.Connection:
        return self._world.sides[party].disk.database.driver

    def _rows(self, party: str, table: str) -> list[Row]:
        cursor = self._connection(party).execute(f"SELECT * FROM {table}")  # noqa: S608 - names of this file alone
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _find(self, rule: str, text: str) -> None:
        self._found.append(Violation(rule, text))


def _is_done(run: Row) -> bool:
    return bool(run["state"] == "succeeded")


def _is_crowd(run: Row) -> bool:
    """Whether a run is one that nobody but the simulation has entered."""
    return str(run["partition"]).startswith("crowd")
