"""PSI and alignment over days, by two processes, against dictionaries of the newest row of each person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtasks import private
from fedtasks.data import partitions
from fedtasks.data.blocks import SPLIT, TAG, TEST, TRAIN, Blocks
from fedtasks.data.storage import write_json
from tests.integration.psi_case import Case, codes, numbers
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended

pytestmark = pytest.mark.timeout(400)

COLUMN = {LEADER: "Amount", FOLLOWER: "Job"}
MODEL = "credit"


@dataclass
class Days:
    """Two datasets that grow, and what a run must find in them."""

    case: Case
    written: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {LEADER: {}, FOLLOWER: {}})

    def land(self, name: str, day: str, rows: Mapping[str, Any]) -> None:
        """Write a day's rows (id → value) and mark them as complete."""
        self.write(name, day, rows)
        partitions.land(self.case.parties[name].datasets[0], day)

    def write(self, name: str, day: str, rows: Mapping[str, Any]) -> None:
        folder = self.case.root / name / "days" / day
        private.make_folders(folder)
        table = pd.DataFrame({"id": list(rows), COLUMN[name]: list(rows.values())})
        if name == LEADER:
            table["Status"] = ["good" if int(person[1:]) % 3 else "bad" for person in rows]
        table.to_parquet(folder / "part.parquet", row_group_size=16)
        self.written[name][day] = dict(rows)

    def newest(self, name: str, last: str, *, landed: set[str]) -> dict[str, tuple[str, Any]]:
        """Return of each person the day and value of the newest row."""
        found = {}
        for day, rows in sorted(self.written[name].items()):
            if day <= last and day in landed:
                found |= {person: (day, value) for person, value in rows.items()}
        return found

    def run(self, task: str, day: str, **settings: Any) -> dict[str, Ended]:
        return self.case.halves.run(task, self.case.run_id, self.case.parties, settings, partition=day)

    def begin(self, day: str) -> None:
        self.case.run_id = f"credit.{day}.{next(numbers)}"

    def learn(self, consumed: Mapping[str, list[str]]) -> None:
        """Let both registries say what the version in use has learnt from."""
        for name, days in consumed.items():
            write_json(f"{self.case.parties[name].storage}/{MODEL}.json", {"people": days})

    def blinded(self) -> int:
        """Return how many ids the client has sent in the last intersection."""
        uses = [amount for name in (LEADER, FOLLOWER) for _, amount in self.case.halves.accounts[name].uses]
        return max(uses, default=0)


@pytest.fixture
def days(case: Case) -> Days:
    for name in (LEADER, FOLLOWER):
        case.give(name, pd.DataFrame({"id": ["x"]}), uri=f"file://{case.root}/{name}/days/{{partition}}")
    return Days(case)


def people(rng: np.random.Generator, first: int, last: int, share: float = 1.0) -> dict[str, Any]:
    return {f"p{number:04d}": None for number in range(first, last) if rng.random() < share}


def values(name: str, day: str, ids: Mapping[str, Any]) -> dict[str, Any]:
    number = float(day[-2:])
    return {person: number + int(person[1:]) / 10_000 if name == LEADER else f"{day} {person}" for person in ids}


def check(
    days: Days, day: str, aligned: Mapping[str, Ended], landed: set[str], consumed: Mapping[str, set[str]]
) -> int:
    """Compare both sides' blocks with what the rows as written say; return how many people are new."""
    assert aligned[LEADER].outcome == aligned[FOLLOWER].outcome is not None, aligned
    newest = {name: days.newest(name, day, landed=landed) for name in (LEADER, FOLLOWER)}
    shared = newest[LEADER].keys() & newest[FOLLOWER].keys()
    new = {p for p in shared if any(newest[name][p][0] not in consumed[name] for name in (LEADER, FOLLOWER))}
    for name in (LEADER, FOLLOWER):
        owner = days.case.people(name)
        assert set(owner.values()) == shared
        table = Blocks.open(days.case.storage(name)).table()
        found = {
            (owner[tag], split): value
            for tag, split, value in zip(*(table[c].to_pylist() for c in (TAG, SPLIT, COLUMN[name])), strict=True)
        }
        assert len(found) == table.num_rows
        assert {person for person, split in found if split == TRAIN} <= new
        assert new <= {person for person, _ in found}
        assert {person for person, split in found if split == TEST} >= {person for person, _ in found} - new
        assert all(value == newest[name][person][1] for (person, _), value in found.items())
    outcome = aligned[LEADER].outcome
    assert outcome is not None
    assert outcome.counts["rows_new"] == len(new)
    return len(new)


