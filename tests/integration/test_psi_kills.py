"""Intersection and alignment of two processes of which one is killed: the next attempt finds what any would."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedtasks.data.blocks import TAG, Blocks
from fedtasks.data.storage import local_path
from fedtasks.errors import DataMissing
from tests.integration.psi_case import Case, Keys, bank, codes, numbers, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended, Halves

pytestmark = pytest.mark.timeout(120)

PEER = {LEADER: FOLLOWER, FOLLOWER: LEADER}
TASKS = ("psi", "align")
IDS = 400
KILLS = 10
QUICK_KILLS = 1


def texts(numbers: range) -> list[str]:
    return [f"p{number}" for number in numbers]


def attempt(case: Case, task: str, number: int, kill_after: dict[str, int] | None = None) -> dict[str, Ended]:
    settings = {"psi": {"shards": 4, "scheme": "oprf"}, "align": {"rows_per_block": 60}}[task]
    return case.halves.run(task, case.run_id, case.parties, settings, attempt=number, kill_after=kill_after)


def killed_then_whole(case: Case, task: str, victim: str, sent: int) -> None:
    """Kill a half when it has sent so many bytes; run the task again."""
    assert codes(attempt(case, task, 1, {victim: sent})) == {victim: "KILLED", PEER[victim]: "PEER_FAILED"}
    for name in (LEADER, FOLLOWER):
        with pytest.raises(DataMissing, match="has published nothing"):
            case.storage(name).published(task)
    ended = attempt(case, task, 2)
    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended


# 400 ids cross either way, 32 bytes each.
@pytest.mark.parametrize(
    ("victim", "sent"),
    [(LEADER, 0), (LEADER, IDS * 32 // 2), (FOLLOWER, IDS * 32 // 2), (FOLLOWER, IDS * 32)],
    ids=["as it greets", "asking", "answering", "comparing"],
)
def test_psi_of_a_killed_half_equals_a_join_and_leaves_nothing(case: Case, victim: str, sent: int) -> None:
    case.give(LEADER, bank(texts(range(IDS))))
    case.give(FOLLOWER, shop(texts(range(250, 600))))

    killed_then_whole(case, "psi", victim, sent)

    assert case.people(LEADER) == case.people(FOLLOWER)
    assert set(case.people(LEADER).values()) == set(texts(range(250, IDS)))
    assert case.halves.accounts[FOLLOWER].uses == [("ids_blinded", IDS)]
    # Neither ids of the run nor what an engine kept for the killed process.
    assert not [path for path in case.root.rglob("*") if path.name == "state" or path.name.startswith("duckdb")]


@pytest.mark.parametrize(("victim", "sent"), [(LEADER, 0), (FOLLOWER, 200)], ids=["as it greets", "comparing"])
def test_align_of_a_killed_half_gives_every_row_once_and_leaves_nothing(case: Case, victim: str, sent: int) -> None:
    case.give(LEADER, bank(texts(range(IDS))))
    case.give(FOLLOWER, shop(texts(range(250, 600))))
    assert codes(attempt(case, "psi", 1)) == {LEADER: "", FOLLOWER: ""}

    killed_then_whole(case, "align", victim, sent)

    blocks = {name: Blocks.open(case.storage(name)) for name in (LEADER, FOLLOWER)}
    assert blocks[LEADER].order_digest == blocks[FOLLOWER].order_digest
    people = case.people(LEADER)
    tags = blocks[LEADER].table()[TAG].to_pylist()
    assert sorted(people[tag] for tag in tags) == sorted(people.values())
    amounts = {f"p{number}": float(number) for number in range(IDS)}
    assert blocks[LEADER].table()["Amount"].to_pylist() == [amounts[people[tag]] for tag in tags]
    assert not [path for path in case.root.rglob("*") if path.name == "state" or path.name.startswith("duckdb")]


@dataclass(frozen=True)
class Undisturbed:
    """What both tasks left without interruption, and how much each half had sent when it was done."""

    files: dict[str, dict[str, bytes]]
    sent: dict[str, dict[str, int]]


def give_both(case: Case) -> None:
    case.give(LEADER, bank(texts(range(IDS))))
    case.give(FOLLOWER, shop(texts(range(250, 600))))


def published(case: Case, task: str) -> dict[str, bytes]:
    """Return the bytes of all files that a task has published on both sides."""
    found = {}
    for name in (LEADER, FOLLOWER):
        manifest = case.storage(name).published(task)
        manifest.verify()
        for entry in manifest.files:
            found[f"{name}/{entry.name}"] = local_path(manifest.path(entry.name)).read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(halves: Halves, root: Path, keys: Keys) -> Undisturbed:
    number = next(numbers)
    folder = root / f"case-{number}"
    folder.mkdir()
    case = Case(halves, folder, keys, f"credit.2026-11-21.{number}")
    give_both(case)
    files, sent = {}, {}
    for task in TASKS:
        assert codes(attempt(case, task, 1)) == {LEADER: "", FOLLOWER: ""}
        files[task] = published(case, task)
        sent[task] = {name: halves.accounts[name].bytes_sent for name in (LEADER, FOLLOWER)}
    return Undisturbed(files, sent)


@pytest.mark.parametrize(
    "number", [pytest.param(each, marks=[pytest.mark.slow] if each >= QUICK_KILLS else []) for each in range(KILLS)]
)
@pytest.mark.parametrize("victim", [LEADER, FOLLOWER])
@pytest.mark.parametrize("task", TASKS)
def test_half_killed_at_any_byte_gives_the_bytes_of_an_undisturbed_run(
    undisturbed: Undisturbed, case: Case, task: str, victim: str, number: int
) -> None:
    give_both(case)
    if task == "align":
        assert codes(attempt(case, "psi", 1)) == {LEADER: "", FOLLOWER: ""}
    after = random.Random(f"{task} {victim} {number}").randrange(undisturbed.sent[task][victim])
    print(f"{victim} is killed when it has sent {after} of {undisturbed.sent[task][victim]} bytes")

    case.halves.accounts.clear()  # a half that is killed leaves none
    first = codes(attempt(case, task, 1, {victim: after}))
    signed = [case.halves.accounts[FOLLOWER].items] if FOLLOWER in case.halves.accounts else []

    # The other half may have had all that it needed before.
    assert first[victim] == "KILLED"
    assert first[PEER[victim]] in ("PEER_FAILED", "")
    second = attempt(case, task, 2)
    assert second[LEADER].outcome == second[FOLLOWER].outcome is not None, second
    assert published(case, task) == undisturbed.files[task]
    if task == "psi":
        # The second attempt asked for the very files that the first had, if any: no id is signed twice.
        signed.append(case.halves.accounts[FOLLOWER].items)
        assert sum({name: amount for items in signed for name, amount in items.items()}.values()) == IDS
