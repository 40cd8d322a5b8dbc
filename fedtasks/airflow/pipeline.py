"""A federated pipeline as a DAG: declared in a few lines, deployed alike on both sides.

The role comes from the run, not from the file: whoever triggers it is the initiator, and the other side's gateway
starts the responder's DAG run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from airflow.sdk import DAG, CronPartitionTimetable, PartitionedAtRuntime, TaskGroup, TriggerRule, chain
from airflow.sdk.definitions.timetables.simple import NullTimetable

from fedtasks.airflow import form
from fedtasks.airflow.approval import APPROVAL_WAIT, ApproveOperator
from fedtasks.airflow.landing import AwaitDataOperator
from fedtasks.airflow.operators import (
    CLOSE_RUN,
    OPEN_RUN,
    CloseRunOperator,
    FederatedTaskOperator,
    OpenRunOperator,
    ShardsOperator,
)
from fedtasks.airflow.schedules import Schedule
from fedtasks.config import Party, check_name, load_party
from fedtasks.errors import ConfigError
from fedtasks.names import APPROVE, DATA
from fedtasks.pipeline.catalogue import (
    align,
    evaluate,
    intersect,
    intersect_by_shard,
    predict,
    publish,
    train,
    train_secureboost,
    train_split_nn,
)
from fedtasks.pipeline.step import SHARDS, Stage, Step

__all__ = [
    "FederatedDag",
    "Stage",
    "Step",
    "align",
    "evaluate",
    "federated",
    "intersect",
    "intersect_by_shard",
    "predict",
    "publish",
    "timetable",
    "train",
    "train_secureboost",
    "train_split_nn",
]

_RESERVED = frozenset({"fedtasks", *form.RUN, OPEN_RUN, APPROVE, DATA, CLOSE_RUN})
_NOT_CRON = ("@once", "@continuous")
DEFAULT_ARGS = {"retries": 2, "retry_delay": timedelta(seconds=5)}
"""What federated tasks have unless their DAG says otherwise: a half that is tried again needs the other's next try."""


class federated:  # noqa: N801 - reads as a verb where it is used
    """A federated run inside any DAG: ``with federated(peer="shop") as run: run.add(intersect())``.

    Parameters
    ----------
    peer
        Whom the trigger form proposes; by default the only peer of party.yaml.
    leader
        Who holds the label, as the initiator sees it: ``own`` or ``peer``.
    wait
        How long a half waits for the other.
    approval_wait
        How long a person has to approve the run, where its ticket asks for one.
    data_wait
        How long the run waits until both sides have landed its partition; by default it does not.

    Raises
    ------
    ConfigError
        Two steps have one name, or one that the trigger form needs.

    Notes
    -----
    The steps follow one another in the order added, and what `add` returns can be put before or behind ordinary
    operators. The DAG must be deployed on both sides with the same steps; the ordinary operators may differ. Without a
    schedule it takes the partition that a person or the gateway names; a schedule is given as
    ``schedule=timetable("my_dag", "@daily")``, which counts at one side only.
    """

    def __init__(
        self,
        *,
        peer: str | None = None,
        leader: str = "own",
        wait: timedelta = timedelta(hours=1),
        approval_wait: timedelta = APPROVAL_WAIT,
        data_wait: timedelta | None = None,
    ) -> None:
        if leader not in ("own", "peer"):
            raise ConfigError(f"`{leader}` is neither own nor peer", field="leader")
        self._peer = peer
        self._leader = leader
        self._wait = wait
        self._approval_wait = approval_wait
        self._data_wait = data_wait
        self._steps: list[Step] = []

    def __enter__(self) -> Self:
        # The ids stay plain: both sides' tasks are named by their steps, wherever these stand.
        self._group = TaskGroup("federated", prefix_group_id=False)
        self._group.default_args = {**DEFAULT_ARGS, **self._group.dag.default_args}
        self._group.__enter__()
        self._opened = OpenRunOperator(task_id=OPEN_RUN, steps=())
        self._approve = ApproveOperator(task_id=APPROVE, wait=self._approval_wait)
        chain(self._opened, self._approve)
        self._last: Any = self._approve
        if self._data_wait is not None:
            self._append(AwaitDataOperator(task_id=DATA, wait=self._data_wait))
        return self

    def _append(self, added: Any) -> None:
        """Put a task, or a group of tasks, behind what is there."""
        chain(self._last, added)
        if self._last is self._approve:
            # `open_run` skips `approve` where nobody is asked; what follows runs if the run is open all the same.
            chain(self._opened, added)
            for task in added.get_roots() if isinstance(added, TaskGroup) else [added]:
                task.trigger_rule = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
        self._last = added

    def add(self, step: Step) -> FederatedTaskOperator | TaskGroup:
        """Add a step behind those that are there, and return its task, or the group of its tasks."""
        if step.name in _RESERVED:
            raise ConfigError(f"a step cannot be called `{step.name}`", field="steps")
        if step.name in {known.name for known in self._steps}:
            raise ConfigError(f"`{step.name}` stands twice", field="steps")
        self._steps.append(step)
        added = _tasks(step, self._wait)
        self._append(added)
        return added

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._opened.steps = tuple(self._steps)
            self._append(CloseRunOperator(task_id=CLOSE_RUN, wait=self._wait))
            dag = self._opened.dag
            if isinstance(dag.timetable, NullTimetable):
                dag.timetable = PartitionedAtRuntime()
            fields = form.form_of(self._steps, self._peer, self._leader, self._wait, party_here())
            for name, field in fields.items():
                if name not in dag.params:
                    dag.params[name] = field
        self._group.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]


