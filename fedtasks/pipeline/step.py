"""What a pipeline is made of."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import fedtasks
from fedtasks.config import check_name
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError

SHARDS = "shards"
"""The task of a step in stages that lists its shards."""

MAX_SHARDS = 1024
"""As many tasks as Airflow maps over by default (``core.max_map_length``)."""


class Launcher(enum.Enum):
    """How a half of a step is started."""

    PYTHON = "python"
    SPARK = "spark"


@dataclass(frozen=True)
class Stage:
    """One part of a step that is a task of its own in Airflow.

    Parameters
    ----------
    name
        Its task id within the step's group.
    by_shard
        One mapped task for each shard instead of one.
    """

    name: str
    by_shard: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "stages")
        if self.name == SHARDS:
            raise ConfigError(f"a stage cannot be called `{SHARDS}`", field="stages")


@dataclass(frozen=True)
class Step:
    """One federated task of a pipeline.

    Parameters
    ----------
    name
        Its task id, and the name under which both halves meet.
    entry
        ``package.module:function`` or ``/folder/file.py:function`` for Python; a file relative to the installation's
        root for Spark.
    launcher
        How it is started.
    settings
        Its settings where they differ from the algorithm's defaults; equal on both sides.
    stages
        The parts that it is cut into; by default it is one task. With a stage by shard, the setting ``shards`` says how
        many there are.
    settings_type
        ``package.module:Dataclass`` that declares the settings; makes the fields of the trigger form.
    needs_label
        Whether the leader's dataset must declare a label, and the follower's none.
    source_digest
        SHA-256 (hex) of a function of one's own, so that both sides run the same; empty for what is installed.
    """

    name: str
    entry: str
    launcher: Launcher = Launcher.PYTHON
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    settings_type: str = ""
    needs_label: bool = False
    source_digest: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"`{name}` stands twice", field="stages")
        self.check(self.settings)
        if (self.launcher is Launcher.PYTHON) != (":" in self.entry):
            expected = "package.module:function" if self.launcher is Launcher.PYTHON else "a file"
            raise ConfigError(f"`{self.entry}` is not {expected}", field="entry")

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the declaration without its settings, which the shared configuration holds."""
        what = self.source_digest or self.entry  # where a function of one's own stands is each side's own affair
        return digest({"name": self.name, "entry": what, "launcher": self.launcher, "stages": self.stages})

    @property
    def is_by_shard(self) -> bool:
        """Whether a stage has a task for each shard."""
        return any(stage.by_shard for stage in self.stages)

    @property
    def declaration(self) -> Any:
        """The dataclass that declares the settings; None if nobody has."""
        if not self.settings_type:
            return None
        module, _, name = self.settings_type.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def declared(self) -> tuple[Field[Any], ...]:
        """The fields of `declaration`."""
        return fields(self.declaration) if self.settings_type else ()

    def default(self, declared: Field[Any]) -> Any:
        """Return what a setting is if nobody changes it: the pipeline's value, else the algorithm's."""
        if declared.name in self.settings:
            return to_plain(self.settings[declared.name])
        return to_plain(declared.default_factory() if declared.default_factory is not MISSING else declared.default)

    def settings_with(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings where they differ from the algorithm's defaults: the pipeline's, changed by a form.

        A form may name a field by itself (``train.epochs``), or a program all that it changes
        (``train: {epochs: 3}``), which wins.
        """
        whole = params.get(self.name) or {}
        defaults = {declared.name: self.default(declared) for declared in self.declared}
        single = {name: params.get(f"{self.name}.{name}") for name in defaults}
        # A field that was cleared is None: nobody has changed it.
        changed = {name: value for name, value in single.items() if value is not None and value != defaults[name]}
        return {**self.settings, **changed, **whole}

    def check(self, settings: Mapping[str, Any]) -> None:
        """Check settings as both halves will read them; raise `ConfigError` naming the field."""
        if self.is_by_shard:
            shards_of(settings)
        if self.settings_type:
            build(self.declaration, dict(settings), path=self.name)

    def command(self, config: Path) -> list[str]:
        """Return the command that runs one half with the configuration file `config`.

        Raises
        ------
        ConfigError
            The Spark job is not installed here.
        """
        if self.launcher is Launcher.PYTHON:
            return [sys.executable, "-m", "fedtasks.cli", "task", "run", self.entry, str(config)]
        job = spark_job(self.entry)
        if not job.exists():
            raise ConfigError("the Spark job is not installed here", where=str(job))
        return [sys.executable, str(job), str(config)]


def shards_of(settings: Mapping[str, Any]) -> int:
    """Return how many shards a step's settings name.

    Raises
    ------
    ConfigError
        They name none, no number of at least 1, or more than Airflow maps over.
    """
    shards = settings.get("shards")
    if type(shards) is not int or not 1 <= shards <= MAX_SHARDS:
        raise ConfigError(f"`{shards}` is not a number of shards, 1 to {MAX_SHARDS}", field="shards")
    return shards


def spark_job(entry: str) -> Path:
    """Return where the Spark job `entry` is: the jobs lie beside the package."""
    return Path(fedtasks.__file__).parents[1] / entry


_PSI = "fedtasks.psi.settings:PsiSettings"
_ALIGN = "fedtasks.psi.settings:AlignSettings"
_TRAIN = "fedtasks.models.split_nn.settings:TrainSettings"
_TREES = "fedtasks.models.secureboost.settings:TrainSettings"
_EVALUATE = "fedtasks.models.settings:EvaluateSettings"
_PREDICT = "fedtasks.models.settings:PredictSettings"
_PUBLISH = "fedtasks.models.settings:PublishSettings"


def intersect(**settings: Any) -> Step:
    """Find the people that both parties share, by private set intersection; task ``psi``."""
    return Step("psi", "spark_jobs/psi.py", Launcher.SPARK, settings, settings_type=_PSI)


def intersect_by_shard(shards: int = 8, **settings: Any) -> Step:
    """Find the people that both parties share, in tasks of their own for each transfer; task group ``psi``.

    A transfer that breaks is repeated alone, and goes on where it stopped.
    """
    stages = (Stage("prepare"), Stage("send", True), Stage("sign"), Stage("answer", True), Stage("match"))
    return Step("psi", "spark_jobs/psi.py", Launcher.SPARK, {"shards": shards, **settings}, stages, _PSI)


def align(**settings: Any) -> Step:
    """Put the shared rows of both parties into blocks of equal order; task ``align``."""
    return Step("align", "spark_jobs/align.py", Launcher.SPARK, settings, settings_type=_ALIGN)


def train_split_nn(**settings: Any) -> Step:
    """Train a neural network whose halves stay apart; task ``train``."""
    entry = "fedtasks.models.split_nn.training:train"
    return Step("train", entry, settings=settings, settings_type=_TRAIN, needs_label=True)


def evaluate(**settings: Any) -> Step:
    """Score the test rows with both halves and measure; task ``evaluate``."""
    entry = "fedtasks.models.tasks:evaluate"
    return Step("evaluate", entry, settings=settings, settings_type=_EVALUATE, needs_label=True)


def train_secureboost(**settings: Any) -> Step:
    """Train boosted trees whose splits and leaves stay apart; task ``train``.

    What decides privacy is always named, so that a ticket can bound it.
    """
    named = {"trees": 20, "first_tree": "leader", "key_bits": 2048, "min_leaf_rows": 20, **settings}
    entry = "fedtasks.models.secureboost.training:train"
    return Step("train", entry, settings=named, settings_type=_TREES, needs_label=True)


def evaluate_secureboost(**settings: Any) -> Step:
    """Score the test rows with both halves of the trees and measure; task ``evaluate``."""
    entry = "fedtasks.models.tasks:evaluate"
    named = {"scores": "leader", **settings}
    return Step("evaluate", entry, settings=named, settings_type=_EVALUATE, needs_label=True)


def predict_secureboost(**settings: Any) -> Step:
    """Score all shared people with both halves of the trees; task ``predict``."""
    entry = "fedtasks.models.tasks:predict"
    return Step("predict", entry, settings={"scores": "leader", **settings}, settings_type=_PREDICT)


def publish(**settings: Any) -> Step:
    """Enter the trained model in both registries, and put it into use if it is no worse; task ``publish``."""
    return Step("publish", "fedtasks.models.tasks:publish", settings=settings, settings_type=_PUBLISH)
