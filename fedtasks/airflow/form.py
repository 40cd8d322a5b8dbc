"""The trigger form of a pipeline, made from the settings that its steps declare.

At most five fields are open: whom to run with, under which ticket, on which data, from which model, and why; and which
dataset, where there is a choice. The rest is in sections that are closed until somebody opens them. Airflow shows every
field with what its dataclass says of it, checks types and limits, and hands back plain values. Only what differs from
an algorithm's defaults enters the shared configuration, so that neighbouring versions still agree.
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field
from datetime import timedelta
from typing import Any

from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from fedtasks.airflow.sides import Sides
from fedtasks.config import Party
from fedtasks.dataclass_io import choices_of, clause_of, limits_of
from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    DataNotLanded,
    FedtasksError,
    ModelTaken,
    TicketMissing,
)
from fedtasks.names import title_of
from fedtasks.pipeline.shared import PARTITION, WAIT
from fedtasks.pipeline.step import Step
from fedtasks.tickets.clauses import clauses

START_FROM = "start_from"
"""The setting that says from which model a training goes on; a field of its own beside what every run has."""

REFUSALS: Mapping[str, type[FedtasksError]] = {
    "peer": ConfigDiffers,
    "ticket": TicketMissing,
    "partition": DataNotLanded,
    "model": ModelTaken,
}
"""With what a run is refused whose value in this field or setting will not do; Airflow itself cannot look at it. What a
ticket bounds is refused as its clause says."""

AUTHORS = "Parameters of this DAG"
"""The section of what the author of a DAG has declared beside the federated run."""

BOUNDED = "Bounded by the ticket: as it says, or stricter"
"""The section of the settings that a ticket's clauses bound."""

_DATA = "Data"
_MINUTE = timedelta(minutes=1)
_WEEK = timedelta(weeks=1)
_EXACT = 2**53
"""Up to here a browser knows whole numbers."""
_TEXT: dict[str, Any] = {"type": ["null", "string"]}
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def form_of(steps: Sequence[Step], sides: Sides, wait: timedelta, party: Party | None) -> dict[str, Param]:
    """Make the trigger form; the responder's DAG run takes the initiator's values instead.

    Parameters
    ----------
    steps
        What the run does; each adds a section of its own, and to the section of what a ticket may bound.
    sides, wait
        What the form proposes.
    party
        Whose peers and datasets there are to choose from; None if party.yaml cannot be read.
    """
    peers = [known.name for known in party.peers] if party else []
    fields = [(step, declared) for step in steps for declared in step.declared]
    bounded = [(step, declared) for step, declared in fields if clause_of(declared)]
    started = [(step, declared) for step, declared in fields if declared.name == START_FROM]
    own_dataset = _own_dataset(sides, party)
    is_open = "section" not in own_dataset.schema
    form = {
        "peer": _choice(
            sides.peer, peers, "Peer", _described("The party to run with; its DAG is the same.", REFUSALS["peer"])
        ),
        "ticket": Param(
            "auto",
            _described("A ticket of the peer's; `auto` takes the one that fits.", REFUSALS["ticket"]),
            type="string",
            title="Ticket",
        ),
        "partition": Param(
            None,
            _described("Data up to here: a day or another key. By default today.", REFUSALS["partition"]),
            title="Data up to",
            **_TEXT,
        ),
        **({"own_dataset": own_dataset} if is_open else {}),
        **dict(_field(step, declared) for step, declared in started[:1]),
        "reason": Param(None, "Why; the peer reads it.", title="Reason", maxLength=200, **_TEXT),
        **({} if is_open else {"own_dataset": own_dataset}),
        **_data(sides),
    }
    for step in steps:
        form |= _section(step, [*bounded, *started[:1]])
    form |= dict(_field(step, declared, BOUNDED) for step, declared in bounded)
    return {name: _in_markdown(param) for name, param in (form | _run(wait)).items()}


def of_run(run: str, fields: Mapping[str, Param]) -> dict[str, Param]:
    """Return the fields of one run of a DAG that holds several: named and in sections after it, but the partition.

    Parameters
    ----------
    run
        Its name.
    fields
        The form, as `form_of` makes it.
    """
    named: dict[str, Param] = {}
    for name, param in fields.items():
        if name == PARTITION:
            named[name] = param
            continue
        section = " · ".join(part for part in (run, param.schema.get("section", "")) if part)
        named[f"{run}.{name}"] = Param(param.value, **{**param.schema, "section": section})
    return named


