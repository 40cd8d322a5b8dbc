"""Who is held out for the test: the same people after a rotation of the key, or whom the leader chooses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from fedtasks import private
from fedtasks.data import partitions
from fedtasks.data.blocks import SPLIT, TAG, TEST, TRAIN, Blocks
from tests.integration.psi_case import Case, bank, codes, numbers, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended

pytestmark = pytest.mark.timeout(400)

IDS = [f"u{number}" for number in range(400)]


def align(case: Case, *, psi: dict[str, Any] | None = None, partition: str = "", **settings: Any) -> dict[str, Ended]:
    """Intersect and align in a run of its own; returns how `align` ended."""
    case.run_id = f"credit.held.{next(numbers)}"
    for task, chosen in (("psi", psi or {}), ("align", settings)):
        ended = case.halves.run(task, case.run_id, case.parties, chosen, partition=partition)
        if task == "psi":
            assert codes(ended) == {LEADER: "", FOLLOWER: ""}, ended
    return ended


def held_out(case: Case) -> set[str]:
    """Return whose rows are test rows; asserts that both sides say the same of the same rows."""
    tables = {name: Blocks.open(case.storage(name)).table() for name in (LEADER, FOLLOWER)}
    for column in (TAG, SPLIT):
        assert tables[LEADER][column].equals(tables[FOLLOWER][column])
    owner = case.people(LEADER)
    tests = tables[LEADER].filter(pc.equal(tables[LEADER][SPLIT], TEST))
    return {owner[tag] for tag in tests[TAG].to_pylist()}


def test_same_people_are_held_out_after_a_rotation_of_the_key_and_by_another_scheme(case: Case) -> None:
    case.give(LEADER, bank(IDS))
    case.give(FOLLOWER, shop(IDS[::-1]))
    found, tags = [], []
    for psi in ({"scheme": "oprf"}, {"scheme": "oprf"}, {"scheme": "blind_rsa"}):
        assert codes(align(case, psi=psi, rows_per_block=150)) == {LEADER: "", FOLLOWER: ""}
        found.append(held_out(case))
        tags.append(set(case.people(LEADER)))
        case.keys = dataclasses.replace(case.keys, number=2)  # a new key for what is given from here on
        case.give(LEADER, bank(IDS))
        case.give(FOLLOWER, shop(IDS[::-1]))
    assert found[0] == found[1] == found[2]
    assert 60 < len(found[0]) < 140
    assert not tags[0] & tags[1]


@pytest.mark.parametrize("rows_per_block", [70, 100_000])
def test_each_class_keeps_its_share_for_the_test_and_the_follower_is_told_who(case: Case, rows_per_block: int) -> None:
    status = ["good" if number % 20 == 0 else "bad" for number in range(len(IDS))]
    case.give(LEADER, bank(IDS, Status=status))
    case.give(FOLLOWER, shop(IDS[::-1]))
    ended = align(case, held_out_by="label", test_fraction=0.25, rows_per_block=rows_per_block)
    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    found = held_out(case)
    good = {person for person, is_good in zip(IDS, status, strict=True) if is_good == "good"}
    assert len(found & good) == 5
    assert len(found - good) == 95
    align(case, held_out_by="label", test_fraction=0.25)
    assert held_out(case) == found


def test_column_of_the_leader_says_who_is_held_out(case: Case) -> None:
    test = [["test", "train", "", "0"][number % 4] for number in range(len(IDS))]
    case.give(LEADER, bank(IDS, part=test), held_out="part")
    case.give(FOLLOWER, shop(IDS[::-1]))
    ended = align(case, held_out_by="column")
    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    assert held_out(case) == set(IDS[::4])


def test_newest_partition_of_the_leader_is_held_out(case: Case) -> None:
    days = {"2026-11-20": IDS[:200], "2026-11-21": IDS[150:300]}
    for name, make in ((LEADER, bank), (FOLLOWER, shop)):
        case.give(name, make(IDS), uri=f"file://{case.root}/{name}/days/{{partition}}")
        for day, ids in days.items():
            folder = case.root / name / "days" / day
            private.make_folders(folder)
            make(ids).to_parquet(folder / "part.parquet")
            partitions.land(case.parties[name].datasets[0], day)
    ended = align(case, held_out_by="partition", partition="2026-11-21")
    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    assert held_out(case) == set(IDS[150:300])
    ended = align(case, held_out_by="partition", test_partitions=2, partition="2026-11-21")
    assert codes(ended)[LEADER] == "DATA_LABEL_INVALID"
    assert "no row is for training" in ended[LEADER].detail


@pytest.mark.parametrize(
    ("by", "named"), [("partition", "no partitions"), ("column", "held_out"), ("label", "label of classes")]
)
def test_leader_that_cannot_decide_is_told_before_anything_crosses(case: Case, by: str, named: str) -> None:
    case.give(LEADER, bank(IDS).drop(columns="Status"), label=None, label_positive=None)
    case.give(FOLLOWER, shop(IDS))
    ended = align(case, held_out_by=by)
    assert codes(ended)[LEADER] == "CONFIG_INVALID"
    assert named in ended[LEADER].detail


@pytest.mark.parametrize("fraction", [0.01, 0.25])
def test_test_set_without_a_positive_is_found_before_training(case: Case, fraction: float) -> None:
    case.give(LEADER, bank(IDS))
    case.give(FOLLOWER, shop(IDS))
    align(case, test_fraction=fraction)
    tests = held_out(case)
    status = np.where(pd.Series(IDS).isin(tests), "bad", [("bad", "good")[number % 2] for number in range(len(IDS))])
    case.give(LEADER, bank(IDS, Status=status))
    ended = align(case, test_fraction=fraction)
    assert codes(ended)[LEADER] == "DATA_LABEL_INVALID"
    assert f"all {len(tests)} rows for the test are of one class" in ended[LEADER].detail
    assert "held_out_by: label" in ended[LEADER].detail
    ended = align(case, held_out_by="label", test_fraction=fraction)
    assert codes(ended) == {LEADER: "", FOLLOWER: ""}, ended


def test_train_and_test_are_all_there_is(case: Case) -> None:
    case.give(LEADER, bank(IDS))
    case.give(FOLLOWER, shop(IDS))
    align(case)
    splits = Blocks.open(case.storage(LEADER)).table()[SPLIT].to_pylist()
    assert set(splits) == {TRAIN, TEST}
