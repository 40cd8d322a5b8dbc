"""Operators that begin a federated run: ask the peer for it or take it up, and list the shards of its steps."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Never

from airflow.sdk import BaseOperator, TriggerRule
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.links import FederatedLink
from fedtasks.airflow.operators import (
    DEFER_SLACK_S,
    airflow_errors,
    not_before_ms,
    run_id_of,
    skip_after,
    skip_with_others,
    wait_s,
)
from fedtasks.airflow.schedules import partition_of, zone_of
from fedtasks.airflow.triggers import OpeningTrigger
from fedtasks.config import Party
from fedtasks.errors import ConfigDiffers, ConfigError, FedtasksError, RunUnknown
from fedtasks.names import APPROVE, OPEN_RUN, pipeline_name
from fedtasks.pipeline.shared import PARTITION, check_models, check_names, check_shared, check_workers, initiate
from fedtasks.pipeline.step import Step, parts_of

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import run_pb2, worker_pb2


class OpenRunOperator(BaseOperator):
    """Opens the run: asks the peer for it, or takes up the one that this DAG run was started for.

    Parameters
    ----------
    steps
        What the run does; the peer's DAG must declare the same.
    run
        Which run of its DAG, where that holds several; the names of its tasks and fields begin so.
    fields
        The names of the run's fields in the trigger form; what else is passed to a DAG run is refused.
    reason
        Why, where the form gives no reason.
    timezone
        By whose clock days begin.
    wait
        How long to ask again, deferred, for a run that cannot begin yet: a gateway, a store or the peer's Airflow is
        away, or the ticket has no room; unless the form says it.
    fedtasks_conn_id
        Connection of type ``fedtasks``.

    Notes
    -----
    Reveals: pipeline, partition, reason, the shared configuration and the digests of the steps, to the peer's gateway.
    """

    template_fields: Sequence[str] = ("reason",)
    operator_extra_links = (FederatedLink(),)

    def __init__(
        self,
        *,
        steps: Sequence[Step],
        run: str = "",
        fields: Collection[str] = (),
        reason: str = "",
        timezone: str = "UTC",
        wait: timedelta = timedelta(hours=1),
        fedtasks_conn_id: str = FedtasksHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        doc = "Asks the peer for the run, or takes up the one that it asked for."
        super().__init__(**{"doc_md": doc, "trigger_rule": TriggerRule.NONE_FAILED, **kwargs})
        self.steps = tuple(steps)
        self.run = run
        self.fields = tuple(fields)
        self.reason = reason
        zone_of(timezone)
        self.timezone = timezone
        self.wait = wait
        self.fedtasks_conn_id = fedtasks_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Return run id, initiator, responder, leader, partition and datasets; wait, deferred, where that can help.

        Raises
        ------
        AirflowSkipException
            The partition is done, or another DAG run is at it; a task before it was skipped; or the peer has begun this
            DAG run for another run of the DAG. What follows is skipped, and that is no failure.
        AirflowFailException
            The run was refused, or could not begin in time; the text names the reason and who must act.
        TaskDeferred
            It cannot begin yet.
        DownstreamTasksSkipped
            The run is open and asks no person: the task that would await the answer is skipped, and no other.
        """
        now_ms = int(time.time() * 1000)
        return self._proceed(context, now_ms, now_ms + int(wait_s(context, self.prefix, self.wait) * 1000))

    def resume(self, context: Context, event: str, since_ms: int, until_ms: int) -> dict[str, Any]:
        """Ask again after a wait; `event` is a hint and decides nothing."""
        self.log.info("Asking again: %s", event)
        return self._proceed(context, since_ms, until_ms)

    def _proceed(self, context: Context, since_ms: int, until_ms: int) -> dict[str, Any]:
        """Open the run, or defer: it is asked for since `since_ms` and until `until_ms`."""
        from fedtasks.airflow.starting import warming

        ti, dag_run = context["ti"], context["dag_run"]
        began = (dag_run.conf or {}).get("fedtasks") or {}
        started_for, pipeline = began.get("run_id", ""), pipeline_name(dag_run.dag_id, self.run)
        hook = FedtasksHook(self.fedtasks_conn_id)
        this = {"dag_id": dag_run.dag_id, "dag_run_id": dag_run.run_id, "pipeline": pipeline}
        waits = {"waits_since_ms": since_ms, "wait_until_ms": until_ms}
        if started_for and (asked_for := began.get("pipeline", dag_run.dag_id)) != pipeline:
            with airflow_errors(ti):
                self._require_run(hook, started_for, asked_for)
            raise AirflowSkipException(f"This DAG run was begun for {asked_for}")
        # The other runs of the DAG are skipped in a DAG run that was begun for this one.
        skip_after(self._others() if started_for else self.upstream_task_ids, ti)
        with airflow_errors(ti), ExitStack() as stack:
            if any(step.kind for step in self.steps):
                stack.enter_context(warming(hook.party_file))
            asked = self._asked(hook, context, this)
            with hook.client() as client:
                try:
                    response = client.open_run(**this, **waits, **asked, steps=list(map(_step_message, self.steps)))
                    return self._opened(context, hook, client, response)
                except FedtasksError as error:
                    self._wait_or_fail(hook, error, this, since_ms, until_ms)

    def _asked(self, hook: FedtasksHook, context: Context, this: Mapping[str, str]) -> dict[str, Any]:
        """Return what this DAG run asks for: nothing but the run that it was started for, or what the form says."""
        dag_run = context["dag_run"]
        started_for = ((dag_run.conf or {}).get("fedtasks") or {}).get("run_id", "")
        if started_for:
            if started_for != dag_run.run_id:
                raise RunUnknown(f"this DAG run is not the one that was started for `{started_for}`")
            return {"partition": "", "config_json": "", "peer": ""}
        try:
            return self._ask_for(hook.party, context)
        except FedtasksError as error:
            self._tell(hook, error, **this, **self._asked_for(context))
            raise

    def _wait_or_fail(
        self, hook: FedtasksHook, error: FedtasksError, this: Mapping[str, str], since_ms: int, until_ms: int
    ) -> Never:
        """Defer until it is worth asking again; where that cannot help, or not in time, no try of the task does."""
        left_s = until_ms / 1000 - time.time()
        if not error.retryable or left_s <= 0 or error.retry_at_ms > until_ms:
            raise AirflowFailException(str(error)) from error
        self.log.info("Waiting: %s", error)
        self.defer(
            trigger=OpeningTrigger(str(hook.party_file), **this, until_ms=until_ms, not_before_ms=not_before_ms()),
            method_name="resume",
            kwargs={"since_ms": since_ms, "until_ms": until_ms},
            # The trigger itself ends the wait; this one is for a triggerer that is dead.
            timeout=timedelta(seconds=left_s + DEFER_SLACK_S),
        )
        raise AssertionError("defer always raises")

    def _opened(
        self, context: Context, hook: FedtasksHook, client: GatewayClient, response: worker_pb2.OpenRunResponse
    ) -> dict[str, Any]:
        """Take up the run that was opened, unless there is nothing to do."""
        from fedtasks.airflow.meetings import end_of
        from fedtasks.wire.v1 import worker_pb2

        run = response.run
        if (ended := end_of(run)) is not None:
            with airflow_errors(context["ti"]):
                raise ended
        if response.opening == worker_pb2.OPENING_ALREADY_DONE:
            raise AirflowSkipException(f"Run {run.run_id} has done this partition; `force` repeats it")
        if response.opening == worker_pb2.OPENING_ALREADY_RUNNING:
            raise AirflowSkipException(f"Run {run.run_id} is at this partition in DAG run {run.dag_run_id}")
        opened = self._take_up(client, hook.party, run)
        approve = f"{self.prefix}{APPROVE}"
        if not run.HasField("approval") and approve in self.downstream_task_ids:
            # A task that has nothing to do would cost as much time as any other.
            context["ti"].xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=opened)
            raise DownstreamTasksSkipped(tasks=[approve])  # type: ignore[no-untyped-call]
        return opened

    @property
    def prefix(self) -> str:
        """What the names of the run's tasks and fields begin with."""
        return f"{self.run}." if self.run else ""

    def _require_run(self, hook: FedtasksHook, run_id: str, pipeline: str) -> None:
        """End a run that the peer has asked for if this side's DAG does not hold it, as one whose steps differ."""
        ours = [pipeline_name(self.dag.dag_id, opening.run) for opening in openings(self.dag)]
        if pipeline in ours:
            return
        differs = ConfigDiffers(field="pipeline", ours=" ".join(ours), theirs=pipeline)
        try:
            with hook.client() as client:
                client.finish(run_id, OPEN_RUN, 0, failure=differs, final=True)
        except FedtasksError as error:
            self.log.warning("The failure could not be reported: %s", error)
        raise differs

    def _others(self) -> set[str]:
        """Return the tasks right before this one that do not come after another run of the DAG."""
        before = {name: self.dag.get_task(name) for name in self.upstream_task_ids}
        return {name for name, task in before.items() if not _comes_after_a_run(task)}

    def own_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the run's fields, by the names that they have in a form of this run alone."""
        prefix = self.prefix
        own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
        return {PARTITION: params.get(PARTITION), **own}

    def _ask_for(self, party: Party, context: Context) -> dict[str, Any]:
        """Return what the form and the DAG run ask for; nothing has been asked of the peer yet.

        Raises
        ------
        ConfigError
            Something was passed that is no field, or two partitions are named.
        FedtasksError
            What else is wrong with the form.
        """
        if self.fields:
            others = self.dag.params if self.has_dag() else ()  # type: ignore[no-untyped-call]
            runs = openings(self.dag) if self.has_dag() else [self]  # type: ignore[no-untyped-call]
            steps = (f"{run.prefix}{step.name}" for run in runs for step in run.steps)
            check_names(context["dag_run"].conf or {}, self.fields, (*others, *steps))
        params = self.own_params(context["params"])
        params["reason"] = params.get("reason") or self.reason
        return initiate(party, self.steps, params, partition_of(context, self.timezone))

    def _asked_for(self, context: Context) -> dict[str, str]:
        """Return what a refusal is kept with; where two partitions are named, none."""
        try:
            partition = partition_of(context, self.timezone)
        except ConfigError:
            partition = ""
        return {"partition": partition, "peer": str(self.own_params(context["params"]).get("peer") or "")}

    def _tell(self, hook: FedtasksHook, error: FedtasksError, **asked: str) -> None:
        """Let this party's gateway keep and show why nothing is asked for."""
        from fedtasks.wire.v1 import failure_pb2

        failure = failure_pb2.Failure(code=error.code, text=error.detail or error.public)
        try:
            with hook.client() as client:
                client.open_run(**asked, failure=failure)
        except FedtasksError as answered:
            if answered.code != error.code:
                self.log.warning("The refusal could not be shown on the page: %s", answered)

    def _take_up(self, client: GatewayClient, party: Party, run: run_pb2.Run) -> dict[str, Any]:
        shared = json.loads(run.config_json)
        try:
            check_shared(party, run.responder if run.initiator == party.name else run.initiator, self.steps, shared)
            if run.responder == party.name:
                check_workers(self.steps, shared["steps"])
            for warning in check_models(client.get_model, run.run_id, self.steps, shared, party):
                self.log.warning(warning)
        except FedtasksError as error:
            if not error.retryable:
                client.finish(run.run_id, OPEN_RUN, 0, failure=error, final=True)
            raise
        self.log.info("Run %s of %s with %s: %s leads", run.run_id, run.initiator, run.responder, shared["leader"])
        return {
            "run_id": run.run_id,
            "initiator": run.initiator,
            "responder": run.responder,
            "leader": shared["leader"],
            "partition": run.partition,
            "datasets": shared["datasets"],
        }