def _in_markdown(param: Param) -> Param:
    """Return a field whose description Airflow renders: what is code in it looks like code."""
    return Param(param.value, **param.schema, description_md=param.description)


def beside(fields: Mapping[str, Param], own: ParamsDict, others: Collection[str]) -> ParamsDict:
    """Return the form with the parameters that a DAG's author has declared in a section of their own.

    Parameters
    ----------
    fields
        The form.
    own
        The author's parameters; they keep a section that they name.
    others
        Names besides the form's that ``conf`` of a run may have.

    Raises
    ------
    ConfigError
        A parameter has the name of a field; or no valid default, without which neither a schedule nor the peer could
        begin a run: they fill in no form.
    """
    theirs: dict[str, Param] = {}
    for name in own:
        param = own.get_param(name)
        if name in fields or name in others:
            text = f"`{name}` is a field of the federated run's trigger form; name the DAG's parameter otherwise"
            raise ConfigError(text, field="params")
        try:
            param.resolve()
        except ParamValidationError:
            text = f"give `{name}` a valid default: a run that the peer or a schedule begins fills in no form"
            raise ConfigError(text, field="params") from None
        theirs[name] = Param(param.value, param.description, schema={"section": AUTHORS, **param.schema})
    return ParamsDict({**fields, **theirs})


def _own_dataset(sides: Sides, party: Party | None) -> Param:
    """Make the field of this party's dataset, open where one has to be chosen."""
    datasets = [dataset.name for dataset in party.datasets] if party else []
    is_chosen = sides.dataset is not None or len(datasets) < 2
    section = {"section": _DATA} if is_chosen else {}
    described = "As party.yaml declares it." if is_chosen else "As party.yaml declares it; more than one would do."
    return _choice(sides.dataset, datasets, "Own dataset", described, **section)


def _data(sides: Sides) -> dict[str, Param]:
    section: dict[str, Any] = {"section": _DATA}
    return {
        "peer_dataset": Param(
            sides.peer_dataset,
            "As the peer's ticket names it; may be left out if there is only one.",
            title="The peer's dataset",
            **section,
            **_TEXT,
        ),
        "leader": Param(
            sides.leader,
            "Who holds the label.",
            title="Leader",
            enum=["own", "peer"],
            values_display={"own": "this party", "peer": "the peer"},
            **section,
        ),
    }


def _run(wait: timedelta) -> dict[str, Param]:
    section: dict[str, Any] = {"section": "Run"}
    return {
        WAIT: Param(
            max(1, wait // _MINUTE),
            "How long a task of this side waits, in minutes, before the run fails: for the peer's, or to open the run.",
            type="integer",
            minimum=1,
            maximum=_WEEK // _MINUTE,
            title="Give up after (minutes)",
            **section,
        ),
        "force": Param(False, "Run a partition again that is done.", type="boolean", title="Repeat", **section),
    }


def _section(step: Step, elsewhere: Sequence[tuple[Step, Field[Any]]]) -> dict[str, Param]:
    """Make the section of one step: a field for each setting, or one for all if nobody has declared them."""
    title = f"Settings of {step.name}"
    if not step.settings_type:
        described = f"Settings of `{step.name}` where they differ from the pipeline's; both sides use them."
        return {step.name: Param({}, described, type="object", title=step.name, section=title)}
    own = (declared for declared in step.declared if (step, declared) not in elsewhere)
    return dict(_field(step, declared, title) for declared in own)


def _field(step: Step, declared: Field[Any], section: str | None = None) -> tuple[str, Param]:
    """Make the field of one setting."""
    value = step.default(declared)
    schema = _schema(typing.get_type_hints(step.declaration)[declared.name], value)
    if choices_of(declared):
        schema = {"type": "string", "enum": list(choices_of(declared))}
    least, most = limits_of(declared)
    limits = {"minimum": least, "maximum": most}
    schema |= {name: limit for name, limit in limits.items() if limit is not None and abs(limit) <= _EXACT}
    title = title_of(declared.name)
    clause = clauses().get(clause_of(declared))
    refusal = clause.refusal if clause else REFUSALS.get(declared.name)
    described = _described(descriptions(step.declaration).get(declared.name, ""), refusal)
    schema |= {"title": title, **({"section": section} if section else {})}
    return f"{step.name}.{declared.name}", Param(value, described, **schema)


def _described(text: str, refusal: type[FedtasksError] | None) -> str:
    """Add what to do if a run is refused because of the value here, in the registry's words."""
    return f"{text} If refused: {refusal.advice()}.".lstrip() if refusal else text


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
