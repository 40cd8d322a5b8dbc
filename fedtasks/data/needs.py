"""Which columns a dataset needs, what they must hold, and whether what is there can hold it."""

from __future__ import annotations

import pyarrow as pa

from fedtasks.config import Dataset, FeatureType, IdType, LabelKind
from fedtasks.data.cells import kind_of
from fedtasks.data.source_files import values_of_path
from fedtasks.errors import ColumnMissing, ColumnType, FileInvalid

NUMBERED_TIMES, WRITTEN_TIMES = "numbers since 1970", "dates and times"
"""What the column of an event time must hold, by its unit."""

_ACCEPTED = {
    NUMBERED_TIMES: {"whole", "number", "text"},
    WRITTEN_TIMES: {"date", "time", "text"},
    "text": {"text"},
    "whole numbers": {"whole", "number", "text"},
    "numbers": {"whole", "number", "truth", "text"},
    "text, numbers or true/false": {"text", "whole", "number", "truth", "date"},
    "dates or times": {"date", "time", "text"},
    "lists of ids": {"list of text", "list of whole", "list of nothing", "text"},
    "lists of numbers": {"list of number", "list of whole", "list of text", "list of nothing", "text"},
}
"""What a column must hold → the kinds of types that can hold it; a text is read as it would be in CSV."""

_REMEDIES = {
    NUMBERED_TIMES: "of dates and times leave `unit` out",
    WRITTEN_TIMES: "of numbers since 1970 say their `unit`: `s`, `ms` or `us`",
    "text": "set `id_type: integer` for numbers",
    "numbers": "declare a date or time as `days`, `seconds`, `hour` or `weekday`",
    "text, numbers or true/false": "declare a time as `days`, `seconds`, `hour` or `weekday`",
    "lists of ids": "declare lists of numbers with a fraction as `{type: vector, width: …}`",
    "lists of numbers": "declare one number as `numeric`, and lists of texts as `{type: sequence, length: …}`",
}
_REMEDY_OF_LISTS = "declare lists of ids as `{type: sequence, length: …}`, of numbers as `{type: vector, width: …}`"


Needs = list[tuple[str, str]]
"""Columns, each with what it must hold."""


def needs_of(dataset: Dataset) -> Needs:
    """Return the columns that `read_rows` needs."""
    need_of_id = "text" if dataset.id_type is IdType.STRING else "whole numbers"
    needs = [(column, need_of_id) for column in dataset.id_columns]
    of_kind = {
        FeatureType.NUMERIC: "numbers",
        FeatureType.CATEGORICAL: "text, numbers or true/false",
        FeatureType.SEQUENCE: "lists of ids",
        FeatureType.VECTOR: "lists of numbers",
    }
    for feature, kind in dataset.types.items():
        needs.append((dataset.column_of(feature), of_kind.get(kind, "dates or times")))
    if dataset.label:
        is_number = dataset.label_kind is LabelKind.NUMBER
        needs.append((dataset.label, "numbers" if is_number else "text, numbers or true/false"))
    if dataset.weight:
        needs.append((dataset.weight, "numbers"))
    if dataset.held_out:
        needs.append((dataset.held_out, "text, numbers or true/false"))
    return needs


def columns_of(needs: Needs) -> list[str]:
    """Return each column once."""
    return list(dict.fromkeys(column for column, _ in needs))


def check_columns(found: pa.Schema, needs: Needs, uri: str, what: str = "file") -> list[str]:
    """Return which of the columns that are needed are there, of all that there are.

    Parameters
    ----------
    uri
        Where they are; its path may say others.
    what
        What it is that has them.

    Raises
    ------
    ColumnMissing
        One is absent; names those that are there.
    ColumnType
        One has another type than is needed.
    FileInvalid
        One is there twice.
    """
    columns, of_path = columns_of(needs), values_of_path(uri)
    for column in columns:
        places = [place for place, name in enumerate(found.names, 1) if name == column]
        if len(places) > 1:
            text = f"column `{column}` stands twice in the {what}, as number {places[0]} and {places[1]}"
            raise FileInvalid(f"{text}; leave out or rename one", where=uri)
        if not places and column not in of_path:
            names = ", ".join([*found.names, *of_path])
            raise ColumnMissing(f"column `{column}` is not in the {what}; it has: {names}", where=uri)
    for column, need in needs:
        if column in found.names:
            check_type(column, found.field(column).type, need, uri)
    return [column for column in columns if column in found.names]


def check_type(name: str, found: pa.DataType, need: str, uri: str) -> None:
    """Raise `ColumnType` unless a column of such a type can hold what is needed."""
    # A writer that saw only missing values leaves a column of no type at all.
    if kind_of(found) in (*_ACCEPTED[need], "nothing"):
        return
    is_known = kind_of(found) != "" and (need != "text" or kind_of(found) in ("whole", "number"))
    remedy = f"; {_REMEDIES[need]}" if is_known and need in _REMEDIES else ""
    if kind_of(found).startswith("list of") and need in ("numbers", "text, numbers or true/false", "dates or times"):
        remedy = f"; {_REMEDY_OF_LISTS}"
    raise ColumnType(f"column `{name}`: found {found}, expected {need}{remedy}", where=uri)
