"""What a run asks of a ticket: the effective value of every setting that a clause bounds, defaults included.

A setting is bounded where a kind of step declares it so (`fedtasks.dataclass_io.within`). A value of the same name in a
step of another kind is another setting.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedtasks.dataclass_io import build, check_text, clause_of, to_plain
from fedtasks.errors import ConfigError
from fedtasks.kinds import kinds
from fedtasks.text import MAX_TEXT, plain_text
from fedtasks.tickets.grant import DatasetScope

MAX_SETTING = 1000
"""How many characters a setting may have, as JSON has it."""

MAX_SHARED = 32_000
"""How many characters a shared configuration may have."""

_MAX_NAME = 64


@dataclass(frozen=True)
class Asked:
    """What one setting of one step asks for.

    Parameters
    ----------
    step, setting
        Where it stands.
    clause
        The clause that bounds it.
    value
        What it is in this run, as JSON has it.
    is_declared
        Whether the step is of a kind that is installed here and declares this setting. Of any other step nobody here
        can say what a setting means.
    """

    step: str
    setting: str
    clause: str
    value: Any
    is_declared: bool = True


@dataclass(frozen=True)
class Request:
    """What a holder asks for.

    Parameters
    ----------
    holder, pipeline
        Who, and what is to run.
    grantor_dataset, schema_digest, columns
        Which of the grantor's datasets, as it is now, and what it would use of it.
    holder_role
        What the holder would be in the run.
    settings
        What the run's settings ask for.
    """

    holder: str
    pipeline: str
    grantor_dataset: str
    schema_digest: str
    columns: tuple[str, ...]
    holder_role: str
    settings: tuple[Asked, ...] = ()


def request_of(
    config: Mapping[str, Any],
    *,
    grantor: str,
    holder: str,
    pipeline: str,
    datasets: Mapping[str, DatasetScope],
    step_kinds: Mapping[str, str],
) -> Request:
    """Read from a shared configuration what it asks of a ticket.

    Parameters
    ----------
    config
        The shared configuration.
    grantor, holder, pipeline
        Who grants, who asks, and for what.
    datasets
        The grantor's datasets as this side knows them.
    step_kinds
        Step → its kind, for the steps of the pipeline; empty for a step of one's own.

    Raises
    ------
    ConfigError
        It names no dataset of the grantor's, or the settings of a step are not valid.
    """
    named = config.get("datasets")
    if not isinstance(named, Mapping) or not isinstance(named.get(grantor), str):
        raise ConfigError(f"the shared configuration of {pipeline} names no dataset of {grantor}", field="datasets")
    dataset = datasets.get(named[grantor])
    return Request(
        holder=holder,
        pipeline=pipeline,
        grantor_dataset=plain_text(named[grantor], 64),
        schema_digest=dataset.schema_digest if dataset else "",
        columns=dataset.columns if dataset else (),
        holder_role="leader" if config.get("leader") == holder else "follower",
        settings=tuple(settings_of(config, step_kinds)),
    )


def check_readable(config: Mapping[str, Any], reason: str) -> None:
    """Refuse a run of which a person who must approve it could not be shown everything.

    Parameters
    ----------
    config
        The shared configuration.
    reason
        Why the run is asked for.

    Raises
    ------
    ConfigError
        Naming what is too long, or holds characters that cannot be shown.
    """
    if len(reason) > MAX_TEXT:
        raise ConfigError(f"longer than {MAX_TEXT} characters", field="reason")
    try:
        whole = json.dumps(config, ensure_ascii=False)
    except RecursionError as error:
        raise ConfigError("the shared configuration is nested too deeply", field="config") from error
    if len(whole) > MAX_SHARED:
        raise ConfigError(f"the shared configuration is longer than {MAX_SHARED:,} characters", field="config")
    for part, said in config.items():
        _check_readable(part, said, depth=2 if part == "steps" else 1)


def _check_readable(place: str, value: object, depth: int) -> None:
    if depth and isinstance(value, Mapping):
        for name, each in value.items():
            check_text(name, plain_text(place, 2 * _MAX_NAME), _MAX_NAME)
            _check_readable(f"{place}.{name}", each, depth - 1)
    else:
        check_text(json.dumps(value, ensure_ascii=False), plain_text(place, 3 * _MAX_NAME), MAX_SETTING)


def settings_of(config: Mapping[str, Any], step_kinds: Mapping[str, str]) -> Iterator[Asked]:
    """Yield what all steps of a run ask for; raise `ConfigError` where the settings of one are not valid."""
    steps = config.get("steps") or {}
    if not isinstance(steps, Mapping):
        raise ConfigError("expected a mapping", field="steps")
    for step in dict.fromkeys((*step_kinds, *steps)):
        yield from asked_by(step, step_kinds.get(step, ""), steps.get(step, {}))


def asked_by(step: str, kind: str, settings: object) -> Iterator[Asked]:
    """Yield what one step asks for.

    Parameters
    ----------
    step, kind
        Its name and its kind; empty for a step of one's own.
    settings
        Its settings where they differ from the defaults.

    Raises
    ------
    ConfigError
        They are not valid.
    """
    name = plain_text(step, 64)
    if not isinstance(settings, Mapping):
        raise ConfigError("expected a mapping", field=f"steps.{name}")
    if kind not in kinds():
        for setting, clause in bounded():
            if setting in settings:
                yield Asked(name, setting, clause, to_plain(settings[setting]), is_declared=False)
        return
    for setting, clause, value in _effective(name, kind, settings):
        yield Asked(name, setting, clause, value)


def bounded() -> list[tuple[str, str]]:
    """Return each name of a setting that a clause bounds in any kind of step, with the clause."""
    found = ((each.name, clause_of(each)) for kind in kinds().values() for each in dataclasses.fields(kind.settings))
    return sorted({(setting, clause) for setting, clause in found if clause})


def _effective(step: str, kind: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    try:
        effective: Any = build(kinds()[kind].settings, settings, path=step)
    except ConfigError as error:
        raise ConfigError(plain_text(error.detail), field=f"steps.{step}") from error
    for each in dataclasses.fields(effective):
        if clause := clause_of(each):
            yield each.name, clause, to_plain(getattr(effective, each.name))
