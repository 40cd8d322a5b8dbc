"""Pieces that an engine cuts at once are where the workers of the shards look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fedtasks.config import Duckdb, Spark
from fedtasks.errors import ConfigError
from fedtasks.join import batch
from fedtasks.join.settings import JoinSettings
from fedtasks.join.units import WholeLog
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES
from tests.support.join_case import JoinCase
from tests.support.join_logs import Log, Shape, expect, generate

SETTINGS = JoinSettings(shards=2, within_s=4, lateness_s=20)
ENGINES: dict[str, Any] = {"duckdb": Duckdb("64MB", 2), "spark": Spark("local[2]", "512m")}


@pytest.fixture
def logs() -> tuple[Log, Log]:
    return generate(Shape(1200, rate=5, disorder_s=20, apart_s=4, seed=3))


@pytest.fixture
def case(tmp_path: Path, logs: tuple[Log, Log]) -> JoinCase:
    """Both parties when they have joined a part of their logs, and more has come."""
    case = JoinCase(tmp_path)
    for start, stop in ((0, 300), (300, 1200)):
        for role, log in zip(ROLES, logs, strict=True):
            case.append(role, log.part(start, stop), 100)
        if not start:
            case.run(SETTINGS)
    return case


@pytest.mark.parametrize("engine", ["duckdb", pytest.param("spark", marks=pytest.mark.cluster)])
def test_cut_of_what_waits_leaves_nothing_to_read_for_the_shards(
    case: JoinCase, logs: tuple[Log, Log], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for context in case.contexts(SETTINGS):
        context.party = replace(context.party, **{engine: ENGINES[engine]})
        assert batch.run(context).counts["pieces"] > 5
        assert batch.run(context).counts["pieces"] == 0

    def read(*_: object) -> NoReturn:
        raise AssertionError("a worker reads the log")

    monkeypatch.setattr(WholeLog, "units", read)
    now = replace(SETTINGS, final=True)
    for ends in case.run(now):
        assert all(isinstance(end, Outcome) for end in ends), ends
    assert case.joined(now).as_expected == expect(*logs, now).pairs


def test_cut_before_the_halves_have_met_is_refused(tmp_path: Path) -> None:
    context, _ = JoinCase(tmp_path).contexts(SETTINGS)
    with pytest.raises(ConfigError, match="have never met"):
        batch.run(context)


def test_cut_for_one_shard_is_refused(tmp_path: Path) -> None:
    context, _ = JoinCase(tmp_path).contexts(replace(SETTINGS, shards=1))
    with pytest.raises(ConfigError, match="more than one"):
        batch.run(context)