class FederatedDag(DAG):
    """``open_run``, ``approve``, the steps one after another, ``close_run``.

    Parameters
    ----------
    dag_id
        Name of the pipeline; both sides' DAGs have the same.
    steps
        What the run does.
    peer, leader, wait, approval_wait
        As for `federated`.
    schedule
        When a run begins by itself, at the one side whose party.yaml names the pipeline in ``schedules``:
        ``fed.daily("03:00")``, ``fed.when_landed()``, a cron expression of a day or longer, such as ``@daily``, whose
        run is about the day before, or a timetable. By default only when triggered, by a person or by the gateway.
    **kwargs
        As for every DAG.

    Raises
    ------
    ConfigError
        Two steps have the same name, or one that the trigger form needs.
    """

    def __init__(
        self,
        dag_id: str,
        *,
        steps: Sequence[Step],
        peer: str | None = None,
        leader: str = "own",
        wait: timedelta = timedelta(hours=1),
        approval_wait: timedelta = APPROVAL_WAIT,
        schedule: Any = None,
        **kwargs: Any,
    ) -> None:
        check_name(dag_id, "dag_id")
        super().__init__(
            dag_id,
            schedule=timetable(dag_id, schedule, peer),
            **{"max_active_runs": 4, "catchup": False, "tags": ["federated"], **kwargs},
        )
        data_wait = schedule.wait if isinstance(schedule, Schedule) else None
        run = federated(peer=peer, leader=leader, wait=wait, approval_wait=approval_wait, data_wait=data_wait)
        with self, run:
            for step in steps:
                run.add(step)


def _tasks(step: Step, wait: timedelta) -> FederatedTaskOperator | TaskGroup:
    """Make the task of a step, or the group of its stages."""
    if not step.stages:
        return FederatedTaskOperator(task_id=step.name, step=step, wait=wait)
    with TaskGroup(step.name) as group:
        shards = ShardsOperator(task_id=SHARDS, step=step) if step.is_by_shard else None
        tasks: list[Any] = [] if shards is None else [shards]
        for stage in step.stages:
            arguments: dict[str, Any] = {"task_id": stage.name, "step": step, "stage": stage.name, "wait": wait}
            if stage.by_shard and shards is not None:
                # Without a limit of how many run at once: a half that waits counts as running, and the two sides could
                # each wait for shards that the other has not begun.
                mapped = FederatedTaskOperator.partial(**arguments, map_index_template="shard {{ task.shard }}")
                tasks.append(mapped.expand(shard=shards.output))
            else:
                tasks.append(FederatedTaskOperator(**arguments))
        chain(*tasks)
    return group


def timetable(dag_id: str, schedule: Any = None, peer: str | None = None) -> Any:
    """Return when this side begins a run with `peer`: by `schedule` where party.yaml says so, else when triggered."""
    party = party_here()
    if schedule is None or party is None or dag_id not in party.schedules:
        # Unlike None, this takes the partition key that a gateway or a person gives, and needs none.
        return PartitionedAtRuntime()
    if isinstance(schedule, Schedule):
        return schedule.timetable(party, peer)
    if not isinstance(schedule, str) or schedule in _NOT_CRON:
        return schedule
    # What runs after midnight is about the day that has ended.
    return CronPartitionTimetable(schedule, timezone="UTC", key_format="%Y-%m-%d", run_offset=-1)


def party_here() -> Party | None:
    """Return this party if its file can be read; if not, the DAG still parses and ``open_run`` says what is wrong."""
    try:
        return load_party()
    except ConfigError:
        return None