def test_days_take_newest_rows_train_on_new_people_and_send_no_id_twice(days: Days) -> None:
    rng = np.random.default_rng(5)
    d1, d2, d3 = "2026-11-21", "2026-11-22", "2026-11-23"
    for name in (LEADER, FOLLOWER):
        days.land(name, d1, values(name, d1, people(rng, 0, 120, 0.8)))
    days.begin(d1)
    assert codes(days.run("psi", d1)) == {LEADER: "", FOLLOWER: ""}
    client = LEADER  # the follower signs
    assert days.blinded() == len(days.written[client][d1])
    settings = {"rows": "new", "model": MODEL, "rows_per_block": 40}
    everything = check(days, d1, days.run("align", d1, **settings), {d1}, {LEADER: set(), FOLLOWER: set()})
    test_rows = {name: Blocks.open(days.case.storage(name)).table(TEST).num_rows for name in (LEADER, FOLLOWER)}

    days.learn({LEADER: [d1], FOLLOWER: [d1]})
    days.land(LEADER, d2, values(LEADER, d2, people(rng, 90, 150, 0.5)))
    days.write(FOLLOWER, d2, values(FOLLOWER, d2, people(rng, 60, 130, 0.3)))  # late: not marked yet
    days.land(LEADER, d3, values(LEADER, d3, people(rng, 100, 160, 0.4)))
    days.land(FOLLOWER, d3, values(FOLLOWER, d3, people(rng, 110, 150, 0.5)))
    days.begin(d3)
    assert codes(days.run("psi", d3)) == {LEADER: "", FOLLOWER: ""}
    known = days.written[client][d1].keys()
    assert days.blinded() == len((days.written[client][d2].keys() | days.written[client][d3].keys()) - known)
    late = days.case.parties[FOLLOWER].datasets[0]
    partitions.land(late, d2)  # between two tasks of one run: it is the next run's
    aligned = days.run("align", d3, **settings)
    landed = {d1, d3}
    newest = days.written[FOLLOWER].pop(d2)
    new = check(days, d3, aligned, landed | {d2}, {LEADER: {d1}, FOLLOWER: {d1}})
    assert 0 < new < everything
    assert Blocks.open(days.case.storage(LEADER)).learnt == (d2, d3)
    assert Blocks.open(days.case.storage(FOLLOWER)).learnt == (d3,)
    assert Blocks.open(days.case.storage(LEADER)).table(TEST).num_rows >= test_rows[LEADER]

    days.written[FOLLOWER][d2] = newest
    days.learn({LEADER: [d1, d2, d3], FOLLOWER: [d1, d3]})
    days.begin(d3)
    assert codes(days.run("psi", d3)) == {LEADER: "", FOLLOWER: ""}
    assert days.blinded() == 0, "an id was sent twice"
    assert check(days, d3, days.run("align", d3, **settings), {d1, d2, d3}, {LEADER: {d1, d2, d3}, FOLLOWER: {d1, d3}})
    assert Blocks.open(days.case.storage(FOLLOWER)).learnt == (d2,)


def test_run_of_a_day_that_has_not_landed_is_refused_with_its_name(days: Days, tmp_path: Path) -> None:
    for name in (LEADER, FOLLOWER):
        days.land(
            name, "2026-11-21", {"p0001": 1.0 if name == LEADER else "a", "p0002": 2.0 if name == LEADER else "b"}
        )
    days.land(LEADER, "2026-11-22", {"p0003": 1.0})
    days.begin("2026-11-22")
    ended = days.run("psi", "2026-11-22")
    assert ended[FOLLOWER].code == "DATA_NOT_LANDED"
    assert "2026-11-22" in ended[FOLLOWER].public


def test_empty_days_block_no_later_day_and_a_run_of_nothing_is_refused(days: Days) -> None:
    d1, d2, d3 = "2026-11-21", "2026-11-22", "2026-11-23"
    ids = {f"p{number:04d}": None for number in range(40)}
    days.land(LEADER, d1, values(LEADER, d1, ids))
    for name, day in ((FOLLOWER, d1), (FOLLOWER, d2), (LEADER, d2), (LEADER, d3)):
        folder = days.case.root / name / "days" / day
        private.make_folders(folder)
        (folder / "_SUCCESS").touch()
        days.written[name][day] = {}
    days.begin(d1)
    assert codes(days.run("psi", d1)) == dict.fromkeys((LEADER, FOLLOWER), "DATA_INTERSECTION_EMPTY")
    days.land(FOLLOWER, d3, values(FOLLOWER, d3, dict(list(ids.items())[10:])))
    days.begin(d3)
    assert codes(days.run("psi", d3)) == {LEADER: "", FOLLOWER: ""}
    aligned = days.run("align", d3, rows="new", model=MODEL, rows_per_block=40)
    assert check(days, d3, aligned, {d1, d2, d3}, {LEADER: set(), FOLLOWER: set()}) == 30
    assert Blocks.open(days.case.storage(FOLLOWER)).learnt == (d1, d2, d3)


def test_day_of_which_the_leader_has_never_had_a_row_is_refused_with_its_dataset(days: Days) -> None:
    day = "2026-11-21"
    folder = days.case.root / LEADER / "days" / day
    private.make_folders(folder)
    partitions.land(days.case.parties[LEADER].datasets[0], day)
    days.land(FOLLOWER, day, values(FOLLOWER, day, {"p0001": None}))
    days.begin(day)
    ended = days.run("psi", day)
    assert codes(ended) == {LEADER: "DATA_LABEL_INVALID", FOLLOWER: "PEER_FAILED"}
    assert "no rows found" in ended[LEADER].detail
