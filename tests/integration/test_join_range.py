"""A join of a range of event times is the join of all without the leader's rows outside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtasks.errors import ConfigError
from fedtasks.join.settings import JoinSettings, Late, Match
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES
from tests.support.join_case import JoinCase
from tests.support.join_logs import START_MS, Shape, expect, generate

pytestmark = pytest.mark.timeout(300)

SHAPE = Shape(1200, rate=0.1, disorder_s=200, apart_s=60, late=0.05, late_s=900, duplicates=0.03, ties=0.1, seed=4)
BY_ID = JoinSettings("part", within_s=60, lateness_s=200, late=Late.CORRECT, correct_within_s=1500, block_rows=50)
BY_RULE = JoinSettings("part", match=Match.LAST, delay_s=60, lateness_s=1500, block_rows=50)
"""Some hours of events."""


def hour(number: int) -> str:
    """Name an hour of the logs."""
    return datetime.fromtimestamp(START_MS / 1000 + number * 3600, UTC).strftime("%Y-%m-%dT%H")


@pytest.mark.parametrize("join", [BY_ID, BY_RULE], ids=["id", "last"])
@pytest.mark.parametrize(("since", "until"), [(1, 2), (2, None), (None, 1)])
def test_join_of_a_range_takes_the_leaders_rows_in_it_and_no_others(
    tmp_path: Path, join: JoinSettings, since: int | None, until: int | None
) -> None:
    logs = generate(SHAPE)
    part = replace(
        join, since="" if since is None else hour(since), until="" if until is None else hour(until), final=True
    )
    case = JoinCase(tmp_path)
    for start, stop in ((0.0, 0.4), (0.4, 1.0)):  # the second run goes on where the first has ended, in the range
        for role, log in zip(ROLES, logs, strict=True):
            case.append(role, log.part(round(start * len(log)), round(stop * len(log))), 100)
        for ends in case.run(replace(part, final=stop == 1.0)):
            assert all(isinstance(end, Outcome) for end in ends), ends
            assert ends[0] == ends[1]

    expected = expect(*logs, part).pairs
    assert case.joined(part).as_expected == expected
    assert 0 < len(expected) < len(expect(*logs, join).pairs)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-11-31"}, "since"),
        ({"until": "2026-11-21T24"}, "until"),
        ({"until": "2026-11-21 05"}, "until"),
        ({"since": "2026-11-21", "until": "2026-11-21"}, "until"),
        ({"since": "2026-11-21T06", "until": "2026-11-21T05"}, "until"),
    ],
)
def test_range_that_is_none_is_refused_naming_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        JoinSettings(**changes)
    assert caught.value.fields["field"] == field
