"""A federated pipeline as a DAG: declared in a few lines, deployed alike on both sides.

The role comes from the run, not from the file: whoever triggers it is the initiator, and the other side's gateway
starts the responder's DAG run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from airflow.sdk import DAG, Param, PartitionedAtRuntime, TaskGroup, TriggerRule, chain
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.definitions.timetables.simple import NullTimetable

from fedtasks.airflow import form
from fedtasks.airflow.announcing import AnnounceOperator
from fedtasks.airflow.approval import APPROVAL_WAIT, ApproveOperator
from fedtasks.airflow.assets import leaves
from fedtasks.airflow.hook import FedtasksHook, party_here
from fedtasks.airflow.landing import AwaitDataOperator
from fedtasks.airflow.opening import OpenRunOperator, PartsOperator, openings
from fedtasks.airflow.operators import CloseRunOperator, FederatedTaskOperator, doc_of
from fedtasks.airflow.schedules import Periodic, Schedule, WhenLanded
from fedtasks.airflow.sides import Sides
from fedtasks.config import Party, check_name
from fedtasks.errors import ConfigError
from fedtasks.names import ANNOUNCE, APPROVE, CLOSE_RUN, DATA, OPEN_RUN
from fedtasks.pipeline.catalogue import (
    align,
    evaluate,
    intersect,
    intersect_by_shard,
    join,
    joined,
    predict,
    publish,
    train,
    train_secureboost,
    train_split_nn,
)
from fedtasks.pipeline.shared import RUN
from fedtasks.pipeline.step import Stage, Step

__all__ = [
    "FederatedDag",
    "Stage",
    "Step",
    "align",
    "evaluate",
    "federated",
    "intersect",
    "intersect_by_shard",
    "join",
    "joined",
    "predict",
    "publish",
    "timetable",
    "train",
    "train_secureboost",
    "train_split_nn",
]

_RESERVED = frozenset({"fedtasks", *RUN, OPEN_RUN, APPROVE, DATA, CLOSE_RUN})
_APPROVE_DOC = "Waits until a person of the granting side has said yes, where the ticket asks for one."
_DATA_DOC = (
    "Waits until both sides have the data of the run's partition: landed, or of a stream all rows up to its end."
)
_NOT_CRON = ("@once", "@continuous")
_CONNECTION = FedtasksHook.default_conn_name
DEFAULT_ARGS = {"retries": 2, "retry_delay": timedelta(seconds=5)}
"""What federated tasks have unless their DAG says otherwise: a half that is tried again needs the other's next try."""


