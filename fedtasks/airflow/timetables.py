"""The timetable of scheduled pipelines: each tick is about the day, or the hour, that has just ended."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import pendulum
from airflow.timetables.base import DagRunInfo
from airflow.timetables.trigger import CronPartitionTimetable
from croniter import CroniterBadCronError, croniter

from fedtasks.airflow.schedules import zone_of
from fedtasks.errors import ConfigError

DAY, HOUR = "%Y-%m-%d", "%Y-%m-%dT%H"
"""How partitions of a day and of an hour are called."""

UTC = "UTC"


def period_timetable(cron: str, timezone: str = UTC) -> PeriodTimetable:
    """Return the timetable of a cron expression.

    Parameters
    ----------
    cron
        When runs begin. With one time of day, partitions are days, also if it is only some days of a week or month;
        with several hours of a day they are hours, in UTC.
    timezone
        Where the clock hangs by which ticks and days count, such as ``Europe/Berlin``.

    Raises
    ------
    ConfigError
        It is no cron expression, is due more than once within an hour, or there is no such time zone; or its partitions
        are hours, in a zone other than UTC, whose clock names an hour twice when summer ends.
    """
    zone_of(timezone)
    try:
        timetable = PeriodTimetable(cron, timezone=timezone, key_format=DAY)
        minutes, hours = croniter(timetable.summary).expanded[:2]
        has_seconds = len(timetable.summary.split()) != 5
    except (CroniterBadCronError, LookupError, ValueError) as error:
        raise ConfigError(f"`{cron}` is no cron expression: {error}", field="schedule") from None
    if has_seconds or minutes == ["*"] or len(minutes) > 1:
        text = f"`{cron}` is due more than once within an hour, and no partition is shorter; use `@hourly`"
        raise ConfigError(text, field="schedule")
    if hours != ["*"] and len(hours) == 1:
        return timetable
    if timezone != UTC:
        text = f"`{cron}` is about hours, and {timezone} names one twice when summer ends; leave out `timezone`"
        raise ConfigError(text, field="schedule")
    return PeriodTimetable(cron, timezone=UTC, key_format=HOUR)


class PeriodTimetable(CronPartitionTimetable):
    """Airflow's timetable of partitions, whose key is the last day (or hour) that has ended at the tick.

    So the key of ``@weekly``, due on Sunday at midnight, is the Saturday; of ``@monthly`` the last day of the month;
    and of Monday's tick of ``0 3 * * 1-5`` the Sunday. A run takes all that has landed up to its key. Airflow's own
    timetable counts by ticks of the schedule instead, and would call that week by its first day.
    """

    def _get_partition_date(self, *, run_date: pendulum.DateTime) -> pendulum.DateTime:
        """Return the beginning of the last period before a tick."""
        local = pendulum.instance(run_date).in_timezone(self._timezone)
        if self._key_format == HOUR:
            return local.start_of("hour").subtract(hours=1).in_timezone(UTC)
        return local.start_of("day").subtract(days=1).in_timezone(UTC)

    def iter_partition_dagrun_infos(
        self, *, earliest: datetime.datetime, latest: datetime.datetime
    ) -> Iterable[DagRunInfo]:
        """Yield a run for each tick whose period begins in ``[earliest, latest]``, by this timetable's clock.

        Parameters
        ----------
        earliest, latest
            The days of a backfill; what the clock shows there counts, not the zone.
        """
        first, last = self.localize_partition_datetime(earliest), self.localize_partition_datetime(latest)
        tick = self._get_next(first)
        while (start := self._get_partition_date(run_date=tick)) <= last:
            if start >= first:
                yield DagRunInfo(
                    run_after=tick, data_interval=None, partition_date=start, partition_key=self._format_key(start)
                )
            tick = self._get_next(tick)
