"""The task at which a step that is several tasks says once what all of them together have left."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from fedtasks.airflow.assets import LEFT, Lineage, announce, operator_lineage
from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.operators import airflow_errors, lineage_here, run_id_of
from fedtasks.names import OPEN_RUN, step_of
from fedtasks.pipeline.step import Step

if TYPE_CHECKING:
    from airflow.sdk import Context


class AnnounceOperator(BaseOperator):
    """Updates the asset of a step once all its tasks have ended: each by itself would begin what follows too early.

    Parameters
    ----------
    step
        Which step.
    open_run_task_id
        Task that opened the run.
    fedtasks_conn_id
        Connection of type ``fedtasks``.
    """

    def __init__(
        self,
        *,
        step: Step,
        open_run_task_id: str = OPEN_RUN,
        fedtasks_conn_id: str = FedtasksHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        doc = f"Says once what the tasks of `{step.name}` have left here."
        super().__init__(**{"doc_md": doc, **kwargs})
        self.outlets = [*self.outlets, LEFT]
        self.step = step
        self.open_run_task_id = open_run_task_id
        self.fedtasks_conn_id = fedtasks_conn_id
        self._lineage: Lineage | None = None

    def execute(self, context: Context) -> dict[str, int]:
        """Return the counts of this party's halves, added up."""
        ti = context["ti"]
        with airflow_errors(ti):
            hook = FedtasksHook(self.fedtasks_conn_id)
            with hook.client() as client:
                answer = client.get_run(run_id=run_id_of(ti, self.open_run_task_id))
        counts: Counter[str] = Counter()
        for half in answer.own:
            if step_of(half.task) == self.step.name:
                counts.update(json.loads(half.outcome_json or "{}").get("counts", {}))
        self._lineage = lineage_here(self.step, hook.party.name, answer.run, {"counts": counts})
        announce(context, self._lineage)
        return dict(counts)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Say what the step has read and left, if the OpenLineage provider asks.

        Parameters
        ----------
        task_instance
            Not needed.
        """
        return operator_lineage(self._lineage)
