"""An error of a half's own code that comes up again at the same line: another try would meet it too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowRuntimeError

from fedtasks.errors import FedtasksError, ProcessFailed

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

log = logging.getLogger(__name__)

_KEY = "failed_at"


def end_if_repeated(context: Context, error: FedtasksError) -> None:
    """Make an error final if the try before, since somebody has last cleared the task, has failed just so.

    Parameters
    ----------
    context
        Airflow's, whose store of the task's state outlives its tries.
    error
        What a half has ended with. Only where it names exception and line (`ProcessFailed` with a ``where``) can it be
        told from another: one that comes from outside has a code of its own, or no line.
    """
    store, ti = context.get("task_state_store"), context["ti"]
    if store is None or not isinstance(error, ProcessFailed) or not error.where:
        return
    now: list[JsonValue] = [error.detail, error.where, ti.max_tries]  # a clear raises `max_tries`
    try:
        if store.get(_KEY) == now:
            log.warning("The same error at the same line as before: another try would meet it too")
            error.retryable = False  # type: ignore[misc]
        else:
            store.set(_KEY, now)
    except AirflowRuntimeError as failure:
        log.warning("how the try before has failed is not known: %s", failure)
