"""Which partition each tick of a schedule is about, by Airflow's own timetable, over changes of the clock and years."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables import trigger
from airflow.timetables.base import DagRunInfo, TimeRestriction

from fedtasks.airflow import fed
from fedtasks.airflow.timetables import period_timetable
from fedtasks.errors import ConfigError


def stored(cron: str, timezone: str = "UTC") -> Any:
    """Return a timetable as the scheduler reads it from its database."""
    return decode_timetable(json.loads(json.dumps(encode_timetable(period_timetable(cron, timezone)))))


def runs(timetable: Any, first: pendulum.DateTime) -> Iterator[DagRunInfo]:
    """Yield what the scheduler would start, with catch-up, from a moment on."""
    restriction = TimeRestriction(earliest=first, latest=None, catchup=True)
    last = None
    while True:
        last = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
        yield last


def keys(cron: str, first: pendulum.DateTime, count: int, timezone: str = "UTC") -> list[str]:
    return [str(info.partition_key) for info in itertools.islice(runs(stored(cron, timezone), first), count)]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("@daily", ["2026-12-29", "2026-12-30", "2026-12-31", "2027-01-01"]),
        ("30 4 * * *", ["2026-12-29", "2026-12-30", "2026-12-31", "2027-01-01"]),
        ("@weekly", ["2027-01-02", "2027-01-09", "2027-01-16", "2027-01-23"]),
        ("@monthly", ["2026-12-31", "2027-01-31", "2027-02-28", "2027-03-31"]),
        ("@quarterly", ["2026-12-31", "2027-03-31", "2027-06-30", "2027-09-30"]),
        ("@yearly", ["2026-12-31", "2027-12-31", "2028-12-31", "2029-12-31"]),
        # Wednesday, Thursday, Friday, Monday: each is about the day before it.
        ("0 3 * * 1-5", ["2026-12-29", "2026-12-30", "2026-12-31", "2027-01-03"]),
        ("@hourly", ["2026-12-29T23", "2026-12-30T00", "2026-12-30T01", "2026-12-30T02"]),
        ("15 */6 * * *", ["2026-12-29T23", "2026-12-30T05", "2026-12-30T11", "2026-12-30T17"]),
    ],
)
def test_partition_of_a_tick_is_the_period_that_has_just_ended(cron: str, expected: list[str]) -> None:
    assert keys(cron, pendulum.datetime(2026, 12, 30), 4) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize("at", ["00:00", "02:30", "03:00", "23:59"])
def test_daily_names_every_day_of_a_year_once_over_both_changes_of_the_clock(zone: str, at: str) -> None:
    """02:30 does not exist in Berlin on 29 March 2026, and exists twice on 25 October."""
    minute, hour = int(at[3:]), int(at[:2])
    first = pendulum.datetime(2026, 1, 1, tz=zone).in_timezone("UTC")
    infos = list(itertools.islice(runs(stored(f"{minute} {hour} * * *", zone), first), 366))
    days = [date.fromisoformat(str(info.partition_key)) for info in infos]
    assert days == [date(2025, 12, 31) + timedelta(days=n) for n in range(366)]
    for info, day in zip(infos, days, strict=True):
        assert info.run_after.in_timezone(zone).date() == day + timedelta(days=1)


@pytest.mark.parametrize(("month", "day"), [(3, 28), (10, 24)])
@pytest.mark.parametrize("at", ["02:30", "03:00"])
def test_daily_without_catch_up_begins_each_day_once_over_a_change_of_the_clock(
    monkeypatch: pytest.MonkeyPatch, month: int, day: int, at: str
) -> None:
    """The scheduler looks every ten minutes, and asks what is next after each run that it has begun."""
    timetable = stored(f"{int(at[3:])} {int(at[:2])} * * *", "Europe/Berlin")
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    now = pendulum.datetime(2026, month, day)
    monkeypatch.setattr(trigger, "utcnow", lambda: now)
    coming = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
    begun: list[str] = []
    for minutes in range(0, 3 * 24 * 60, 10):
        now = pendulum.datetime(2026, month, day).add(minutes=minutes)
        if coming.run_after <= now:
            begun.append(str(coming.partition_key))
            coming = timetable.next_dagrun_info_v2(last_dagrun_info=coming, restriction=restriction)
    assert begun == [date(2026, month, day + n).isoformat() for n in (-1, 0, 1)]


def test_backfill_of_days_names_those_days_and_none_that_has_not_ended_within_them() -> None:
    window = {"earliest": datetime(2026, 10, 24, tzinfo=UTC), "latest": datetime(2026, 10, 26, 23, 59, tzinfo=UTC)}
    daily = stored("0 3 * * *", "Europe/Berlin")
    found = list(daily.iter_partition_dagrun_infos(**window))
    assert [info.partition_key for info in found] == ["2026-10-24", "2026-10-25", "2026-10-26"]
    for info in found:  # what Airflow makes of a key by itself is the same
        assert daily.resolve_partition_date(info.partition_key) == info.partition_date
    months = stored("@monthly").iter_partition_dagrun_infos(
        earliest=datetime(2026, 10, 1, tzinfo=UTC), latest=datetime(2026, 12, 31, tzinfo=UTC)
    )
    assert [info.partition_key for info in months] == ["2026-10-31", "2026-11-30", "2026-12-31"]


@pytest.mark.parametrize(
    ("cron", "timezone", "problem"),
    [
        ("*/10 * * * *", "UTC", "more than once within an hour"),
        ("* * * * *", "UTC", "more than once within an hour"),
        ("0 0 * * * 30", "UTC", "more than once within an hour"),
        ("@hourly", "Europe/Berlin", "leave out `timezone`"),
        ("@nightly", "UTC", "is no cron expression"),
        ("61 0 * * *", "UTC", "is no cron expression"),
    ],
)
def test_schedule_that_no_partition_fits_is_refused_with_the_remedy(cron: str, timezone: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        fed.cron(cron, timezone=timezone)
    assert caught.value.fields["field"] == "schedule"


def test_time_zone_that_there_is_not_is_refused() -> None:
    for name in ("Europe/Bielefeld", "", "+99"):
        with pytest.raises(ConfigError, match=f"`{re.escape(name)}` is no time zone such as Europe/Berlin"):
            fed.daily("03:00", timezone=name)
