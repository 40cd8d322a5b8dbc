"""Steps: what a pipeline is made of."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from fedtasks.config import check_name, check_resume_s, check_stall_s
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError
from fedtasks.kinds import Kind, kinds

SHARDS, WORKERS = "shards", "workers"
"""What mapped tasks of a step may be numbers of: the setting that says how many, and the task that lists them."""

MAX_PARTS = 1024
"""As many tasks as Airflow maps over by default (``core.max_map_length``)."""

_ENTRY = re.compile(r"([A-Za-z_]\w*(\.[A-Za-z_]\w*)*|/[^:]+\.py):[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Stage:
    """One part of a step that is a task of its own in Airflow.

    Parameters
    ----------
    name
        Its task id within the step's group.
    by_shard
        One mapped task for each shard instead of one.
    by_worker
        One for each worker: they run at the same time, and each needs the others.
    """

    name: str
    by_shard: bool = False
    by_worker: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "stages")
        if self.name in (SHARDS, WORKERS):
            raise ConfigError(f"a stage cannot be called `{self.name}`", field="stages")
        if self.by_shard and self.by_worker:
            raise ConfigError("a stage is mapped by shard or by worker, not by both", field="stages")

    @property
    def said(self) -> dict[str, Any]:
        """What both sides must declare alike; a release without stages by worker says nothing of them."""
        return {"name": self.name, "by_shard": self.by_shard, **({"by_worker": True} if self.by_worker else {})}

    @property
    def by(self) -> str:
        """The setting that says how many tasks it has; empty for one task."""
        return SHARDS if self.by_shard else WORKERS if self.by_worker else ""


@dataclass(frozen=True)
class Step:
    """One federated task of a pipeline.

    Parameters
    ----------
    name
        Its task id, and the name under which both halves meet.
    entry
        What runs one half: ``package.module:function``, or ``/folder/file.py:function`` for a function of one's own.
    settings
        Its settings where they differ from the defaults; equal on both sides.
    stages
        The parts that it is cut into; by default it is one task. With a stage by shard or by worker, the setting
        ``shards`` or ``workers`` says how many there are.
    settings_type
        ``package.module:Dataclass`` that declares the settings; makes the fields of the trigger form.
    needs_label
        Whether the leader's dataset must declare a label, and the follower's none.
    kind
        Name of the `fedtasks.kinds.Kind` that it is; empty for a step of one's own.
    source_digest
        SHA-256 (hex) of a function of one's own, so that both sides run the same; empty for what is installed.
    doc
        What it does, as a docstring says it; only the first line is shown, and none of it counts.
    stall_s
        How long this party's half of it may make no progress, or wait for the other half without any, before it is
        ended and tried again: the party's own affair. By default as party.yaml says.
    resume_s
        How long the connection to the other half may be cut before this party's half gives up and is tried again: the
        party's own affair. By default as party.yaml says.
    """

    name: str
    entry: str
    _: KW_ONLY
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    settings_type: str = ""
    needs_label: bool = False
    kind: str = ""
    source_digest: str = ""
    doc: str | None = field(default=None, compare=False)
    stall_s: float | None = field(default=None, compare=False)
    resume_s: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"`{name}` stands twice", field="stages")
        if self.stall_s is not None:
            check_stall_s(self.stall_s)
        if self.resume_s is not None:
            check_resume_s(self.resume_s)
        self.check(self.settings)
        if not _ENTRY.fullmatch(self.entry):
            raise ConfigError(f"`{self.entry}` is neither package.module:function nor /file.py:function", field="entry")
        self._check_kind()

    def _check_kind(self) -> None:
        """Raise `ConfigError` unless kind and entry belong together: tickets bound settings by the kind of a step."""
        for kind in kinds().values():
            if (kind.name == self.kind) != (kind.entry == self.entry):
                text = f"`{kind.entry}` is what kind `{kind.name}` runs, and it alone; take the ready-made step"
                raise ConfigError(text, field="kind")

    @classmethod
    def of(
        cls,
        kind: Kind,
        name: str = "",
        *,
        settings: Mapping[str, Any] | None = None,
        stages: tuple[Stage, ...] = (),
        doc: str | None = None,
    ) -> Self:
        """Make a step of a kind.

        Parameters
        ----------
        kind
            What it runs, and which settings it takes.
        name
            Its task id; by default the kind's name.
        settings, stages, doc
            As for every step.
        """
        return cls(
            name or kind.name,
            kind.entry,
            settings=settings or {},
            stages=stages,
            settings_type=f"{kind.settings.__module__}:{kind.settings.__qualname__}",
            needs_label=kind.needs_label,
            kind=kind.name,
            doc=doc,
        )

    def with_stall(self, stall_s: float) -> Self:
        """Return this step with a stall limit of its own: ``train("split_nn").with_stall(4 * 3600)``.

        Raises
        ------
        ConfigError
            The limit is too short or too long.
        """
        return replace(self, stall_s=stall_s)

    def with_resume(self, resume_s: float) -> Self:
        """Return this step, whose halves' connection may be cut for longer: ``train("split_nn").with_resume(1800)``.

        Raises
        ------
        ConfigError
            The limit is too short or too long.
        """
        return replace(self, resume_s=resume_s)

    @property
    def what(self) -> str:
        """What it does, in one sentence."""
        line = (self.doc or "").strip().partition("\n")[0].rstrip(".")
        return f"{line.partition('; task')[0] or f'A step of its own, `{self.name}`'}."

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the declaration without its settings, which the shared configuration holds."""
        what = self.source_digest or self.entry  # where a function of one's own stands is each side's own affair
        stages = [stage.said for stage in self.stages]
        return digest({"name": self.name, "kind": self.kind, "entry": what, "stages": stages})

    @property
    def mapped_by(self) -> tuple[str, ...]:
        """The settings that say how many mapped tasks stages have."""
        return tuple(name for name in (SHARDS, WORKERS) if any(stage.by == name for stage in self.stages))

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
        """Return what a setting is if nobody changes it: the pipeline's value, else the one declared."""
        if declared.name in self.settings:
            return to_plain(self.settings[declared.name])
        return to_plain(declared.default_factory() if declared.default_factory is not MISSING else declared.default)

    def effective(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings that are declared, with the values of a run where it names them."""
        return {declared.name: self.default(declared) for declared in self.declared} | dict(settings)

    def settings_with(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings where they differ from those declared: the pipeline's, changed by a form.

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
        for name in self.mapped_by:
            parts_of(settings, name)
        if self.settings_type:
            asked = build(self.declaration, dict(settings), path=self.name)
            for name in (SHARDS, WORKERS):
                self._check_parts(name, asked)

    def _check_parts(self, by: str, asked: Any) -> None:
        """Refuse settings that ask for several parts, each a task of its own, of a step that is one task."""
        is_task = by == WORKERS or (self.kind in kinds() and kinds()[self.kind].is_sharded)
        parts = getattr(asked, by, 1)
        if not is_task or parts <= 1 or by in self.mapped_by:
            return
        made = f"join(…, shards={parts})" if by == SHARDS else f'train("{self.kind}", workers={parts})'
        raise ConfigError(
            f"`{self.name}` is one task, and {parts} {by} are a task each: name the number in the DAG's file, on both "
            f"sides, as {made}",
            field=f"{self.name}.{by}",
        )

    def command(self, config: Path) -> list[str]:
        """Return the command that runs one half with the configuration file `config`."""
        return [sys.executable, "-m", "fedtasks.runtime", self.entry, str(config)]


def parts_of(settings: Mapping[str, Any], by: str) -> int:
    """Return how many mapped tasks a step's settings name.

    Parameters
    ----------
    by
        The setting: `SHARDS` or `WORKERS`.

    Raises
    ------
    ConfigError
        They name none, no number of at least 1, or more than Airflow maps over.
    """
    found = settings.get(by)
    if type(found) is not int or not 1 <= found <= MAX_PARTS:
        raise ConfigError(f"`{found}` is not a number of {by}, 1 to {MAX_PARTS}", field=by)
    return found
