"""Logs of every format join to what a join of both whole logs in plain Python comes to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fedtasks.config import EventTime, Format, TimeUnit
from fedtasks.join.settings import JoinSettings, Late
from fedtasks.runtime.context import Outcome
from tests.acceptance.matrix import write
from tests.support.halves import ROLES
from tests.support.join_case import JoinCase
from tests.support.join_logs import Shape, expect, generate
from tests.support.tf_records import written

FORMS: dict[str, dict[str, Any]] = {
    "csv": {"format": Format.CSV},
    "jsonl": {"format": Format.JSON_LINES},
    "orc": {"format": Format.ORC},
    "tfrecord": {"format": Format.TFRECORD},
}


def as_format(folder: Path, form: Format) -> None:
    """Write the Parquet files of a log in another format, in their order."""
    for path in sorted(folder.glob("*.parquet")):
        table, at = pq.read_table(path), path.stat().st_mtime
        other = path.with_suffix(f".{form.value}")
        other.write_bytes(written(table.to_pylist()) if form is Format.TFRECORD else write(table, form))
        os.utime(other, (at, at))
        path.unlink()


@pytest.mark.parametrize(("own", "other"), [("jsonl", "csv"), ("tfrecord", "jsonl"), ("csv", "orc")])
def test_join_of_logs_of_any_format_equals_a_join_of_both_whole_logs(tmp_path: Path, own: str, other: str) -> None:
    faults = {"losses": 0.05, "duplicates": 0.05, "ties": 0.2, "broken": 0.02, "late": 0.05}
    logs = generate(Shape(2000, rate=5, disorder_s=20, late_s=200, apart_s=4, seed=3, **faults))
    join = JoinSettings("joined", within_s=4, lateness_s=20, late=Late.CORRECT, correct_within_s=120, final=True)
    case = JoinCase(tmp_path, {"leader": FORMS[own], "follower": FORMS[other]})
    for role, log, form in zip(ROLES, logs, (own, other), strict=True):
        case.append(role, log, 300)
        as_format(case.log(role), FORMS[form]["format"])
    for ends in case.run(join):
        assert all(isinstance(end, Outcome) for end in ends), ends
    expected = expect(*logs, join)
    assert len(expected.pairs) > 500
    assert case.joined(join).as_expected == expected.pairs
    for role, side in zip(ROLES, (expected.leader, expected.follower), strict=True):
        assert case.counts(role, "joined")["rejected"] == len(side.rejected)


def test_join_of_a_local_time_and_of_milliseconds_is_that_of_one_clock(tmp_path: Path) -> None:
    logs = generate(Shape(500, rate=5, disorder_s=20, apart_s=4, seed=4))
    join = JoinSettings("joined", within_s=4, lateness_s=20, final=True)
    berlin = {"event_time": EventTime("time", zone="Europe/Berlin"), "format": Format.CSV}
    case = JoinCase(tmp_path, {"leader": berlin, "follower": {"event_time": EventTime("time", TimeUnit.MILLISECONDS)}})
    for role, log in zip(ROLES, logs, strict=True):
        case.append(role, log, 100)
    for path in sorted(case.log("leader").glob("*.parquet")):
        frame, at = pq.read_table(path).to_pandas(), path.stat().st_mtime
        moments = frame["time"].astype("datetime64[ms]").dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
        frame["time"] = moments.dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
        frame.to_csv(path.with_suffix(".csv"), index=False)
        os.utime(path.with_suffix(".csv"), (at, at))
        path.unlink()
    for ends in case.run(join):
        assert all(isinstance(end, Outcome) for end in ends), ends
    assert case.joined(join).as_expected == expect(*logs, join).pairs
