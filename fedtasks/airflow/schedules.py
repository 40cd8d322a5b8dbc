"""When a pipeline that retrains by itself begins, at one side, which party.yaml names; and which day a run is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pendulum
from airflow.sdk import Asset, PartitionedAssetTimetable

from fedtasks.config import check_name
from fedtasks.errors import ConfigError
from fedtasks.names import asset_uri, joined_uri

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fedtasks.airflow.sides import Sides
    from fedtasks.config import Party

DATA_WAIT = timedelta(hours=6)
"""How long a run waits by default for the data of its day."""

_HOURS = 24
_INTERVAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2})?")


@dataclass(frozen=True)
class Periodic:
    """By the clock, about the day or hour that has just ended; the run waits until both sides have landed it.

    Parameters
    ----------
    cron
        A cron expression, or a name such as ``@weekly``. Once a day or more rarely, partitions are days: each run is
        about the last day before it. With several hours of a day, they are hours, called as ``2026-11-21T05`` in UTC.
    timezone
        By whose clock.
    wait
        How long the run waits for the data; None does not wait.

    Raises
    ------
    ConfigError
        It is no cron expression, is due more than once an hour, or there is no such time zone.
    """

    cron: str
    timezone: str = "UTC"
    wait: timedelta | None = DATA_WAIT

    def __post_init__(self) -> None:
        self._timetable()

    def _timetable(self) -> Any:
        from fedtasks.airflow.timetables import period_timetable

        return period_timetable(self.cron, self.timezone)

    def timetable(self, party: Party, sides: Sides) -> Any:
        """Return the timetable of the side that begins."""
        return self._timetable()


@dataclass(frozen=True)
class WhenLanded:
    """As soon as both sides have landed the same partition: of the datasets that the pipeline names, else of any."""

    wait: ClassVar[None] = None
    timezone: ClassVar[str] = "UTC"

    def timetable(self, party: Party, sides: Sides) -> Any:
        """Return the timetable of the side that begins.

        Raises
        ------
        ConfigError
            The pipeline names no peer, and party.yaml has more than one or none.
        """
        if sides.peer is None:
            raise ConfigError("name the peer whose data the schedule waits for", field="peer", where="FederatedDag")
        own = sides.dataset or "" if len(party.datasets) > 1 else ""
        uris = asset_uri(party.name, own), asset_uri(sides.peer, sides.peer_dataset or "")
        return PartitionedAssetTimetable(assets=Asset(uri=uris[0]) & Asset(uri=uris[1]))


@dataclass(frozen=True)
class WhenJoined:
    """As soon as rows of a stream have been joined, about the interval whose run has joined them.

    Parameters
    ----------
    stream
        What the joined stream is called.
    """

    stream: str
    wait: ClassVar[None] = None
    timezone: ClassVar[str] = "UTC"

    def __post_init__(self) -> None:
        check_name(self.stream, "stream")

    def timetable(self, party: Party, sides: Sides) -> Any:
        """Return the timetable of the side that begins: both have joined the same."""
        return PartitionedAssetTimetable(assets=Asset(uri=joined_uri(party.name, self.stream)))


Schedule = Periodic | WhenLanded | WhenJoined


def daily(at: str = "03:00", wait: timedelta | None = DATA_WAIT, *, timezone: str = "UTC") -> Periodic:
    """Begin every day at a time, about the day that has ended.

    Parameters
    ----------
    at
        Time of day, ``HH:MM``. One that a clock leaves out when summer begins is an hour later on that day, and of one
        that it shows twice when summer ends the second counts.
    wait
        How long the run waits for the day's data.
    timezone
        By whose clock, such as ``Europe/Berlin``.

    Raises
    ------
    ConfigError
        That is no time of day, or no time zone.
    """
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", at):
        raise ConfigError(f"`{at}` is not a time of day such as 03:00", field="at")
    hour, minute = (int(part) for part in at.split(":"))
    return Periodic(f"{minute} {hour} * * *", timezone, wait)


def cron(expression: str, wait: timedelta | None = DATA_WAIT, *, timezone: str = "UTC") -> Periodic:
    """Begin by a cron expression or a name such as ``@weekly``, about the day or hour before; see `Periodic`."""
    return Periodic(expression, timezone, wait)


def when_landed() -> WhenLanded:
    """Begin as soon as both sides have landed the same partition."""
    return WhenLanded()


def when_joined(stream: str) -> WhenJoined:
    """Begin as soon as a run has joined rows of a stream, about the same hour or day as that run."""
    return WhenJoined(stream)


def zone_of(timezone: str) -> pendulum.Timezone | pendulum.FixedTimezone:
    """Return a time zone; raise `ConfigError` if there is none of this name."""
    try:
        return pendulum.timezone(timezone)
    except ValueError:
        raise ConfigError(f"`{timezone}` is no time zone such as Europe/Berlin", field="timezone") from None


def end_of_interval_ms(partition: str, timezone: str = "UTC") -> int | None:
    """Return when the day or hour that a partition is called by ends, in milliseconds since 1970.

    Parameters
    ----------
    partition
        Such as ``2026-11-21``, or ``2026-11-21T05`` of an hour in UTC.
    timezone
        By whose clock a day ends.

    Returns
    -------
    int or None
        None of a key that is neither.
    """
    if not _INTERVAL.fullmatch(partition):
        return None
    day, _, hour = partition.partition("T")
    try:
        begin = pendulum.instance(datetime.fromisoformat(day), tz=zone_of("UTC" if hour else timezone))
        end = begin.add(hours=int(hour) + 1) if hour else begin.add(days=1)
    except ValueError:
        return None
    return int(end.timestamp() * 1000) if not hour or int(hour) < _HOURS else None


def partition_of(context: Context, timezone: str = "UTC") -> str:
    """Return the partition that a DAG run is about.

    The run's partition key; else the day of its logical date; else the form's field; else the day on which it was due.

    Parameters
    ----------
    context
        Airflow's, of a task of the run.
    timezone
        By whose clock days begin.

    Raises
    ------
    ConfigError
        Two of the first three are given, and are not the same.

    Notes
    -----
    Airflow's dialog fills in the present moment as logical date, so one on the very day of the run is nobody's choice.
    A key or a field that names an hour of the logical date's day agrees with it.
    """
    dag_run, zone = context["dag_run"], zone_of(timezone)
    # The day on which the run was due, and not today, which a retry may see change.
    due = dag_run.run_after.astimezone(zone).date().isoformat()
    day = dag_run.logical_date.astimezone(zone).date().isoformat() if dag_run.logical_date else due
    key, field = str(dag_run.partition_key or ""), str(context["params"].get("partition") or "")
    if key and field not in ("", key):
        raise _two("the partition key", key, "the field `partition`", field)
    named = key or field
    if named and day not in (due, named, named.partition("T")[0]):
        raise _two("the logical date", day, "the partition key" if key else "the field `partition`", named)
    return named or day


def _two(place: str, partition: str, other: str, named: str) -> ConfigError:
    text = f"{place} says {partition} and {other} {named}, but a run is about one partition; clear one of them"
    return ConfigError(text, field="partition", where="trigger form")
