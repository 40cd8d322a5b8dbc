"""When a pipeline that retrains by itself begins: at one side, which party.yaml names, while the other answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset, CronPartitionTimetable, PartitionedAssetTimetable

from fedtasks.config import Party
from fedtasks.errors import ConfigError
from fedtasks.names import asset_uri

if TYPE_CHECKING:
    from airflow.sdk import Context

DATA_WAIT = timedelta(hours=6)
"""How long a run waits by default for the data of its day."""


@dataclass(frozen=True)
class Daily:
    """Every day at one time, about the day that has ended; the run waits until both sides have landed it.

    Parameters
    ----------
    at
        Time of day, ``HH:MM`` in UTC.
    wait
        How long the run waits for the day's data.
    """

    at: str = "03:00"
    wait: timedelta = DATA_WAIT

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", self.at):
            raise ConfigError(f"`{self.at}` is not a time of day such as 03:00", field="at")

    def timetable(self, party: Party, peer: str | None) -> Any:
        """Return the timetable of the side that begins."""
        hour, minute = (int(part) for part in self.at.split(":"))
        cron = f"{minute} {hour} * * *"
        return CronPartitionTimetable(cron, timezone="UTC", key_format="%Y-%m-%d", run_offset=-1)


@dataclass(frozen=True)
class WhenLanded:
    """As soon as both sides have landed the same partition, in any of their datasets."""

    wait: ClassVar[None] = None

    def timetable(self, party: Party, peer: str | None) -> Any:
        """Return the timetable of the side that begins.

        Raises
        ------
        ConfigError
            The pipeline names no peer, and party.yaml has more than one or none.
        """
        known = [peer] if peer else [each.name for each in party.peers]
        if len(known) != 1:
            raise ConfigError("name the peer whose data the schedule waits for", field="peer", where="FederatedDag")
        return PartitionedAssetTimetable(assets=Asset(uri=asset_uri(party.name)) & Asset(uri=asset_uri(known[0])))


Schedule = Daily | WhenLanded


def daily(at: str = "03:00", wait: timedelta = DATA_WAIT) -> Daily:
    """Begin every day at a time (UTC), about the day that has ended; see `Daily`."""
    return Daily(at, wait)


def when_landed() -> WhenLanded:
    """Begin as soon as both sides have landed the same partition."""
    return WhenLanded()


def partition_of(context: Context) -> str:
    """Return the partition: the DAG run's key, else the form's, else the UTC day on which the DAG run was due."""
    dag_run = context["dag_run"]
    day = dag_run.run_after.astimezone(UTC).date().isoformat()  # and not today, which a retry may see change
    return str(dag_run.partition_key or context["params"].get("partition") or day)