class federated:  # noqa: N801 - reads as a verb where it is used
    """A federated run inside any DAG: ``with federated(peer="shop") as run: run.add(intersect())``.

    Parameters
    ----------
    name
        Which run, in a DAG that holds several: its pipeline is ``dag_id.name``, which tickets, pages and models name;
        its tasks stand in a group of that name, and the names of its fields in the trigger form begin with it. At most
        one run of a DAG has none, and its pipeline is named as the DAG.
    peer
        Whom the trigger form proposes; by default the only peer of party.yaml.
    leader
        Who holds the label, as the initiator sees it: ``own`` or ``peer``.
    dataset, peer_dataset
        On which dataset of this party, and of the peer; in the peer's copy of the file, which names it as `peer`, they
        swap. By default this party's is the only one that would do, and the peer's the only one that the tickets name;
        where there is a choice, the trigger form asks.
    reason
        Why, where the form gives no reason; a template, such as ``{{ dag_run.run_type }}``. The peer reads it.
    wait
        How long a half waits for the other, and ``open_run`` for a run that cannot begin yet.
    approval_wait
        How long a person has to approve the run, where its ticket asks for one.
    data_wait
        How long the run waits until both sides have the data of its partition; by default it does not.
    by_partition
        Whether runs are about partitions that land, so that a dataset without is not meant; `data_wait` says so too.
    timezone
        By whose clock days begin, where a run is named by a day.
    group
        Name of the task group around a run without a name; None puts its tasks into the DAG as they are.
    fedtasks_conn_id
        Connection of type ``fedtasks``, which names this party.

    Raises
    ------
    ConfigError
        Two steps have one name, or one that the trigger form needs; a parameter of the DAG has such a name or no
        default; there is no such dataset here; the DAG has a run of that name already; or the run stands in a task
        group of the author's.

    Notes
    -----
    The steps follow one another in the order added, and what `add` returns can be put before or behind ordinary
    operators. The DAG must be deployed on both sides with the same steps; the ordinary operators may differ. Without a
    schedule it takes the partition that a person or the gateway names; a schedule is given as
    ``schedule=timetable("my_dag", "@daily")``, which counts at one side only.

    Each run of a DAG that holds several has a DAG run of its own at the peer: there the others are skipped, with what
    follows them. So each is asked for, charged, repeated and ended alone, and may be with another peer, whose file then
    holds this run only. Tasks before all of them run in each.
    """

    def __init__(
        self,
        name: str = "",
        *,
        peer: str | None = None,
        leader: str = "own",
        dataset: str | None = None,
        peer_dataset: str | None = None,
        reason: str = "",
        wait: timedelta = timedelta(hours=1),
        approval_wait: timedelta = APPROVAL_WAIT,
        data_wait: timedelta | None = None,
        by_partition: bool = False,
        timezone: str = "UTC",
        group: str | None = "federated",
        fedtasks_conn_id: str = _CONNECTION,
    ) -> None:
        if name:
            check_name(name, "name")
        self._name = name
        self._sides = Sides(peer, leader, dataset, peer_dataset)
        self._reason = reason
        self._wait = wait
        self._approval_wait = approval_wait
        self._data_wait = data_wait
        self._by_partition = by_partition or data_wait is not None
        self._timezone = timezone
        self._group = group
        self._connection = fedtasks_conn_id
        self._steps: list[Step] = []
        self._data: AwaitDataOperator | None = None

    def __enter__(self) -> Self:
        dag = DagContext.get_current_dag()
        _check_name(dag, self._name)
        defaults = {**DEFAULT_ARGS, **(dag.default_args if dag is not None else {})}
        # The author's own tasks beside them keep Airflow's defaults.
        common: dict[str, Any] = {"default_args": defaults, "fedtasks_conn_id": self._connection}
        with ExitStack() as stack:
            if self._name:
                stack.enter_context(TaskGroup(self._name))
            elif self._group is not None:
                # The ids stay plain: both sides' tasks are named by their steps, wherever these stand.
                stack.enter_context(TaskGroup(self._group, prefix_group_id=False))
            self._opened = OpenRunOperator(
                task_id=OPEN_RUN,
                steps=(),
                run=self._name,
                reason=self._reason,
                timezone=self._timezone,
                wait=self._wait,
                **common,
            )
            _require_place(self._opened)
            self._common = {**common, "open_run_task_id": self._opened.task_id}
            self._approve = ApproveOperator(
                task_id=APPROVE, wait=self._approval_wait, doc_md=_APPROVE_DOC, **self._common
            )
            chain(self._opened, self._approve)
            self._last: Any = self._approve
            if self._data_wait is not None:
                waits: dict[str, Any] = {"wait": self._data_wait, "timezone": self._timezone, "doc_md": _DATA_DOC}
                self._data = AwaitDataOperator(task_id=DATA, **waits, **self._common)
                self._append(self._data)
            self._open = stack.pop_all()
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
        added = _tasks(step, self._wait, self._common)
        self._append(added)
        return added

    @property
    def opened(self) -> OpenRunOperator:
        """The task with which the run begins; what stands before it, the run waits for."""
        return self._opened

    @property
    def closed(self) -> CloseRunOperator:
        """The task with which the run ends, once the block has been left; what stands behind it waits for the run."""
        return self._closed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is not None:
                return
            self._opened.steps = tuple(self._steps)
            if self._data is not None:
                self._data.steps = self._opened.steps
            self._closed = CloseRunOperator(task_id=CLOSE_RUN, wait=self._wait, **self._common)
            self._append(self._closed)
            dag = self._opened.dag
            if isinstance(dag.timetable, NullTimetable):
                dag.timetable = PartitionedAtRuntime()
            party, sides = party_here(self._connection), self._sides
            if party is not None:
                sides = sides.seen_by(party, self._steps, by_partition=self._by_partition)
            fields = form.form_of(self._steps, sides, self._wait, party)
            self._add_fields(dag, form.of_run(self._name, fields) if self._name else fields)

    def _add_fields(self, dag: DAG, fields: dict[str, Param]) -> None:
        """Put the run's fields into the trigger form, behind those of the runs before it."""
        runs = openings(dag)
        earlier = {name: dag.params.get_param(name) for run in runs for name in run.fields}
        authors = ParamsDict({name: dag.params.get_param(name) for name in dag.params if name not in earlier})
        steps = (f"{self._opened.prefix}{step.name}" for step in self._steps)
        dag.params = form.beside({**earlier, **fields}, authors, ("fedtasks", *steps))
        self._opened.fields = tuple(fields)


