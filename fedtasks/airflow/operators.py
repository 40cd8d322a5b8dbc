"""Operators: run one half of a task of a federated run, and close the run; `opening` opens it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Never

from airflow.sdk import BaseOperator, TriggerRule
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRuntimeError,
    AirflowSkipException,
)

from fedtasks.airflow.assets import LEFT, Lineage, announce, leaves, lineage_of, operator_lineage
from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.links import FederatedLink
from fedtasks.airflow.outcomes import Outcomes
from fedtasks.airflow.repeats import end_if_repeated
from fedtasks.airflow.tries import FIRST, Tries
from fedtasks.airflow.triggers import MeetingTrigger
from fedtasks.config import Party
from fedtasks.dataclass_io import to_plain
from fedtasks.digests import digest
from fedtasks.errors import (
    AttemptStale,
    DeadlinePassed,
    FedtasksError,
    GatewayUnreachable,
    RunUnknown,
    StoreUnavailable,
)
from fedtasks.link.mark import FileMark
from fedtasks.logs import About, framed
from fedtasks.models.settings import BOTH
from fedtasks.names import APPROVE, CLOSE_RUN, OPEN_RUN, TABLES, half_name
from fedtasks.pipeline.shared import WAIT
from fedtasks.pipeline.step import Step
from fedtasks.runtime.task_config import MARK, TaskConfig, read_reached
from fedtasks.shortage import told_short

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fedtasks.airflow.lease import Half
    from fedtasks.airflow.opening import PartsOperator
    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import run_pb2

_PROGRESS_EVERY_S = 2.0
DEFER_SLACK_S = 60.0
"""How much longer than a trigger Airflow waits: for a triggerer that is dead."""
# Both halves usually come within seconds of each other. Deferring costs a new process, so it waits a little for that.
_PATIENCE_S = 8.0
_RECEIPT_S = 20.0
_KEEP_AFTER_S = 3.0
_MOST_REST_S = 60.0


def is_final(error: FedtasksError, ti: Any) -> bool:
    """Whether no try of this task follows `error`."""
    return not (error.retryable and ti.try_number <= ti.max_tries)


@contextmanager
def airflow_errors(ti: Any) -> Iterator[None]:
    """Turn the registry's errors into Airflow's: one that is retried, or one that is not."""
    try:
        yield
    except FedtasksError as error:
        kind = AirflowFailException if is_final(error, ti) else AirflowException
        raise kind(str(error)) from error


def run_id_of(ti: Any, open_run_task_id: str) -> str:
    """Return the run that this DAG run has opened; raise `RunUnknown` if it has opened none."""
    opened = ti.xcom_pull(task_ids=open_run_task_id)
    if not opened:
        raise RunUnknown(f"task `{open_run_task_id}` has opened no run")
    return str(opened["run_id"])


def skip_with_others(task: MeetingOperator | PartsOperator, ti: Any) -> None:
    """Skip a task with every one before it but `approve`: the rule by which it runs without that overlooks the others.

    Raises
    ------
    AirflowSkipException
        The run was not opened, or a task of the user's before this one was skipped.
    """
    opened, approve = task.open_run_task_id, f"{_prefix(task.open_run_task_id)}{APPROVE}"
    if task.trigger_rule == TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS and task.upstream_task_ids - {opened, approve}:
        skip_after(task.upstream_task_ids - {approve}, ti)


def skip_after(others: Collection[str], ti: Any) -> None:
    """Skip a task if one of these before it was skipped.

    Raises
    ------
    AirflowSkipException
        One was.
    """
    if not others:
        return
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=sorted(others), run_ids=[ti.run_id])[ti.run_id]
    skipped = [name for name in sorted(others) if states.get(name) == "skipped"]
    if skipped:
        raise AirflowSkipException(f"{', '.join(skipped)} before it was skipped")


def _prefix(open_run_task_id: str) -> str:
    """Return what the names of a run's tasks and of its fields begin with: nothing, where a DAG holds one run."""
    return open_run_task_id.removesuffix(OPEN_RUN)


