"""What a party sees of its own rows before an intersection, and both of their ids when few are shared."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa

from fedtasks.checks import Finding
from fedtasks.data import findings
from fedtasks.data.id_shapes import FEW, ShapeTally, Shares, advice, difference, from_plain, name_columns, to_plain
from fedtasks.data.profile import Profile, add_rows, profiles_of
from fedtasks.data.storage import read_json, write_json
from fedtasks.data.tables import Part, columns_of_ids, read_rows, rows_schema
from fedtasks.errors import ColumnType, DataError, DataMissing
from fedtasks.kinds import category_limits, remark_metric, vocabulary_limits
from fedtasks.link.link import Link
from fedtasks.psi import messages
from fedtasks.runtime.context import TaskContext, report_remarks

log = logging.getLogger(__name__)

SAMPLE_ROWS = 100_000
"""So many rows are looked at before an intersection; `fedtasks doctor --data` looks at all."""

_PLACES, _MAX_PARTS, _MAX_VALUES = 8, 64, 4_000_000
_SHAPES = "id-shapes.json"
_CLAUSE, _CLASSES = "outputs.id_shapes", "classes"


# ----------------------------------------------------------------------------------------------------------- beforehand
def inspect(context: TaskContext, parts: Sequence[Part], folder: str) -> None:
    """Look at a sample of this party's rows, warn of what harms a model, and keep how ids are written.

    Parameters
    ----------
    parts
        The dataset's files.
    folder
        The private folder of the task.

    Raises
    ------
    ColumnType
        A feature has more categories than a step of this run takes.
    DataError
        A value of the sample is not what was declared, and a step of this run needs it.

    Notes
    -----
    Reveals: nothing.
    Cost: reads up to `SAMPLE_ROWS` rows, from up to 64 places of the dataset. What they do not show is found later.
    """
    dataset = context.dataset
    names, schema = list(dataset.features), rows_schema(dataset)
    profiles = profiles_of(pa.schema([schema.field(1 + place).with_name(name) for place, name in enumerate(names)]))
    shapes = {name: ShapeTally() for name in dataset.id_columns}
    try:
        for batch in _sample(context, parts):
            for name, ids in columns_of_ids(dataset, batch.column(0)).items():
                shapes[name].add(ids)
            add_rows(profiles, dict(zip(names, batch.columns[1:], strict=False)))
    except DataError as error:
        if "align" in context.config.kinds:
            raise
        log.warning("%s: no model can be trained with these rows", error)
    warnings = {name: list(found) for name, found in _warnings(context, profiles)}
    for each in chain.from_iterable(warnings.values()):
        log.warning("%s: %s. %s", each.subject, each.text, each.remedy)
    report_remarks(
        context, {remark_metric("suspicious", name): len(found) for name, found in warnings.items() if found}
    )
    write_json(f"{folder}/{_SHAPES}", to_plain([tally.shares() for tally in shapes.values()]))


def _sample(context: TaskContext, parts: Sequence[Part]) -> Iterator[pa.RecordBatch]:
    """Yield rows from places at equal distances, and of small parts from what lies between."""
    step = max(len(parts) // _PLACES, 1)
    places = [*parts[::step], *(part for number, part in enumerate(parts) if number % step)][:_MAX_PARTS]
    left = min(SAMPLE_ROWS, _MAX_VALUES // max(len(context.dataset.features), 1))
    for number, part in enumerate(places):
        here = -(-left // max(len(parts[::step]) - number, 1))
        for batch in read_rows(context.dataset, part):
            yield batch.slice(0, here)
            taken = min(batch.num_rows, here)
            left, here = left - taken, here - taken
            if not here:
                break
        if not left:
            return


def _warnings(context: TaskContext, profiles: dict[str, Profile]) -> Iterator[tuple[str, Iterator[Finding]]]:
    config, dataset = context.config, context.dataset
    limits = category_limits(config.kinds)
    vocabularies = vocabulary_limits(zip(config.kinds, config.kind_settings, strict=False))
    for name, profile in profiles.items():
        for algorithm, most in limits.items():
            if findings.has_too_many(profile, most):
                text = f"column `{name}`: {findings.too_many(profile, algorithm, most)}. {findings.GROUPED}"
                raise ColumnType(text, where=dataset.uri)
        listed = {} if name in dataset.hashed else vocabularies
        yield name, findings.examine_column(f"column `{name}`", profile, limits, listed)


# ----------------------------------------------------------------------------------------------------------- afterwards
def facts(context: TaskContext) -> dict[str, str]:
    """Return what both halves must agree on before either shows how its ids are written."""
    return {"id_shapes": _CLASSES} if _is_allowed(context) else {}


def _is_allowed(context: TaskContext) -> bool:
    return bool(context.config.bounds.get(_CLAUSE) == _CLASSES)


def explain(context: TaskContext, link: Link, folder: str, n_people: int, n_ids: int) -> str:
    """Say how the ids are written if few people are shared; both halves call it at once.

    Parameters
    ----------
    folder
        The private folder of the task.
    n_people, n_ids
        How many people are shared, and how many this party has.

    Returns
    -------
    str
        A sentence for this party; empty if not few are shared.

    Raises
    ------
    ProtocolViolated
        The other half says something else than shapes.

    Notes
    -----
    Reveals: nothing unless the ticket's `outputs.id_shapes` says so. Then, whether few of this party's people are
    shared; and if few of either party's are, the shapes of its ids in a sample, see `fedtasks.data.id_shapes`.
    """
    is_few, own = not n_people or n_people < FEW * n_ids, _own_shapes(context, folder)
    theirs: list[Shares] | None = None
    if _is_allowed(context):
        messages.FEW_SHARED.send(link, {"few": is_few})
        both = bool(messages.FEW_SHARED.receive(link)["few"]) and is_few
        if both:
            theirs = _exchange(link, own)
            report_remarks(context, {remark_metric("few_shared"): n_people})
    if not is_few:
        return ""
    columns, name, peer = context.dataset.id_columns, context.party.name, context.config.peer
    written = f"ids of {name}: {name_columns(columns, own)}"
    # What is to be done comes first: a note has room for so much.
    if theirs is None:
        mended = dict.fromkeys(each for each in map(advice, own) if each)
        return "; ".join([*mended, written, _BY_TELEPHONE.format(peer=peer, dataset=context.dataset.name)])
    reasons = (difference(*each, name, peer) for each in zip(own, theirs, strict=True))
    return "; ".join([*filter(None, reasons), written, f"of {peer}: {name_columns(columns, theirs)}"])


_BY_TELEPHONE = (
    "compare them with those of {peer} by telephone, as `fedtasks doctor --data {dataset}` says them on either side, "
    "or agree on a ticket with `--id-shapes classes`"
)


def _own_shapes(context: TaskContext, folder: str) -> list[Shares]:
    n_columns = len(context.dataset.id_columns)
    try:
        return from_plain(read_json(f"{folder}/{_SHAPES}"), n_columns)
    except DataMissing:
        return [()] * n_columns  # an earlier release has prepared the ids


def _exchange(link: Link, own: Sequence[Shares]) -> list[Shares]:
    messages.ID_SHAPES.send(link, {"columns": to_plain(own)})
    found = messages.ID_SHAPES.receive(link)
    try:
        return from_plain(found["columns"], len(own))
    except ValueError as error:
        messages.ID_SHAPES.refuse(found, str(error))
