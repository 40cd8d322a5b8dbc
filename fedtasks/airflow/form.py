"""The trigger form of a pipeline, made from the settings that its steps declare.

Airflow shows every field with what its dataclass says of it, checks types and limits, and hands back plain values. Only
what differs from an algorithm's defaults enters the shared configuration, so that neighbouring versions still agree.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from airflow.sdk import Param

from fedtasks.airflow.steps import Step
from fedtasks.config import Party
from fedtasks.settings import to_plain

RUN = ("peer", "ticket", "partition", "reason", "own_dataset", "peer_dataset", "leader", "force")
"""The fields that are not a step's."""

_TEXT: dict[str, Any] = {"type": ["null", "string"]}
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def form_of(steps: Sequence[Step], peer: str | None, leader: str, party: Party | None) -> dict[str, Param]:
    """Make the trigger form; the responder's DAG run takes the initiator's values instead.

    Parameters
    ----------
    steps
        What the run does; each adds a section of its own.
    peer, leader
        What the form proposes.
    party
        Whose peers and datasets there are to choose from; None if party.yaml cannot be read.
    """
    peers = [known.name for known in party.peers] if party else []
    datasets = [dataset.name for dataset in party.datasets] if party else []
    data: dict[str, Any] = {"section": "Data"}
    run: dict[str, Any] = {"section": "Run"}
    form = {
        "peer": _choice(peer, peers, "Peer", "The party to run with."),
        "ticket": Param(
            "auto", "A ticket of the peer's; `auto` takes the one that fits.", type="string", title="Ticket"
        ),
        "partition": Param(
            None, "Data up to here: a day or another key. By default today (UTC).", title="Data up to", **_TEXT
        ),
        "reason": Param(None, "Why; the peer reads it.", title="Reason", maxLength=200, **_TEXT),
        "own_dataset": _choice(None, datasets, "Own dataset", "As party.yaml declares it.", **data),
        "peer_dataset": Param(
            None,
            "As the peer's ticket names it; may be left out if there is only one.",
            title="The peer's dataset",
            **data,
            **_TEXT,
        ),
        "leader": Param(
            leader,
            "Who holds the label.",
            title="Leader",
            enum=["own", "peer"],
            values_display={"own": "this party", "peer": "the peer"},
            **data,
        ),
        "force": Param(False, "Run a partition again that is done.", type="boolean", title="Repeat", **run),
    }
    for step in steps:
        form |= _fields(step)
    return form


def settings_of(step: Step, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's settings where they differ from the algorithm's defaults: the pipeline's, changed by the form.

    A form may name a field by itself (``train.epochs``), or a program all that it changes (``train: {epochs: 3}``).
    """
    changed = {**step.settings, **(params.get(step.name) or {})}
    defaults = {field.name: _default(step, field) for field in _declared(step)}
    for name, shown in defaults.items():
        value = params.get(f"{step.name}.{name}", shown)
        if value != shown and name not in (params.get(step.name) or {}):
            changed[name] = value
    return changed


def _fields(step: Step) -> dict[str, Param]:
    """Make the section of one step: a field for each setting, or one for all if nobody has declared them."""
    section = f"Settings of {step.name}"
    declared = _declared(step)
    if not declared:
        described = f"Settings of `{step.name}` where they differ from the pipeline's; both sides use them."
        return {step.name: Param({}, described, type="object", title=step.name, section=section)}
    texts = descriptions(_settings_type(step))
    hints = typing.get_type_hints(_settings_type(step))
    form = {}
    for field in declared:
        value, title = _default(step, field), field.name.replace("_", " ").capitalize()
        described = texts.get(field.name, "")
        schema = {**_schema(hints[field.name], value), "title": title, "section": section}
        form[f"{step.name}.{field.name}"] = Param(value, described, **schema)
    return form


def _declared(step: Step) -> tuple[Field[Any], ...]:
    return fields(_settings_type(step)) if step.settings_type else ()


def _settings_type(step: Step) -> Any:
    module, _, name = step.settings_type.partition(":")
    return getattr(importlib.import_module(module), name)


def _default(step: Step, field: Field[Any]) -> Any:
    """Return the value that the form shows: the pipeline's, else the algorithm's."""
    if field.name in step.settings:
        return to_plain(step.settings[field.name])
    return to_plain(field.default_factory() if field.default_factory is not MISSING else field.default)


def _schema(hint: Any, value: Any) -> dict[str, Any]:
    """Return the JSON schema of a field's type."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not type(None))
    nullable = len(options) > 1 or value is None
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    if typing.get_origin(kind) is tuple:
        item = _JSON_TYPES.get(typing.get_args(kind)[0], "string")
        return {"type": "array", "items": {"type": item}}
    name = _JSON_TYPES.get(kind, "string")
    # An empty text field of the form comes back as null.
    return {"type": ["null", name] if nullable or value == "" else name}


def descriptions(declared: type) -> dict[str, str]:
    """Return what a dataclass's docstring says of each of its fields, on one line each."""
    found: dict[str, str] = {}
    names: list[str] = []
    _, _, section = (inspect.getdoc(declared) or "").partition("Parameters\n----------\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(",")]
        elif line.strip():
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        else:
            names = []
    return found


def _choice(default: str | None, known: list[str], title: str, description: str, **schema: Any) -> Param:
    """Make a field with a list of what party.yaml knows, and the only one as its default."""
    if not known:
        return Param(default, description, title=title, type=["null", "string"], **schema)
    value = default if default in known else (known[0] if len(known) == 1 else None)
    if value is None:
        return Param(None, description, title=title, enum=[None, *known], type=["null", "string"], **schema)
    return Param(value, description, title=title, enum=known, type="string", **schema)