class MeetingOperator(BaseOperator):
    """Base of what runs once both halves are there.

    Parameters
    ----------
    federated_task
        Under which name the halves meet.
    wait
        How long to wait for the other half.
    open_run_task_id
        Task that opened the run.
    fedtasks_conn_id
        Connection of type ``fedtasks``.
    """

    operator_extra_links = (FederatedLink(),)
    overdue: ClassVar[type[FedtasksError]] = DeadlinePassed
    """What it is when the other half was not there in time."""
    wait_field: ClassVar[str] = ""
    """The field of the trigger form that says how long to wait."""
    holds_lease: ClassVar[bool] = False
    """Whether what is performed renews a lease meanwhile; what waits deferred cannot."""
    _tries, _reached = FIRST, 0

    def __init__(
        self,
        *,
        federated_task: str,
        wait: timedelta = timedelta(hours=1),
        open_run_task_id: str = OPEN_RUN,
        fedtasks_conn_id: str = FedtasksHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.federated_task = federated_task
        self.wait = wait
        self.open_run_task_id = open_run_task_id
        self.fedtasks_conn_id = fedtasks_conn_id

    def execute(self, context: Context) -> Any:
        """Meet the other half, deferring until it is there, then do this half's part.

        Raises
        ------
        AirflowSkipException
            A task of the user's before it was skipped.
        """
        skip_with_others(self, context["ti"])
        self._tries = FIRST
        return self._proceed(context)

    def resume(self, context: Context, event: str, tries: Mapping[str, int] | None = None, **state: Any) -> Any:
        """Look again after a wait; `event` is a hint and decides nothing."""
        self.log.info("Looking again: %s", event)
        self._tries = Tries(**tries or {})
        return self._proceed(context, **state)

    def _proceed(self, context: Context) -> Any:
        ti = context["ti"]
        with airflow_errors(ti):
            hook = FedtasksHook(self.fedtasks_conn_id)
            with hook.client() as client:
                return self._meet(context, hook, client, run_id_of(ti, self.open_run_task_id))

    def _meet(self, context: Context, hook: FedtasksHook, client: GatewayClient, run_id: str) -> Any:
        task, ti, retries = self.federated_task, context["ti"], self.retries or 0
        if ti.try_number > 1 and (kept := self._tell_kept(context, hook, client, run_id)) is not None:
            return kept
        while True:
            token, is_renewed = self._tries.token(ti.id), self._tries.is_renewed
            meeting = client.announce(run_id, task, token, self._wait_s(context), renewed=is_renewed)
            attempt = meeting.own.attempt
            self._reached = 0
            try:
                meeting = self._await_peer(hook, meeting)
                attempt = meeting.own.attempt  # a half that waits joins the other's newer attempt
                meeting = client.start(run_id, task, attempt, leased=self.holds_lease)
                with told_short():
                    outcome = self.perform(context, hook, meeting)
            except FedtasksError as error:
                end_if_repeated(context, error)
                again = self._tries.after(error, self._reached, retries)
                self._report(client, run_id, attempt, error, final=again is None and is_final(error, ti))
                if again is None:
                    raise
                self.log.warning("The half goes on from what it has kept: %s", error)
                self._tries = again
            else:
                self._hand_over(ti, hook, client, meeting, outcome)
                return outcome
            self._rest(client, run_id, attempt, retries)

    def _hand_over(
        self, ti: Any, hook: FedtasksHook, client: GatewayClient, meeting: run_pb2.Meeting, outcome: dict[str, Any]
    ) -> None:
        try:
            self._deliver(hook, client, meeting, outcome)
        except FedtasksError as error:
            # The half has not failed: where another try follows, that tells what this one has worked out.
            is_kept = isinstance(error, GatewayUnreachable | StoreUnavailable) and not is_final(error, ti)
            if not is_kept:
                self._report(client, meeting.run.run_id, meeting.own.attempt, error, final=is_final(error, ti))
            raise

    def _rest(self, client: GatewayClient, run_id: str, attempt: int, retries: int) -> None:
        """Wait for the next attempt, as Airflow does before the next try.

        Raises
        ------
        AttemptStale
            Another try has begun, so Airflow has given this one up.
        FedtasksError
            What has ended the run meanwhile.
        """
        from fedtasks.airflow.meetings import end_of

        for left in reversed(range(retries + 1)):
            time.sleep(min(self.retry_delay.total_seconds(), _MOST_REST_S))
            try:
                found = client.get_run(run_id=run_id)
            except GatewayUnreachable:
                if not left:
                    raise
                continue
            ended = end_of(found.run)
            if ended is not None:
                raise ended
            if any(half.task == self.federated_task and half.attempt > attempt for half in found.own):
                raise AttemptStale("another try of the task has begun", where=run_id)
            return

    def _deliver(
        self, hook: FedtasksHook, client: GatewayClient, meeting: run_pb2.Meeting, outcome: dict[str, Any]
    ) -> None:
        """Tell this party's gateway what this half ended with."""
        client.finish(meeting.run.run_id, self.federated_task, meeting.own.attempt, outcome=outcome)

    def _tell_kept(
        self, context: Context, hook: FedtasksHook, client: GatewayClient, run_id: str
    ) -> dict[str, Any] | None:
        """Return the outcome of an earlier try that the gateway has only now been told, None if there is none."""
        return None

    def _wait_s(self, context: Context) -> float:
        """Return how long to wait for the other half: as the trigger form says, else as the pipeline does."""
        prefix = _prefix(self.open_run_task_id)
        return wait_s(context, prefix, self.wait) if self.wait_field else self.wait.total_seconds()

    def _await_peer(self, hook: FedtasksHook, meeting: run_pb2.Meeting) -> run_pb2.Meeting:
        """Return the meeting once it is ready; wait a little here and the rest deferred."""
        from fedtasks.airflow.meetings import end_of, find, has_ended, waiting_for

        run_id = meeting.run.run_id
        left_s = meeting.own.until_ms / 1000 - time.time()
        if not meeting.ready and not has_ended(meeting) and left_s > 0:
            self.log.info("Waiting for %s: %s", peer_name(meeting.run, hook.party), waiting_for(meeting))
            decided = find(
                hook.party_file,
                run_id,
                self.federated_task,
                lambda now: now.ready or has_ended(now),
                min(left_s, _PATIENCE_S),
            )
            meeting = asyncio.run(decided) or meeting
        ended = end_of(meeting.run)
        if ended is not None:
            raise ended
        if not meeting.ready:
            if meeting.own.until_ms <= time.time() * 1000:
                raise self.overdue(waiting_for(meeting), where=run_id)
            self._defer(hook, run_id, meeting.own.until_ms, self._tries.state)
        return meeting

    def _defer(
        self,
        hook: FedtasksHook,
        run_id: str,
        until_ms: int,
        state: dict[str, Any] | None = None,
        kind: type[MeetingTrigger] = MeetingTrigger,
        **facts: Any,
    ) -> Never:
        left_s = max(0.0, until_ms / 1000 - time.time())
        self.defer(
            trigger=kind(str(hook.party_file), run_id, self.federated_task, until_ms, not_before_ms(), **facts),
            method_name="resume",
            kwargs=state or {},
            # The trigger itself ends the wait; this one is for a triggerer that is dead.
            timeout=timedelta(seconds=left_s + DEFER_SLACK_S),
        )
        raise AssertionError("defer always raises")

    def _report(self, client: GatewayClient, run_id: str, attempt: int, error: FedtasksError, *, final: bool) -> None:
        """Tell this party's gateway, which tells the peer."""
        try:
            client.finish(run_id, self.federated_task, attempt, failure=error, final=final)
        except FedtasksError as unreported:
            # The gateway watches its Airflow too: it learns of the failure from there.
            self.log.warning("The failure could not be reported: %s", unreported)

    def perform(self, context: Context, hook: FedtasksHook, meeting: run_pb2.Meeting) -> dict[str, Any]:
        """Do this half's part and return its outcome, which must equal the other half's."""
        raise NotImplementedError


def wait_s(context: Context, prefix: str, default: timedelta) -> float:
    """Return how many seconds a run's tasks wait, by the trigger form's field of the run, else as the pipeline says."""
    minutes = context["params"].get(f"{prefix}{WAIT}")
    return 60.0 * minutes if minutes else default.total_seconds()


def not_before_ms() -> int:
    """Return when a task that defers now may be resumed: once its process has been seen to end."""
    # So long may the process's supervisor sleep before it looks, and a little for its message to arrive.
    return _ms_in(conf.getint("workers", "min_heartbeat_interval") + 2)


def _ms_in(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


def peer_name(run: run_pb2.Run, party: Party) -> str:
    """Return the other party of a run."""
    return str(run.responder if run.initiator == party.name else run.initiator)


def lineage_here(step: Step, party: str, run: run_pb2.Run, outcome: Mapping[str, Any]) -> Lineage:
    """Return what a party's half of a step has read and left in a run."""
    shared = json.loads(run.config_json)
    settings = step.effective(shared["steps"][step.name])
    return lineage_of(
        step.kind,
        party,
        shared["datasets"][party],
        (run.pipeline, run.partition, run.run_id),
        outcome,
        learns_scores=shared["leader"] == party or settings.get("scores") == BOTH,
        stream=settings.get("stream", ""),
    )


def doc_of(step: Step, stage: str = "") -> str:
    """Describe in Markdown what the task of a step, or of one part of it, does."""
    part = f" Part `{stage}` of it." if stage else ""
    return f"{step.what}{part} Runs this party's half, once the peer's is there too."


class FederatedTaskOperator(MeetingOperator):
    """Runs this party's half of one step, or of one part of it, as a process of its own.

    Parameters
    ----------
    step
        What to run.
    stage, shard
        Which part of it; by default all.
    **kwargs
        As for `MeetingOperator` and every operator.
    """

    template_fields: Sequence[str] = ("federated_task",)
    wait_field: ClassVar[str] = WAIT
    holds_lease: ClassVar[bool] = True

    def __init__(self, *, step: Step, stage: str = "", shard: int | None = None, **kwargs: Any) -> None:
        kwargs = {"doc_md": doc_of(step, stage), **kwargs}
        super().__init__(federated_task=half_name(step.name, stage, shard), **kwargs)
        if leaves(step.kind) and not stage:
            self.outlets = [*self.outlets, LEFT]
        self.step = step
        self.stage = stage
        self.shard = shard
        self._stop: Callable[[], None] | None = None
        self._killed = False
        self._lineage: Lineage | None = None

    def _line_of(self, hook: FedtasksHook, run_id: str, attempt: int) -> Callable[[str], None]:
        """Return what logs a line of a half."""
        if not hook.party.logs.is_json:
            return lambda line: self.log.info("%s", line)
        about = About(hook.party.name, run_id, self.federated_task, attempt)
        return lambda line: self.log.info("%s", framed(line, about))

    def perform(self, context: Context, hook: FedtasksHook, meeting: run_pb2.Meeting) -> dict[str, Any]:
        """Run the algorithm; stop it when the run ends, the other half begins anew, or it stands still."""
        from fedtasks.airflow.execution import read_outcome, run_process, write_private
        from fedtasks.airflow.lease import Lease
        from fedtasks.airflow.meetings import obstacle, watch
        from fedtasks.airflow.starting import start

        run_id, attempt = meeting.run.run_id, meeting.own.attempt
        progress = Progress(context, self.log.warning)

        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedtasks-")))
            config = folder / "config.json"
            FileMark(folder / MARK).close()  # what hangs before it has begun stands still too
            lease = stack.enter_context(Lease(hook.party_file, self._half(hook, meeting, folder), meeting.peer))

            def stop_reason(now: run_pb2.Meeting) -> FedtasksError | None:
                progress.show(now.own.progress_json)
                lease.see(now)
                return obstacle(now, attempt)

            write_private(config, self._config(hook, meeting))
            self.log.info("Attempt %d of %s in run %s", attempt, self.federated_task, run_id)
            try:
                code = asyncio.run(
                    run_process(
                        partial(start, self.step, config, hook.party_file),
                        meetings=watch(hook.party_file, run_id, self.federated_task),
                        stop_reason=stop_reason,
                        on_line=self._line_of(hook, run_id, attempt),
                        on_start=self._started,
                        verdict=lease.verdict,
                    )
                )
            finally:
                self._stop = None
                self._reached = read_reached(folder)
                progress.flush()
            if self._killed:
                # Airflow knows why; the gateway sees there whether the DAG run failed or the task is tried again.
                raise AirflowException("Airflow has stopped this task")
            outcome = read_outcome(folder, code)
        self._show(context, hook, meeting.run, outcome)
        return outcome

    def _half(self, hook: FedtasksHook, meeting: run_pb2.Meeting, folder: Path) -> Half:
        from fedtasks.airflow.lease import Half

        return Half(
            run_id=meeting.run.run_id,
            task=self.federated_task,
            attempt=meeting.own.attempt,
            party=hook.party.name,
            peer=peer_name(meeting.run, hook.party),
            stall_s=self.step.stall_s or hook.party.stall_s,
            mark=folder / MARK,
        )

    def _deliver(
        self, hook: FedtasksHook, client: GatewayClient, meeting: run_pb2.Meeting, outcome: dict[str, Any]
    ) -> None:
        """Tell the gateway at once; if it cannot take the outcome, keep that in the storage and go on trying."""
        run_id, half, attempt = meeting.run.run_id, self.federated_task, meeting.own.attempt
        try:
            client.finish(run_id, half, attempt, outcome=outcome, patience_s=_KEEP_AFTER_S)
            return
        except (GatewayUnreachable, StoreUnavailable) as error:
            self.log.warning("The outcome is kept until the gateway can take it: %s", error)
        kept = self._outcomes(hook, run_id)
        try:
            kept.keep(attempt, outcome)
        except (FedtasksError, OSError) as error:
            self.log.warning("The outcome cannot be kept, but is told as soon as it can be: %s", error)
        client.finish(run_id, half, attempt, outcome=outcome)
        kept.forget()

    def _tell_kept(
        self, context: Context, hook: FedtasksHook, client: GatewayClient, run_id: str
    ) -> dict[str, Any] | None:
        told = self._outcomes(hook, run_id).tell(client)
        if told is None:
            return None
        run, outcome = told
        self.log.info("An earlier try has done this: its outcome was kept, and the gateway has taken it now")
        self._show(context, hook, run, outcome)
        return outcome

    def _outcomes(self, hook: FedtasksHook, run_id: str) -> Outcomes:
        return Outcomes(hook.party.storage, run_id, self.step.name, self.stage, self.shard)

    def _show(self, context: Context, hook: FedtasksHook, run: run_pb2.Run, outcome: dict[str, Any]) -> None:
        """Say in Airflow what came of this half."""
        self.log.info("Outcome: %s", json.dumps(outcome, sort_keys=True))
        self._lineage = lineage_here(self.step, hook.party.name, run, outcome)
        if not self.stage:  # of several tasks, one says it for all
            announce(context, self._lineage)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Say what this half has read and left, if the OpenLineage provider asks.

        Parameters
        ----------
        task_instance
            Not needed.
        """
        return operator_lineage(self._lineage)

    def _config(self, hook: FedtasksHook, meeting: run_pb2.Meeting) -> dict[str, Any]:
        shared = json.loads(meeting.run.config_json)
        config = TaskConfig(
            party=hook.party_file,
            run_id=meeting.run.run_id,
            task=self.step.name,
            attempt=meeting.own.attempt,
            peer=peer_name(meeting.run, hook.party),
            leader=shared["leader"],
            datasets=shared["datasets"],
            settings=shared["steps"][self.step.name],
            kind=self.step.kind,
            kinds=tuple(step.kind for step in meeting.run.steps),
            kind_settings=tuple(shared["steps"].get(step.name, {}) for step in meeting.run.steps),
            bounds=json.loads(meeting.bounds_json),
            dataset_digest=meeting.dataset_digest,
            shared_digest=digest(shared),
            partition=meeting.run.partition,
            stage=self.stage,
            shard=self.shard,
            resume_s=self.step.resume_s or hook.party.resume_s,
        )
        return dict(to_plain(config))

    def _started(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        if self._killed:  # while it was being started
            stop()

    def on_kill(self) -> None:
        """End the algorithm with everything that it started."""
        self._killed = True
        if self._stop is not None:
            self._stop()


class Progress:
    """Shows a half's progress in the task state store, if Airflow has one; display only."""

    def __init__(self, context: Context, warn: Callable[..., None]) -> None:
        self._store = context.get("task_state_store")
        self._warn = warn
        self._seen = ""
        self._shown = ""
        self._shown_at = 0.0

    def show(self, progress_json: str) -> None:
        """Show the newest progress, at most once in two seconds: each time is a request to Airflow."""
        self._seen = progress_json or self._seen
        if time.monotonic() - self._shown_at >= _PROGRESS_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Show what has not been shown yet."""
        if self._store is None or self._seen == self._shown:
            return
        self._shown, self._shown_at = self._seen, time.monotonic()
        try:
            self._store.set("progress", json.loads(self._seen))
        except AirflowRuntimeError as error:
            self._warn("progress could not be shown: %s", error)


class CloseRunOperator(MeetingOperator):
    """Ends the run: both sides sign what they did, compare, and keep both signatures.

    Parameters
    ----------
    **kwargs
        As for `MeetingOperator` and every operator.
    """

    wait_field: ClassVar[str] = WAIT

    def __init__(self, **kwargs: Any) -> None:
        doc = "Ends the run: both sides sign what they did, and compare."
        super().__init__(federated_task=CLOSE_RUN, **{"doc_md": doc, **kwargs})

    def _proceed(self, context: Context, until_ms: int = 0) -> dict[str, Any]:
        from fedtasks.wire.v1 import run_pb2

        ti = context["ti"]
        with airflow_errors(ti):
            hook = FedtasksHook(self.fedtasks_conn_id)
            with hook.client() as client:
                run_id = run_id_of(ti, self.open_run_task_id)
                run = client.get_run(run_id=run_id).run
                # A receipt on either side means that the halves have met here before.
                if run.state == run_pb2.STATE_RUNNING and not run.receipt and not run.peer_receipt:
                    self._meet(context, hook, client, run_id)
                client.close_run(run_id)
                return self._settle(hook, client, run_id, until_ms or _ms_in(self._wait_s(context)))

    def perform(self, context: Context, hook: FedtasksHook, meeting: run_pb2.Meeting) -> dict[str, Any]:
        """Let steps keep nothing any longer to be repeated; closing has an outcome of its own only in the receipts."""
        from fedtasks.data.run_storage import RunStorage

        try:
            RunStorage(hook.party.storage, meeting.run.run_id).forget_spent()
        except (FedtasksError, OSError) as error:
            # The next run of the pipeline forgets what is left, when it is old.
            self.log.warning("What steps have kept to be repeated could not be removed: %s", error)
        return {}

    def _settle(self, hook: FedtasksHook, client: GatewayClient, run_id: str, until_ms: int) -> dict[str, Any]:
        """Wait until both receipts are here and agree."""
        from fedtasks.airflow.meetings import end_of, find, has_ended
        from fedtasks.wire.v1 import run_pb2

        asyncio.run(find(hook.party_file, run_id, CLOSE_RUN, has_ended, _RECEIPT_S))
        run = client.get_run(run_id=run_id).run
        ended = end_of(run)
        if ended is not None:
            raise ended
        if run.state != run_pb2.STATE_SUCCEEDED:
            if until_ms <= time.time() * 1000:
                raise DeadlinePassed("the other side's receipt has not come", where=run_id)
            self.log.info("Waiting for the receipt of %s", peer_name(run, hook.party))
            self._defer(hook, run_id, until_ms, {"until_ms": until_ms})
        answer = client.get_run(run_id=run_id)
        summary = {
            "run_id": run_id,
            "outcomes": {
                half.task: json.loads(half.outcome_json or "{}") for half in answer.own if half.task != CLOSE_RUN
            },
            "bytes_sent": answer.bytes_sent,
            "bytes_received": answer.bytes_received,
            "metrics": {
                f"{metric.task}.{metric.name}": metric.value
                for metric in sorted(answer.metrics, key=lambda metric: int(metric.step))
                if not metric.name.startswith(TABLES)
            },
        }
        self.log.info("Receipts agree: %s", json.dumps(summary, sort_keys=True))
        return summary
