"""A federated pipeline as a DAG: declared in a few lines, deployed alike on both sides.

The role comes from the run, not from the file: whoever triggers it is the initiator, and the other side's gateway
starts the responder's DAG run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronPartitionTimetable, Param, PartitionedAtRuntime, TaskGroup, chain

from fedtasks.airflow.operators import (
    CLOSE_RUN,
    OPEN_RUN,
    CloseRunOperator,
    FederatedTaskOperator,
    OpenRunOperator,
    ShardsOperator,
)
from fedtasks.airflow.steps import (
    SHARDS,
    Launcher,
    Stage,
    Step,
    align,
    evaluate,
    intersect,
    intersect_by_shard,
    train_split_nn,
)
from fedtasks.config import Party, check_name, load_party
from fedtasks.errors import ConfigError

__all__ = [
    "FederatedDag",
    "Launcher",
    "Stage",
    "Step",
    "align",
    "evaluate",
    "intersect",
    "intersect_by_shard",
    "train_split_nn",
]

_RESERVED = frozenset(
    {
        "fedtasks", "force", "leader", "own_dataset", "partition", "peer", "peer_dataset", "reason", "ticket",
        OPEN_RUN, CLOSE_RUN,
    }
)  # fmt: skip


_NOT_CRON = ("@once", "@continuous")


class FederatedDag(DAG):
    """``open_run``, the steps one after another, ``close_run``.

    Parameters
    ----------
    dag_id
        Name of the pipeline; both sides' DAGs have the same.
    steps
        What the run does.
    peer
        Whom the trigger form proposes; by default the only peer of party.yaml.
    leader
        Who holds the label, as the initiator sees it: ``own`` or ``peer``.
    wait
        How long a half waits for the other.
    schedule
        When a run begins by itself, at the one side whose party.yaml names the pipeline in ``schedules``: a cron
        expression of a day or longer, such as ``@daily``, whose run is about the day before, or a timetable. By default
        only when triggered, by a person or by the gateway.
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
        schedule: Any = None,
        **kwargs: Any,
    ) -> None:
        _check(dag_id, steps, leader)
        party = _party()
        defaults = {"retries": 2, "retry_delay": timedelta(seconds=5), **kwargs.pop("default_args", {})}
        super().__init__(
            dag_id,
            schedule=_timetable(dag_id, schedule, party),
            params=_form(steps, peer, leader, party),
            default_args=defaults,
            **{"max_active_runs": 4, "catchup": False, "tags": ["federated"], **kwargs},
        )
        with self:
            opened = OpenRunOperator(task_id=OPEN_RUN, steps=steps)
            chain(opened, *(_tasks(step, wait) for step in steps), CloseRunOperator(task_id=CLOSE_RUN, wait=wait))


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


def _timetable(dag_id: str, schedule: Any, party: Party | None) -> Any:
    """Return when this side initiates: by its schedule where party.yaml says so, else only when triggered."""
    if schedule is None or party is None or dag_id not in party.schedules:
        # Unlike None, this takes the partition key that a gateway or a person gives, and needs none.
        return PartitionedAtRuntime()
    if not isinstance(schedule, str) or schedule in _NOT_CRON:
        return schedule
    # What runs after midnight is about the day that has ended.
    return CronPartitionTimetable(schedule, timezone="UTC", key_format="%Y-%m-%d", run_offset=-1)


def _check(dag_id: str, steps: Sequence[Step], leader: str) -> None:
    check_name(dag_id, "dag_id")
    if leader not in ("own", "peer"):
        raise ConfigError(f"`{leader}` is neither own nor peer", field="leader")
    names = [step.name for step in steps]
    for name in names:
        if name in _RESERVED:
            raise ConfigError(f"a step cannot be called `{name}`", field="steps")
        if names.count(name) > 1:
            raise ConfigError(f"`{name}` stands twice", field="steps")


def _party() -> Party | None:
    """Return this party if its file can be read; if not, the DAG still parses and ``open_run`` says what is wrong."""
    try:
        return load_party()
    except ConfigError:
        return None


def _form(steps: Sequence[Step], peer: str | None, leader: str, party: Party | None) -> dict[str, Param]:
    """Make the trigger form; the responder's DAG run takes the initiator's values instead."""
    peers = [known.name for known in party.peers] if party else []
    datasets = [dataset.name for dataset in party.datasets] if party else []
    text: dict[str, Any] = {"type": ["null", "string"]}
    form = {
        "peer": _choice(peer, peers, "Peer", "The party to run with."),
        "ticket": Param(
            "auto", "A ticket of the peer's; `auto` takes the one that fits.", type="string", title="Ticket"
        ),
        "partition": Param(
            None, "Whose data the run uses: a day or another key. By default today (UTC).", title="Partition", **text
        ),
        "reason": Param(None, "Why; the peer reads it.", title="Reason", maxLength=200, **text),
    }
    section: dict[str, Any] = {"section": "Data"}
    form["own_dataset"] = _choice(None, datasets, "Own dataset", "As party.yaml declares it.", **section)
    form["peer_dataset"] = Param(
        None,
        "As the peer's ticket names it; may be left out if there is only one.",
        title="The peer's dataset",
        **section,
        **text,
    )
    form["leader"] = Param(
        leader,
        "Who holds the label.",
        title="Leader",
        enum=["own", "peer"],
        values_display={"own": "this party", "peer": "the peer"},
        **section,
    )
    for step in steps:
        form[step.name] = Param(
            dict(step.settings),
            f"Settings of `{step.name}` where they differ from the algorithm's defaults; both sides use them.",
            type="object",
            title=step.name,
            section="Settings",
        )
    form["force"] = Param(False, "Run a partition again that is done.", type="boolean", title="Repeat", section="Run")
    return form


def _choice(default: str | None, known: list[str], title: str, description: str, **schema: Any) -> Param:
    """Make a field with a list of what party.yaml knows, and the only one as its default."""
    if not known:
        return Param(default, description, title=title, type=["null", "string"], **schema)
    value = default if default in known else (known[0] if len(known) == 1 else None)
    if value is None:
        return Param(None, description, title=title, enum=[None, *known], type=["null", "string"], **schema)
    return Param(value, description, title=title, enum=known, type="string", **schema)