class FederatedDag(DAG):
    """``open_run``, ``approve``, the steps one after another, ``close_run``.

    Parameters
    ----------
    dag_id
        Name of the pipeline; both sides' DAGs have the same.
    steps
        What the run does.
    peer, leader, dataset, peer_dataset, reason, wait, approval_wait, fedtasks_conn_id
        As for `federated`.
    schedule
        When a run begins by itself, at the one side whose party.yaml names the pipeline in ``schedules``:
        ``fed.daily("03:00", timezone="Europe/Berlin")``, ``fed.when_landed()``, ``fed.when_joined("clicks")``, a cron
        expression such as ``@weekly``, whose run is about the last day before it (or, with several hours of a day, the
        last hour), or a timetable. By default only when triggered, by a person or by the gateway.
    **kwargs
        As for every DAG. ``params`` stand in a section of their own of the trigger form.

    Raises
    ------
    ConfigError
        As for `federated`; or the schedule is none.
    """

    def __init__(
        self,
        dag_id: str,
        *,
        steps: Sequence[Step],
        peer: str | None = None,
        leader: str = "own",
        dataset: str | None = None,
        peer_dataset: str | None = None,
        reason: str = "",
        wait: timedelta = timedelta(hours=1),
        approval_wait: timedelta = APPROVAL_WAIT,
        schedule: Any = None,
        fedtasks_conn_id: str = _CONNECTION,
        **kwargs: Any,
    ) -> None:
        check_name(dag_id, "dag_id")
        schedule = _by_period(schedule)
        sides = Sides(peer, leader, dataset, peer_dataset)
        party = party_here(fedtasks_conn_id)
        super().__init__(
            dag_id,
            schedule=_timetable(dag_id, schedule, party, sides, steps),
            **{"max_active_runs": 4, "catchup": False, "tags": ["federated"], "doc_md": _doc(steps), **kwargs},
        )
        run = federated(
            peer=peer,
            leader=leader,
            dataset=dataset,
            peer_dataset=peer_dataset,
            reason=reason,
            wait=wait,
            approval_wait=approval_wait,
            data_wait=schedule.wait if isinstance(schedule, Schedule) else None,
            by_partition=_is_by_partition(schedule),
            timezone=schedule.timezone if isinstance(schedule, Schedule) else "UTC",
            group=None,
            fedtasks_conn_id=fedtasks_conn_id,
        )
        with self, run:
            for step in steps:
                run.add(step)


def _doc(steps: Sequence[Step]) -> str:
    """Describe a pipeline whose author has not."""
    lines = [f"{place}. `{step.name}`: {step.what}" for place, step in enumerate(steps, start=1)]
    return "\n".join(["A federated pipeline; the same DAG lies on both sides, and either may begin it.", "", *lines])


