"""Intersections of one dataset that overlap, as of a bank with two partners: none disturbs another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pytest

from fedtasks.data.tag_files import TagFiles, find_key
from tests.integration.psi_case import Case, bank, codes, numbers, shop
from tests.integration.psi_halves import FOLLOWER, LEADER

pytestmark = pytest.mark.timeout(180)

STAGES = ("prepare", "send", "sign", "answer")
SETTINGS = {"shards": 1, "scheme": "oprf"}
WELL = {LEADER: "", FOLLOWER: ""}


def texts(*ranges: range) -> list[str]:
    return [f"p{number}" for numbers in ranges for number in numbers]


def new_run(case: Case, bank_rows: pd.DataFrame, shop_rows: pd.DataFrame) -> Case:
    """Another run of the same two datasets, which hold other rows by now."""
    case.give(LEADER, bank_rows)
    case.give(FOLLOWER, shop_rows)
    return replace(case, run_id=f"credit.overlap.{next(numbers)}", parties=dict(case.parties))


def stage(run: Case, name: str, attempt: int = 1) -> Mapping[str, str]:
    shard = 0 if name in ("send", "answer") else None
    return codes(run.halves.run("psi", run.run_id, run.parties, SETTINGS, stage=name, shard=shard, attempt=attempt))


def people(run: Case) -> set[str]:
    found = {name: run.people(name) for name in (LEADER, FOLLOWER)}
    assert found[LEADER] == found[FOLLOWER]
    return set(found[LEADER].values())


@pytest.mark.parametrize("signer", [LEADER, FOLLOWER])
def test_run_between_prepare_and_match_outlasts_five_others(case: Case, signer: str) -> None:
    settings = {**SETTINGS, "signer": signer}
    first = new_run(case, bank(texts(range(100))), shop(texts(range(50, 150))))
    assert codes(first.run("psi", **settings)) == WELL

    def step(name: str) -> Mapping[str, str]:
        shard = 0 if name in ("send", "answer") else None
        return codes(run.halves.run("psi", run.run_id, run.parties, settings, stage=name, shard=shard))

    run = new_run(case, bank(texts(range(120))), shop(texts(range(60, 170))))
    parties = run.parties
    for name in STAGES:
        assert step(name) == WELL
    for day in range(1, 6):
        other = new_run(case, bank(texts(range(20 * day, 120 + day))), shop(texts(range(50, 150 + day))))
        assert codes(other.run("psi", **settings)) == WELL
        assert people(other) == set(texts(range(max(50, 20 * day), 120 + day)))
    assert run.parties is parties

    assert step("match") == WELL

    assert people(run) == set(texts(range(60, 120)))
    # Until both sides go on, `match` may be repeated.
    run.give(LEADER, bank(texts(range(120))))
    run.give(FOLLOWER, shop(texts(range(60, 170))))
    assert codes(run.run("align", rows_per_block=60)) == WELL
    last = new_run(case, bank(texts(range(200))), shop(texts(range(100, 300))))
    assert codes(last.run("psi", **settings)) == WELL
    assert people(last) == set(texts(range(100, 200)))
    for party in last.parties.values():
        table = TagFiles(party.storage, "people", find_key(party.storage, "people"))
        assert table.generation().rows == 200  # of the rows of the last run, each once
        assert len(table.kept()) == 2  # nobody reads any more


def test_two_runs_step_by_step_side_by_side_both_end_with_their_own_people(case: Case) -> None:
    runs = []
    for number in range(2):
        runs.append(new_run(case, bank(texts(range(100 + 30 * number))), shop(texts(range(80 - 30 * number, 300)))))
        assert stage(runs[-1], "prepare") == WELL
    for name in (*STAGES[1:], "match"):
        for run in runs:
            assert stage(run, name) == WELL
    assert people(runs[0]) == set(texts(range(80, 100)))
    assert people(runs[1]) == set(texts(range(50, 130)))
