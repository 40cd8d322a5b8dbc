"""Whether all parts of an Airflow run, and how soon it notices that something of it has died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from fedtasks.checks import Finding, Verdict
from fedtasks.config import Party
from fedtasks.errors import AirflowIncomplete
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.reports.airflow_parts import silent_parts


@dataclass(frozen=True)
class Setting:
    """A setting of Airflow's by which a run goes on after a fault.

    Parameters
    ----------
    section, option
        Its place in airflow.cfg.
    good
        What serves well.
    most
        Above this, whoever waits for the other side waits for long.
    why
        What it decides.
    """

    section: str
    option: str
    good: str
    most: float
    why: str


SETTINGS = (
    Setting(
        "scheduler",
        "task_instance_heartbeat_timeout",
        "60",
        120,
        "so many seconds after its worker has vanished a task is tried again",
    ),
    Setting(
        "scheduler",
        "task_instance_heartbeat_timeout_detection_interval",
        "10",
        30,
        "so often it is looked for such tasks",
    ),
    Setting(
        "scheduler",
        "orphaned_tasks_check_interval",
        "30",
        60,
        "so often a scheduler takes over what one that died has queued",
    ),
    Setting(
        "scheduler",
        "scheduler_health_check_threshold",
        "30",
        60,
        "so many seconds after its last sign a scheduler counts as dead",
    ),
    Setting(
        "triggerer",
        "triggerer_health_check_threshold",
        "30",
        60,
        "so many seconds after its last sign a triggerer's waits go to another one",
    ),
)
"""What resume needs of Airflow; docs/setup.md has the same table, and more for workers, whose settings nobody shows."""


async def parts_and_settings(airflow: AirflowApi, party: Party) -> AsyncIterator[Finding]:
    """Yield what is wrong with the parts of this party's Airflow and with the settings by which it notices a fault.

    Raises
    ------
    AirflowUnreachable
        It does not answer.
    """
    silent = silent_parts(await airflow.health())
    for part in silent:
        remedy = AirflowIncomplete.advice(AirflowIncomplete.among(party.name, ""))
        yield Finding("Airflow", Verdict.WRONG, part.said(party.name), remedy)
    if not silent:
        yield Finding("Airflow", Verdict.OK, "scheduler, dag-processor and triggerer run")
    hidden = True
    for setting in SETTINGS:
        found = await airflow.setting(setting.section, setting.option)
        hidden = hidden and found is None
        if found is not None and _number(found) > setting.most:
            place = f"[{setting.section}] {setting.option}"
            text = f"{place} is {found}: {setting.why}; until then the other side waits"
            yield Finding("Airflow", Verdict.WARNING, text, f"Set {place} = {setting.good}")
    if hidden:
        text = "Airflow does not show by which settings it notices a dead worker or scheduler"
        yield Finding("Airflow", Verdict.NOTE, text, "Compare them with the table in docs/setup.md")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
