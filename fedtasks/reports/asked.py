"""What a run asks for, as whoever must approve it reads it: what decides stands first, and nothing is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedtasks.errors import ConfigError
from fedtasks.text import printable
from fedtasks.tickets import asked_by

_WORD = re.compile(r"[\w][\w.:-]*")

_DECISIVE = ("columns", "learns", "outputs", "signer")
"""What settings are called that say what leaves the house, also in a step that nobody here can judge."""


@dataclass(frozen=True)
class Line:
    """One thing that a run asks for.

    Parameters
    ----------
    place
        What it is: ``leader``, ``datasets.shop``, or step and setting, such as ``psi.learns``.
    value
        What it is in this run, as JSON has it.
    clause
        The ticket's clause that bounds it; empty if none does.
    """

    place: str
    value: str
    clause: str = ""


def what_is_asked(config: Mapping[str, Any], steps: Iterable[Mapping[str, str]]) -> list[Line]:
    """Return all that a run asks for.

    Parameters
    ----------
    config
        The run's shared configuration.
    steps
        Its steps: ``name``, and ``kind`` where it is of one.

    Returns
    -------
    list of Line
        Who leads and which data is used; then the settings that a ticket can bound, by their effective values,
        defaults too; then those that are called like what leaves the house; then all others.
    """
    kinds = {step["name"]: step.get("kind", "") for step in steps}
    head = [*_named("", {"leader": config.get("leader")}), *_named("datasets", config.get("datasets"))]
    bounded = list(_bounded(config, kinds))
    rest = list(_rest(config, {line.place for line in bounded}))
    rest.sort(key=lambda line: line.place.rpartition(".")[2] not in _DECISIVE)
    return [*head, *bounded, *rest]


def _bounded(config: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[Line]:
    found = config.get("steps")
    steps = found if isinstance(found, Mapping) else {}
    for step in dict.fromkeys((*kinds, *steps)):
        try:
            asked = list(asked_by(step, kinds.get(step, ""), steps.get(step, {})))
        except ConfigError:
            continue  # settings that will not do are refused; until then they are shown as they were written
        for each in asked:
            yield Line(f"{_text(step)}.{each.setting}", _text(each.value), each.clause)


def _rest(config: Mapping[str, Any], said: set[str]) -> Iterator[Line]:
    steps = config.get("steps")
    for step, settings in steps.items() if isinstance(steps, Mapping) else ():
        yield from (line for line in _named(str(step), settings) if line.place not in said)
    for name, value in config.items():
        if name not in ("leader", "datasets", "steps"):
            yield from _named(name, value)


def _named(place: str, value: object) -> Iterator[Line]:
    if not isinstance(value, Mapping):
        yield Line(_text(place), _text(value))
        return
    for name, each in value.items():
        yield Line(f"{_text(place)}.{_text(name)}" if place else _text(name), _text(each))


def _text(value: object) -> str:
    """Return a plain word as it is, and all else as JSON: what is in quotes is the peer's, and no line of ours."""
    is_word = isinstance(value, str) and _WORD.fullmatch(value)
    return str(value) if is_word else printable(json.dumps(value, ensure_ascii=False))
