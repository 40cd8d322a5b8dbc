"""Says what must be true of a world, whatever has happened in it. It reads databases, Airflows and wires, no code.

What a gateway means to do is nothing to it: the rules are those that the parties rely on.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedtasks.names import asset_uri
from fedtasks.testing.simulation import cast, operators
from fedtasks.testing.simulation.airflow import HEALTHY_S
from fedtasks.testing.simulation.person import Answer

if TYPE_CHECKING:
    from fedtasks.testing.simulation.world import Landing, World

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

PARTS = {
    "scheduler": ({"scheduler dead": HEALTHY_S}, 8.0),
    "api-server": ({"airflow away": 0.0}, 8.0),
    "Airflow": ({"scheduler dead": HEALTHY_S, "airflow away": 0.0}, 40.0),
}
"""A part of an Airflow, or any part of the peer's.

What makes it not run → after how long that can be seen; and how long after its end a note may still tell of it: looks
have pauses, those at a peer's long ones.
"""

REFUSED = {"TICKET_BUSY", "TICKET_EXHAUSTED"}
"""With what a run ends at the side that lets it go on again while its ticket does not; the other's stays as it was."""

CAUSES = {
    "cancel": {"RUN_CANCELLED", "PEER_CANCELLED"},
    "fail": {"RUN_CANCELLED", "PEER_CANCELLED", "RUN_FAILED", "PEER_FAILED"},
    "revoke": {"TICKET_REVOKED"},
    "clear": REFUSED,
    # A DAG run whose run is lost fails. Of an outcome that was lost before the peer had heard of it nobody knows more
    # than that the receipts differ in it.
    "restore store": {"STORE_RESTORED", "RUN_FAILED", "PEER_FAILED", "RECEIPTS_DIFFER"},
    "person says no": {"APPROVAL_REJECTED"},
    "person says both": {"APPROVAL_REJECTED"},
    "person says nothing": {"APPROVAL_EXPIRED"},
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
            for part in re.findall(rf"{other}'s ([\w-]+) (?:has not been heard of|does not run)", note):
                if not self._is_silent(other, part, self._world.loop.time()):
                    self._find("causes are true", f"{party} says that {other}'s {part} does not run, which does")

    def _is_silent(self, party: str, part: str, at_s: float) -> bool:
        kinds, late_s = PARTS.get(part, ({}, 0.0))
        return any(
            start_s + after_s <= at_s <= end_s + late_s
            for kind, after_s in kinds.items()
            for start_s, end_s in self._world.disturbances(kind, party=party)
        )

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
            self._a_person_decides,
            self._landings_are_known,
            self._registries_agree,
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
        if not any(self._plan.of(*CAUSES)) and not self._plan.publishes:
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
                if run_id not in runs[run["peer"]] and self._is_restored(run["peer"]):
                    due.add(0)  # it knew of it, or never did
                elif run_id not in runs[run["peer"]]:
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
                if other is not None and run["state"] != other["state"] and any(map(self._is_refused, (run, other))):
                    continue
                if other is None:
                    yield Violation(rule, f"{run['peer']} knows nothing of {run_id}, which {name} has")
                elif run["peer_state"] != other["state"] or (
                    run["state"] != other["state"] and not (self._is_lost(run) or self._is_lost(other))
                ):
                    told = f"{name} says {run['state']} and of its peer {run['peer_state']}"
                    yield Violation(rule, f"{run_id}: {told}, {run['peer']} says {other['state']}")
                elif run["state"] == "succeeded" and run["receipt"] != other["peer_receipt"]:
                    yield Violation(rule, f"{run_id}: {run['peer']} has not the receipt that {name} has signed")
                elif run["version"] != run["acked_version"]:
                    yield Violation(rule, f"{run_id}: {run['peer']} has not been told all of {name}'s half")

    def _reasons_are_true(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        allowed = set().union(*(CAUSES[event.kind] for event in self._plan.of(*CAUSES)))
        if self._plan.publishes:
            allowed |= {"MODEL_TAKEN", "PEER_FAILED"}  # two runs at once have come to one number
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
                # A holder whose gateway was away cannot know yet; what it sends then, nobody takes.
                and (crossed.sender == revocation.grantor or not self._is_disturbed(crossed.at_s))
            ]
            if late:
                size, last_s = sum(each.size for each in late), late[-1].at_s - revocation.at_s
                text = f"{size} bytes until {last_s:.0f} s after {revocation.ticket_id} was revoked"
                yield Violation("nothing crosses after a revocation", text)

    def _a_person_decides(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        """Nothing of a run crosses before a yes, which counts for later runs of this kind, and none after a no."""
        if not self._plan.person:
            return
        rule = "a person decides"
        for name, side in self._world.sides.items():
            said: dict[str, list[Answer]] = defaultdict(list)
            for answer in side.person.answers:
                said[answer.run_id].append(answer)
            for run_id, answers in said.items():
                if len({answer.approved for answer in answers}) > 1 and not any(self._plan.of("restore store")):
                    yield Violation(rule, f"{name} has taken a yes and a no to {run_id}")
            for run_id, run in runs[name].items():
                if run["initiated"]:
                    continue
                crossed = [each.at_s for each in self._world.network.crossed if each.run_id == run_id]
                last = said[run_id][-1] if said[run_id] else None
                alike = {each for each in runs[name] if runs[name][each]["peer"] == run["peer"]}
                yes_s = [each.asked_s for each in side.person.answers if each.approved and each.run_id in alike]
                if crossed and min(crossed) < min(yes_s, default=math.inf):
                    yield Violation(rule, f"{run_id} has begun at {name} before anybody has said yes")
                if last is None or last.approved:
                    continue
                if _is_done(run) or (crossed and crossed[-1] > last.at_s + HEARTBEAT_S):
                    yield Violation(rule, f"{run_id} goes on at {name} although a person has said no")

    def _registries_agree(self, runs: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        """Each version of a run that is done is at both, with both halves; where no run has failed, one is in use."""
        if not self._plan.publishes:
            return
        has_ended = not all(_is_done(run) for rows in runs.values() for run in rows.values())
        for name, rows in runs.items():
            for peer in {run["peer"]: None for run in rows.values() if not self._is_restored(name, run["peer"])}:
                done = {run_id for run_id, run in rows.items() if not has_ended or _is_done(run)}
                ours = {_version(row) for row in self._rows(name, "models") if row["run_id"] in done}
                theirs = {_version(row, mirrored=True) for row in self._rows(peer, "models") if row["run_id"] in done}
                in_use = [self._champions(each) for each in (name, peer)]
                if ours != theirs:
                    yield Violation("registries agree", f"{name} has {sorted(ours)}, {peer} has {sorted(theirs)}")
                elif not has_ended and in_use[0] != in_use[1]:
                    yield Violation("registries agree", f"{name} uses {in_use[0]}, {peer} uses {in_use[1]}")

    def _champions(self, party: str) -> list[int]:
        return [row["version"] for row in self._rows(party, "models") if row["champion"]]

    def all_know(self) -> bool:
        """Whether each landing is known to everybody who shall."""
        return not any(self._landings_are_known({}))

    def _landings_are_known(self, _: dict[str, dict[str, Row]]) -> Iterator[Violation]:
        """To its own party and who holds a ticket over the dataset, once to each Airflow, and to nobody else."""
        landings: dict[tuple[str, str], list[Landing]] = defaultdict(list)
        for landing in self._world.landings:
            landings[landing.party, landing.partition].append(landing)
        for (party, partition), times in landings.items():
            asked_s = min(landing.asked_s for landing in times)
            revoked_s = min((each.at_s for each in self._world.revocations if each.grantor == party), default=math.inf)
            for knower in self._plan.parties:
                rows, events = self._known(knower, party, partition)
                may_know = knower == party or asked_s <= revoked_s
                must_know = knower == party or revoked_s == math.inf
                is_whole = (rows == 1 and events == {1}) or self._is_restored(party, knower)
                if max(events) > 1 or (must_know and not is_whole) or (not may_know and rows + max(events)):
                    told = f"{knower} has {rows} rows and {sorted(events)} events of {party}'s {partition}"
                    yield Violation("landings are known", told)

    def _known(self, knower: str, party: str, partition: str) -> tuple[int, set[int]]:
        """Return how often a party's store, and each asset of its Airflow, has a landing."""
        landing, assets = (party, cast.dataset(party), partition), self._world.sides[knower].airflow.assets
        rows = [
            tuple(row[name] for name in ("party", "dataset", "partition")) for row in self._rows(knower, "landings")
        ]
        uris = asset_uri(party), asset_uri(party, cast.dataset(party))
        return rows.count(landing), {assets.get(uri, []).count(partition) for uri in uris}

    def _is_refused(self, run: Row) -> bool:
        """Whether a side has let a run go on again and its peer did not."""
        return bool(run["failure"]) and json.loads(run["failure"])["code"] in REFUSED

    def _is_lost(self, run: Row) -> bool:
        """Whether the end of a run was lost with a store, which its party knows: it is never merged with the peer's."""
        return bool(run["state"] == "failed" and json.loads(run["failure"])["code"] == "STORE_RESTORED")

    def _is_restored(self, *parties: str) -> bool:
        return any(event.party in parties for event in self._plan.of("restore store"))

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


def _version(row: Row, *, mirrored: bool = False) -> tuple[int, str, str, str]:
    """Return what makes a version, as its party has it or as the peer must have it."""
    digests = (row["peer_digest"], row["own_digest"]) if mirrored else (row["own_digest"], row["peer_digest"])
    return row["version"], row["run_id"], *digests


def _is_done(run: Row) -> bool:
    return bool(run["state"] == "succeeded")


def _is_crowd(run: Row) -> bool:
    """Whether a run is one that nobody but the simulation has entered."""
    return str(run["partition"]).startswith("crowd")
