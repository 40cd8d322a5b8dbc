"""The ready-made steps, as pipelines name them; what each runs and takes is declared by its `fedtasks.kinds.Kind`."""

from __future__ import annotations

from typing import Any

from fedtasks.kinds import kind
from fedtasks.models.contract import algorithm as algorithm_of
from fedtasks.names import SHARD, WORK
from fedtasks.pipeline.step import SHARDS, WORKERS, Stage, Step


def intersect(**settings: Any) -> Step:
    """Find the people that both parties share, by private set intersection; task ``psi``."""
    return Step.of(kind("psi"), settings=settings, doc=intersect.__doc__)


def intersect_by_shard(shards: int = 8, **settings: Any) -> Step:
    """Find the people that both parties share, in tasks of their own for each transfer; task group ``psi``.

    A transfer that breaks is repeated alone, and goes on where it stopped.
    """
    stages = (Stage("prepare"), Stage("send", True), Stage("sign"), Stage("answer", True), Stage("match"))
    return Step.of(kind("psi"), settings={"shards": shards, **settings}, stages=stages, doc=intersect.__doc__)


def align(**settings: Any) -> Step:
    """Put the shared rows of both parties into blocks of equal order; task ``align``."""
    return Step.of(kind("align"), settings=settings, doc=align.__doc__)


def join(stream: str, shards: int = 1, **settings: Any) -> Step:
    """Join two growing logs into blocks that both sides have alike, each row exactly once; task ``join``.

    Parameters
    ----------
    stream
        What the joined stream is called: `joined` names it so.
    shards
        Into how many parts ids are cut. With several, it is a task group of so many mapped tasks ``join.shard``, which
        join at the same time.
    **settings
        Those of `fedtasks.join.settings.JoinSettings`, such as ``lateness_s``.
    """
    stages = (Stage(SHARD, by_shard=True),) if shards != 1 else ()
    found = {"stream": stream, **({SHARDS: shards} if stages else {}), **settings}
    return Step.of(kind("join"), settings=found, stages=stages, doc=join.__doc__)


def joined(stream: str, **settings: Any) -> Step:
    """Take what has been joined of a stream as rows to train on, in the place of an intersection; task ``joined``.

    Parameters
    ----------
    stream
        Which one, as the step `join` of this pipeline or of another has called it.
    **settings
        Those of `fedtasks.join.settings.TakeSettings`: ``joined("clicks", rows="new", model="ctr")`` takes what was
        joined since what the version of the model in use has learnt from.
    """
    return Step.of(kind("joined"), settings={"stream": stream, **settings}, doc=joined.__doc__)


def train(algorithm: str, **settings: Any) -> Step:
    """Train a model whose halves stay apart; task ``train``.

    Parameters
    ----------
    algorithm
        Its name, such as ``split_nn`` or ``secureboost``.
    **settings
        Those of its training. With ``workers``, where the algorithm has that setting, it is a task group of so many
        mapped tasks ``train.work``, which train one model together.

    Raises
    ------
    ConfigError
        No such algorithm is installed here, or it has no such setting.
    """
    doc = f"Train a model of algorithm `{algorithm}`, whose halves stay apart; task ``train``."
    stages = (Stage(WORK, by_worker=True),) if WORKERS in settings else ()
    return Step.of(algorithm_of(algorithm).kind, "train", settings=settings, stages=stages, doc=doc)


def train_split_nn(**settings: Any) -> Step:
    """Train a neural network whose halves stay apart; task ``train``."""
    return train("split_nn", **settings)


def train_secureboost(**settings: Any) -> Step:
    """Train boosted trees whose splits and leaves stay apart; task ``train``."""
    return train("secureboost", **settings)


def evaluate(**settings: Any) -> Step:
    """Score the test rows with both halves of a model of any algorithm, and measure; task ``evaluate``."""
    return Step.of(kind("evaluate"), settings=settings, doc=evaluate.__doc__)


def predict(**settings: Any) -> Step:
    """Score all shared people with both halves of a model of any algorithm; task ``predict``."""
    return Step.of(kind("predict"), settings=settings, doc=predict.__doc__)


def publish(**settings: Any) -> Step:
    """Enter the trained model in both registries, and put it into use if it is no worse; task ``publish``."""
    return Step.of(kind("publish"), settings=settings, doc=publish.__doc__)
