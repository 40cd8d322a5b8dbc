"""Trained halves on rows that they have not seen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.models.secureboost.settings import TrainSettings
from tests.unit.models.secureboost.boosting import (
    PlainNode,
    PlainTree,
    Problem,
    Trained,
    as_plain,
    problem,
    table,
    train_both,
)

SETTINGS = TrainSettings(trees=3, depth=3, bins=6, min_leaf_rows=2, min_child_weight=0.0, first_tree="both")
KINDS = (["normal", "text"], ["few", "text", "sparse"])


def walk(tree: PlainTree, row: dict[str, dict[str, Any]]) -> float:
    """Go from the root to a leaf, as one would with both parties' rows at hand."""
    number = 1
    while tree[number].leaf is None:
        number = 2 * number + (0 if goes_left(tree[number], row[tree[number].owner][tree[number].feature]) else 1)
    return float(tree[number].leaf or 0.0)


def goes_left(node: PlainNode, value: Any) -> bool:
    if node.threshold is None:
        return bool(value == node.category)
    if value is None or math.isnan(value):
        return node.missing_left
    return bool(value <= node.threshold)


def walk_all(trained: Trained, rows: Problem) -> list[float]:
    sides = [{"leader": ours, "follower": theirs} for ours, theirs in both_rows(rows)]
    return [trained.leader.base[0] + sum(walk(tree, row) for tree in as_plain(trained)) for row in sides]


def both_rows(rows: Problem) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(rows.leader.to_pylist(), rows.follower.to_pylist(), strict=True))


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.3]), later=st.sampled_from([0.0, 0.5]))
def test_rows_not_seen_in_training_score_as_one_walks_down_the_trees(
    tmp_path_factory: pytest.TempPathFactory, seed: int, missing: float, later: float
) -> None:
    case = problem(seed, KINDS, 60, missing=missing)
    trained = train_both(case, SETTINGS, tmp_path_factory.mktemp("walk"))
    rng = np.random.default_rng(seed + 1)
    ours, theirs = (table(rng, kinds, 40, later) for kinds in KINDS)
    rows = replace(case, leader=only_known(ours, trained.leader), follower=only_known(theirs, trained.follower))
    np.testing.assert_allclose(trained.raw(rows)[:, 0], walk_all(trained, rows), rtol=0, atol=1e-12)


def only_known(rows: pa.Table, half: Any) -> pa.Table:
    """Leave out the values of categorical columns that no train row had."""
    for name, values in half.categories.items():
        kept = [value if value in values else None for value in rows[name].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(kept, pa.string()))
    return rows


def test_model_without_splits_of_the_follower_needs_none_of_its_rows(tmp_path: Path) -> None:
    case = problem(1, (["normal"], ["constant"]), 60)
    trained = train_both(case, SETTINGS, tmp_path)
    assert trained.leader.peer_trees == []
    assert trained.follower.allowed(trained.follower.columns(case.follower)).shape == (60, 0)
    np.testing.assert_allclose(trained.raw(case)[:, 0], walk_all(trained, case), rtol=0, atol=1e-12)
