"""Intersection and alignment of two processes of which one is killed: the next attempt finds what any would."""

from __future__ import annotations

import pytest

from fedtasks.data.blocks import TAG, Blocks
from fedtasks.errors import DataMissing
from tests.integration.psi_case import Case, bank, codes, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended

pytestmark = pytest.mark.timeout(120)

PEER = {LEADER: FOLLOWER, FOLLOWER: LEADER}
IDS = 400


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