def _check_name(dag: DAG | None, run: str) -> None:
    """Raise `ConfigError` unless a run of a DAG can be called so."""
    if dag is None:
        return
    check_name(dag.dag_id, "dag_id")
    if run in {opening.run for opening in openings(dag)}:
        text = f'the DAG has a federated run{f" `{run}`" if run else ""} already; name this one: `federated("second")`'
        raise ConfigError(text, field=dag.dag_id, where="federated")


def _require_place(opening: OpenRunOperator) -> None:
    """Raise `ConfigError` if a task group of the author's changes the names by which both sides know the tasks."""
    if opening.task_id != f"{opening.prefix}{OPEN_RUN}":
        group = opening.task_id.removesuffix(f".{opening.prefix}{OPEN_RUN}")
        text = f"both sides name the run's tasks alike: make the task group `{group}` with prefix_group_id=False"
        raise ConfigError(text, field=opening.dag_id, where="federated")


def _tasks(step: Step, wait: timedelta, common: Mapping[str, Any]) -> FederatedTaskOperator | TaskGroup:
    """Make the task of a step, or the group of its stages, with what all tasks of a run have in common."""
    if not step.stages:
        return FederatedTaskOperator(task_id=step.name, step=step, wait=wait, **common)
    with TaskGroup(step.name) as group:
        listed = {name: PartsOperator(task_id=name, step=step, by=name, **common) for name in step.mapped_by}
        tasks: list[Any] = [*listed.values()]
        for stage in step.stages:
            arguments: dict[str, Any] = {
                "task_id": stage.name,
                "step": step,
                "stage": stage.name,
                "wait": wait,
                **common,
            }
            if stage.by:
                # Without a limit of how many run at once: a half that waits counts as running, and the two sides could
                # each wait for shards that the other has not begun.
                doc, index = doc_of(step, stage.name), f"{stage.by.removesuffix('s')} {{{{ task.shard }}}}"
                mapped = FederatedTaskOperator.partial(**arguments, doc_md=doc, map_index_template=index)
                tasks.append(mapped.expand(shard=listed[stage.by].output))
            else:
                tasks.append(FederatedTaskOperator(**arguments))
        if leaves(step.kind):
            tasks.append(AnnounceOperator(task_id=ANNOUNCE, step=step, **common))
        chain(*tasks)
    return group


def timetable(
    dag_id: str,
    schedule: Any = None,
    peer: str | None = None,
    *,
    dataset: str | None = None,
    peer_dataset: str | None = None,
    fedtasks_conn_id: str = _CONNECTION,
) -> Any:
    """Return when this side begins a run by itself: by `schedule` where party.yaml says so, else never.

    Parameters
    ----------
    dag_id
        The pipeline, as ``schedules`` of party.yaml names it.
    schedule
        As for `FederatedDag`.
    peer, dataset, peer_dataset, fedtasks_conn_id
        As for `federated`; ``fed.when_landed()`` waits for what they name.
    """
    sides = Sides(peer, dataset=dataset, peer_dataset=peer_dataset)
    return _timetable(dag_id, _by_period(schedule), party_here(fedtasks_conn_id), sides, ())


def _by_period(schedule: Any) -> Any:
    """Return what a cron expression means here; any other schedule as it is."""
    if isinstance(schedule, str) and schedule not in _NOT_CRON:
        return Periodic(schedule, wait=None)
    return schedule


def _timetable(dag_id: str, schedule: Any, party: Party | None, sides: Sides, steps: Sequence[Step]) -> Any:
    if schedule is None or party is None or dag_id not in party.schedules:
        # Unlike None, this takes the partition key that a gateway or a person gives, and needs none.
        return PartitionedAtRuntime()
    if isinstance(schedule, Schedule):
        return schedule.timetable(party, sides.seen_by(party, steps, by_partition=_is_by_partition(schedule)))
    return schedule


def _is_by_partition(schedule: Any) -> bool:
    """Whether runs begin, or wait, until a partition has landed."""
    return isinstance(schedule, WhenLanded) or (isinstance(schedule, Periodic) and schedule.wait is not None)
