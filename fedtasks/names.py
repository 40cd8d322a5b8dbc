"""Names that several rooms agree on: roles, tasks that every run has, metrics, columns, halves, and what has landed."""

from __future__ import annotations

import re
from collections.abc import Collection

LEADER, FOLLOWER = "leader", "follower"
"""The roles: who holds the label, and who does not."""

OPEN_RUN, CLOSE_RUN = "open_run", "close_run"
"""The tasks that ask for a run, and that sign and end it."""

APPROVE = "approve"
"""The task at which a run waits for a person of the granting side, if its ticket asks for one."""

DATA = "data"
"""The task at which a scheduled run waits until both sides have landed its partition."""

TRAIN, EVALUATE = "train", "evaluate"
"""The tasks whose metrics pages show as a model's importance and quality."""

WORK = "work"
"""The stage of a training whose mapped tasks train one model together."""

SHARD = "shard"
"""The stage of a streaming join whose mapped tasks join a shard each."""

ANNOUNCE = "announce"
"""The task at which a step of several tasks says once what all of them have left."""

BIN, IMPORTANCE, CHAMPION = "bin.", "importance.", "champion_"
"""What metrics begin with that are parts of a curve, figures of a feature, or of the version in use."""

GROUP, CONFUSION = "group.", "confusion."
"""What metrics begin with that say of test rows with like scores, or with one label, how right the scores are.

Their step is which group, or the place of the label's class; behind `CONFUSION` stand place and text of a class that is
predicted.
"""

JOIN = "join"
"""The kind of steps that join streams."""

JOINING = "join."
"""What metrics begin with that say how a stream is joined; their step is the window of event time, by its beginning.

``memory_mb`` and ``spilled_mb`` are what open rows take in memory and on the local disk. ``clock_offset_ms`` is by how
much the peer's time of an event is later than this party's: the median over rows that were joined, below 0 where the
peer's is earlier. Of rows before ``watermark_ms`` it is decided whether they have a counterpart.
"""

TABLES = (BIN, CONFUSION, GROUP, IMPORTANCE, JOINING)
"""What metrics begin with that are rows of tables, and would bury the others in a list."""

REMARK = "remark."
"""What metrics begin with that stand for a remark; their step is the attempt that makes it."""

LABEL_LEAK = "label_leak_"
"""What metrics begin with that say how well attacks on what a training sends read the labels."""

EMBEDDING = "embedding_"
"""What metrics begin with that say how well what the follower sends tells the labels, without any gradient."""

RECONSTRUCTION = "reconstruction."
"""What metrics begin with that say how well a feature can be rebuilt from what this party sends; its name follows."""

TAG_BYTES = 16
"""The length of a tag, which stands for an id."""

OWN = "__fedtasks_"
"""What the product's own columns begin with among columns of the data, and what no declared column may begin with."""

UNITS = frozenset({"bits", "bytes", "rows", "epochs", "rounds", "trees", "days", "minutes", "seconds"})
"""What a number may be of whose setting's name ends so."""

_SHARD = re.compile(r"(.+)\[(\d+)\]")


def own_column(name: str) -> str:
    """Return what a column of the product is called where columns of the data stand beside it."""
    return f"{OWN}{name}"


def half_name(task: str, stage: str = "", shard: int | None = None) -> str:
    """Return ``task``, ``task.stage`` or ``task.stage[shard]``."""
    return f"{task}{f'.{stage}' if stage else ''}{'' if shard is None else f'[{shard}]'}"


def step_of(half: str) -> str:
    """Return the step that a half belongs to: of ``task.stage[shard]`` that is ``task``."""
    return half.partition("[")[0].partition(".")[0]


def pipeline_name(dag_id: str, run: str = "") -> str:
    """Return the name of a DAG's pipeline, or, of a DAG that holds several runs, of one: ``dag.run``."""
    return f"{dag_id}.{run}" if run else dag_id


def parts_of(pipeline: str) -> tuple[str, str]:
    """Return the DAG that holds a pipeline, and which of its runs it is; empty in a DAG that holds one."""
    dag_id, _, run = pipeline.partition(".")
    return dag_id, run


def pipeline_of(run_id: str) -> str:
    """Return the pipeline of a run, whose id is ``pipeline.partition.initiator.number``."""
    return run_id.rsplit(".", 3)[0]


def airflow_task(pipeline: str, half: str) -> tuple[str, int | None]:
    """Return the task id in Airflow that a half has, and its map index (None for a task that is not mapped)."""
    _, run = parts_of(pipeline)
    found = _SHARD.fullmatch(half)
    task, index = (found[1], int(found[2])) if found else (half, None)
    return (f"{run}.{task}" if run else task), index


def half_of(task_id: str, runs: Collection[str]) -> tuple[str, str]:
    """Return which of a DAG's named runs a task in Airflow is of, empty if of none, and which half it is there."""
    run, _, half = task_id.partition(".")
    return (run, half) if half and run in runs else ("", task_id)


def title_of(setting: str) -> str:
    """Write a setting's name as words, with its unit in parentheses behind it: ``key_bits`` as ``Key (bits)``."""
    first, *words = setting.split("_")
    unit = next((word for word in words if word in UNITS), "")
    title = " ".join([first, *(word for word in words if word != unit)]).capitalize()
    return f"{title} ({unit})" if unit else title


def asset_uri(party: str, dataset: str = "") -> str:
    """Return the Airflow asset that is updated when a partition of a party's dataset, by default of any, has landed."""
    return f"fedtasks://{party}/{dataset}"  # Airflow would add the slash after a party by itself


def rows_uri(party: str, pipeline: str) -> str:
    """Return the asset that is updated when a pipeline has aligned the shared people's rows at a party."""
    return f"fedtasks://{party}/rows/{pipeline}"


def joined_uri(party: str, stream: str) -> str:
    """Return the asset that is updated when rows of a stream have been joined at a party."""
    return f"fedtasks://{party}/joined/{stream}"


def scores_uri(party: str, pipeline: str) -> str:
    """Return the asset that is updated when a pipeline has scored people, and the party learns the scores."""
    return f"fedtasks://{party}/scores/{pipeline}"


def model_uri(party: str, model: str) -> str:
    """Return the asset that is updated when a version of a model is in use at a party that was not before."""
    return f"fedtasks://{party}/models/{model}"