def openings(dag: DAG) -> list[OpenRunOperator]:
    """Return the tasks that open the runs of a DAG, in the order of the file."""
    return [task for task in dag.tasks if isinstance(task, OpenRunOperator)]


def _comes_after_a_run(task: Any) -> bool:
    """Whether a task stands in a run, or behind one."""
    before = [task.dag.get_task(name) for name in task.get_flat_relative_ids(upstream=True)]
    return any(isinstance(each, OpenRunOperator) for each in (task, *before))


def _step_message(step: Step) -> run_pb2.Step:
    from fedtasks.wire.v1 import run_pb2

    return run_pb2.Step(name=step.name, digest=step.digest, kind=step.kind)


class PartsOperator(BaseOperator):
    """Lists the shards or workers of a step in this run, for the tasks that are mapped over them.

    Parameters
    ----------
    step
        Which step; the run's own settings of it count.
    by
        The setting that says how many there are.
    open_run_task_id
        Task that opened the run.
    fedtasks_conn_id
        Connection of type ``fedtasks``.
    """

    def __init__(
        self,
        *,
        step: Step,
        by: str,
        open_run_task_id: str = OPEN_RUN,
        fedtasks_conn_id: str = FedtasksHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"doc_md": f"Lists the {by} of `{step.name}` in this run.", **kwargs})
        self.step = step
        self.by = by
        self.open_run_task_id = open_run_task_id
        self.fedtasks_conn_id = fedtasks_conn_id

    def execute(self, context: Context) -> list[int]:
        """Return their numbers, from 0 on."""
        ti = context["ti"]
        skip_with_others(self, ti)
        with airflow_errors(ti), FedtasksHook(self.fedtasks_conn_id).client() as client:
            run = client.get_run(run_id=run_id_of(ti, self.open_run_task_id)).run
            return list(range(parts_of(json.loads(run.config_json)["steps"][self.step.name], self.by)))
