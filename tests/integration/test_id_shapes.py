"""What both sides see of their ids when few people are shared, and of their rows before anything crosses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtasks.config import FeatureType
from tests.integration.psi_case import FEATURES, Case, bank, codes, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended

pytestmark = pytest.mark.timeout(120)

ALLOWED, REFUSED = ({name: {"outputs.id_shapes": said} for name in (LEADER, FOLLOWER)} for said in ("classes", "none"))
DIGITS = [f"{13_800_138_000 + n}" for n in range(200)]
FLOATS = [f"{text}.0" for text in DIGITS]
SIZE = {"learns": "size", "scheme": "oprf"}
NAMES = {"few shared", "id shapes"}


def run(case: Case, bounds: dict[str, dict[str, str]], **settings: Any) -> dict[str, Ended]:
    return case.halves.run("psi", case.run_id, case.parties, settings, bounds=bounds)


def crossed(case: Case) -> set[str]:
    return NAMES & {name for account in case.halves.accounts.values() for name in account.names_sent}


@pytest.mark.parametrize("settings", [{"scheme": "oprf"}, SIZE, {"scheme": "oprf", "learns": "client"}])
def test_empty_intersection_shows_both_sides_how_the_ids_are_written(case: Case, settings: dict[str, Any]) -> None:
    case.give(LEADER, bank(DIGITS))
    case.give(FOLLOWER, shop(FLOATS))

    ended = run(case, ALLOWED, **settings)

    assert codes(ended) == dict.fromkeys((LEADER, FOLLOWER), "DATA_INTERSECTION_EMPTY")
    for name, end in ended.items():
        assert "of bank: 11 digits 100 %" in end.detail
        assert "of shop: 13 characters ending in .0 100 %" in end.detail
        assert "shop: they were read as numbers once: take `.0` off" in end.detail
        assert "digits" not in end.public, name
        assert "13800138" not in end.detail
    assert crossed(case) == NAMES


def test_without_the_clause_each_side_sees_its_own_ids_alone(case: Case) -> None:
    case.give(LEADER, bank(DIGITS))
    case.give(FOLLOWER, shop(FLOATS))

    ended = run(case, REFUSED, scheme="oprf")

    assert "11 digits" in ended[LEADER].detail
    assert "ending in .0" in ended[FOLLOWER].detail
    for end, foreign in ((ended[LEADER], "ending"), (ended[FOLLOWER], "11 digits")):
        assert foreign not in end.detail
        assert "`fedtasks doctor --data people`" in end.detail
    assert crossed(case) == set()


def test_intersection_that_is_small_for_one_side_alone_shows_nothing(case: Case) -> None:
    case.give(LEADER, bank([f"{n:05d}" for n in range(2000)]))
    case.give(FOLLOWER, shop([f"{n:05d}" for n in range(10)]))

    ended = run(case, ALLOWED, scheme="oprf")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    assert crossed(case) == {"few shared"}


def test_small_intersection_that_suffices_goes_on_and_shows_the_shapes(case: Case) -> None:
    case.give(LEADER, bank([*DIGITS, "a"]))
    case.give(FOLLOWER, shop([*FLOATS, "a"]))

    ended = run(case, ALLOWED, scheme="oprf")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    assert sorted(case.people(FOLLOWER).values()) == ["a"]
    assert crossed(case) == NAMES


def test_halves_that_disagree_on_the_clause_refuse_each_other(case: Case) -> None:
    # As no two sides of one ticket do: what one would show, the other must have agreed to.
    case.give(LEADER, bank(DIGITS))
    case.give(FOLLOWER, shop(FLOATS))
    ended = run(case, {FOLLOWER: ALLOWED[FOLLOWER]}, scheme="oprf")
    assert codes(ended) == dict.fromkeys((LEADER, FOLLOWER), "CONFIG_DIFFERS")


def test_shapes_are_shown_by_columns_and_in_stages(case: Case) -> None:
    rows = bank(DIGITS), shop(FLOATS)
    for name, table in zip((LEADER, FOLLOWER), rows, strict=True):
        case.give(name, table.assign(place="here"), id="id, place")
    for stage, shard in (("prepare", None), ("send", 0), ("send", 1), ("sign", None), ("answer", 0), ("answer", 1)):
        case.halves.run("psi", case.run_id, case.parties, {"scheme": "oprf"}, stage=stage, shard=shard, bounds=ALLOWED)

    ended = case.halves.run("psi", case.run_id, case.parties, {"scheme": "oprf"}, stage="match", bounds=ALLOWED)

    assert "of shop: id: 13 characters ending in .0 100 %; place: 4 letters, lower case 100 %" in ended[LEADER].detail


# --------------------------------------------------------------------------------------------- before anything crosses
TREES = ("psi", "align", "secureboost")


def jobs(n_categories: int) -> pd.DataFrame:
    return shop([f"{n}" for n in range(3000)]).assign(Job=[f"job {n % n_categories}" for n in range(3000)])


@pytest.mark.parametrize(("kinds", "code"), [(TREES, "DATA_COLUMN_TYPE"), (("psi", "align", "split_nn"), ""), ((), "")])
def test_too_many_categories_are_found_before_ids_are_signed(case: Case, kinds: tuple[str, ...], code: str) -> None:
    case.give(LEADER, bank([f"{n}" for n in range(100)]))
    case.give(FOLLOWER, jobs(1025))

    ended = case.halves.run("psi", case.run_id, case.parties, {"scheme": "oprf"}, kinds=kinds)

    assert ended[FOLLOWER].code == code
    if code:
        text = "column `Job`: 1,025 categories, of which `secureboost` takes at most 1,024"
        assert text in ended[FOLLOWER].detail
        assert case.halves.accounts[FOLLOWER].uses == []


def test_as_many_categories_as_there_may_be_pass(case: Case) -> None:
    case.give(LEADER, bank([f"{n}" for n in range(100)]))
    case.give(FOLLOWER, jobs(1024))
    ended = case.halves.run("psi", case.run_id, case.parties, {"scheme": "oprf"}, kinds=TREES)
    assert ended[FOLLOWER].outcome is not None, ended


def test_what_harms_a_model_is_said_and_does_not_stop_the_run(case: Case) -> None:
    amounts = np.where(np.arange(1000) < 40, -999.0, np.linspace(10, 5000, 1000))
    features = {**FEATURES[LEADER], "empty": FeatureType.NUMERIC}
    case.give(LEADER, bank([f"{n}" for n in range(1000)], Amount=amounts, empty=[None] * 1000), features=features)
    case.give(FOLLOWER, shop([f"{n}" for n in range(100)]))

    ended = case.halves.run("psi", case.run_id, case.parties, {"scheme": "oprf"}, kinds=TREES)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
