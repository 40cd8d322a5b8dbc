"""Which partition a DAG run is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pendulum
import pytest
from airflow.sdk import DagRunState
from airflow.sdk.api.datamodels._generated import DagRun, DagRunType

from fedtasks.airflow.schedules import end_of_interval_ms, partition_of
from fedtasks.errors import ConfigError

DUE = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
SAME_DAY = pendulum.datetime(2026, 11, 21, 23, 29, 58)  # what Airflow's dialog fills in by itself
EARLIER = pendulum.datetime(2026, 11, 19, 12)


def about(key: str | None, logical: datetime | None, field: str | None, timezone: str = "UTC") -> str:
    """Return the partition of a DAG run as a task of it gets it from Airflow."""
    dag_run = DagRun(
        dag_id="credit",
        run_id="manual-1",
        logical_date=logical,
        data_interval_start=logical,
        data_interval_end=logical,
        run_after=DUE,
        start_date=DUE,
        end_date=None,
        run_type=DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        consumed_asset_events=[],
        partition_key=key,
    )
    context: Any = {"dag_run": dag_run, "params": {"partition": field}}
    return partition_of(context, timezone)


@pytest.mark.parametrize(
    ("key", "logical", "field", "expected"),
    [
        ("2026-11-01", None, None, "2026-11-01"),
        ("2026-11-01", None, "2026-11-01", "2026-11-01"),
        ("2026-11-19", EARLIER, None, "2026-11-19"),
        ("2026-11-19T05", EARLIER, None, "2026-11-19T05"),
        ("week-47", SAME_DAY, None, "week-47"),
        (None, EARLIER, None, "2026-11-19"),
        (None, EARLIER, "2026-11-19", "2026-11-19"),
        (None, EARLIER, "2026-11-19T05", "2026-11-19T05"),
        (None, SAME_DAY, "2026-11-01", "2026-11-01"),
        (None, None, "other", "other"),
        (None, SAME_DAY, None, "2026-11-21"),
        (None, None, None, "2026-11-21"),
        ("", None, "", "2026-11-21"),
    ],
)
def test_partition_is_the_key_else_the_logical_day_else_the_field_else_the_day_it_was_due(
    key: str | None, logical: datetime | None, field: str | None, expected: str
) -> None:
    assert about(key, logical, field) == expected


@pytest.mark.parametrize(
    ("key", "logical", "field", "said"),
    [
        ("2026-11-01", None, "2026-11-02", "the partition key says 2026-11-01 and the field `partition` 2026-11-02"),
        ("2026-11-01", EARLIER, None, "the logical date says 2026-11-19 and the partition key 2026-11-01"),
        (None, EARLIER, "2026-11-20", "the logical date says 2026-11-19 and the field `partition` 2026-11-20"),
        (None, EARLIER, "week-47", "the logical date says 2026-11-19 and the field `partition` week-47"),
    ],
)
def test_two_partitions_that_differ_are_refused_in_words(
    key: str | None, logical: datetime | None, field: str | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        about(key, logical, field)
    assert (caught.value.code, caught.value.fields["field"]) == ("CONFIG_INVALID", "partition")


def test_day_of_a_logical_date_is_by_the_schedules_clock() -> None:
    midnight = pendulum.datetime(2026, 11, 20, tz="Europe/Berlin")  # the 19th in UTC
    assert about(None, midnight, None, "Europe/Berlin") == "2026-11-20"
    assert about(None, midnight.in_timezone("UTC"), None, "Europe/Berlin") == "2026-11-20"
    assert about(None, None, None, "Europe/Berlin") == "2026-11-22"


@pytest.mark.parametrize(
    ("partition", "timezone", "end"),
    [
        ("2026-11-21", "UTC", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-21", "Europe/Berlin", datetime(2026, 11, 21, 23, tzinfo=UTC)),
        ("2026-10-25", "Europe/Berlin", datetime(2026, 10, 25, 23, tzinfo=UTC)),  # a day of 25 hours
        ("2026-11-21T05", "UTC", datetime(2026, 11, 21, 6, tzinfo=UTC)),
        ("2026-11-21T05", "Europe/Berlin", datetime(2026, 11, 21, 6, tzinfo=UTC)),  # hours are of UTC
        ("2026-12-31T23", "UTC", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_interval_ends_with_its_day_or_hour(partition: str, timezone: str, end: datetime) -> None:
    assert end_of_interval_ms(partition, timezone) == end.timestamp() * 1000


@pytest.mark.parametrize("partition", ["week-47", "2026-11", "2026-13-01", "2026-11-21T24", "2026-11-21T5", ""])
def test_partition_that_is_no_day_or_hour_has_no_end(partition: str) -> None:
    assert end_of_interval_ms(partition) is None
