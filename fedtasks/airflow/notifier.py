"""Airflow's callbacks on the webhook that party.yaml names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow.sdk import BaseNotifier

from fedtasks.airflow.hook import FedtasksHook
from fedtasks.config import Event
from fedtasks.errors import ConfigError
from fedtasks.webhook import Notice, post

if TYPE_CHECKING:
    from airflow.sdk import Context

FAILED = "{{ dag.dag_id }} has failed: see its tasks in Airflow"


class WebhookNotifier(BaseNotifier):
    """Posts a notice: ``on_failure_callback=WebhookNotifier()``.

    The gateway posts by itself what concerns runs with a peer; this one is for the tasks around them.

    Parameters
    ----------
    text
        What it says, one sentence; may be a template.
    event
        Of which kind it is.
    fedtasks_conn_id
        Connection of type ``fedtasks``.

    Notes
    -----
    Reveals: the text, the DAG's name and its partition, to whoever has the webhook; nothing to the peer.
    """

    template_fields: Sequence[str] = ("text",)

    def __init__(
        self,
        text: str = FAILED,
        event: Event | str = Event.RUN_FAILED,
        *,
        fedtasks_conn_id: str = FedtasksHook.default_conn_name,
    ) -> None:
        super().__init__()
        self.text = text
        self.event = Event(event)
        self.fedtasks_conn_id = fedtasks_conn_id

    def notify(self, context: Context) -> None:
        """Post the notice, unless party.yaml leaves its kind out.

        Raises
        ------
        ConfigError
            party.yaml has no section ``notify``.
        NoticeFailed
            Nobody took the notice.
        """
        hook = FedtasksHook(self.fedtasks_conn_id)
        notify = hook.party.notify
        if notify is None:
            raise ConfigError("the section `notify` is missing", field="notify", where=str(hook.party_file))
        if self.event not in notify.events:
            return
        dag_run = context.get("dag_run")
        notice = Notice(
            self.event,
            hook.party.name,
            str(context.get("params", {}).get("peer") or ""),
            self.text,
            time.time_ns() // 1_000_000,
            pipeline=dag_run.dag_id if dag_run else "",
            partition=str(getattr(dag_run, "partition_key", None) or ""),
        )
        post(notify.webhook_url_file, notice)
