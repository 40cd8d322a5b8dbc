"""Ids, labels and weights of a dataset: normal form, and checks that name the row and never the id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset, IdType, Normalisation, canonical_word
from fedtasks.data.cells import Missing, Place, coded_words, texts, whole_numbers, words
from fedtasks.errors import ColumnType, IdLong, IdNull, LabelInvalid

_INVISIBLE = r"[\p{Cc}\p{Cf}]"
# What spreadsheets and exports put around a text that they would otherwise take for a number, and behind one that they
# did take for a number.
_WRAPPED = r"""(?s)^(?:="(.*)"|"(.*)"|'(.*)'|'(.*))$"""
_WHOLE = r"^([0-9]+)\.0+$"


def _changed(text: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Change the case of letters, and leave them composed."""
    if pc.all(pc.string_is_ascii(text)).as_py() in (True, None):
        return change(text)
    # One sign becomes one sign here, which is right of letters and accents alone: `İ` is an I with a dot.
    return pc.utf8_normalize(change(pc.utf8_normalize(text, form="NFD")), form="NFC")


def _unwrapped(text: pa.Array) -> pa.Array:
    bare = pc.replace_substring_regex(text, _WRAPPED, r"\1\2\3\4")
    return pc.replace_substring_regex(bare, _WHOLE, r"\1")


_STEPS = {
    Normalisation.TRIM: pc.utf8_trim_whitespace,
    Normalisation.LOWER: lambda text: _changed(text, pc.utf8_lower),
    Normalisation.UPPER: lambda text: _changed(text, pc.utf8_upper),
    Normalisation.NFC: lambda text: pc.utf8_normalize(text, form="NFC"),
    Normalisation.NFKC: lambda text: pc.utf8_normalize(text, form="NFKC"),
    Normalisation.VISIBLE: lambda text: pc.replace_substring_regex(text, _INVISIBLE, ""),
    Normalisation.UNWRAP: _unwrapped,
}
_KEEP_PLAIN = frozenset((Normalisation.TRIM, Normalisation.NFC, Normalisation.NFKC))
"""What leaves a text of ASCII as it is that neither begins nor ends with white space."""

MAX_ID_BYTES = 2**16 - 1
"""How long an id may be, in UTF-8: the OPRF writes its length in two bytes. Other schemes could take more, and whether
an id can be used shall not depend on the scheme.
"""

_SPACE, _BEYOND_ASCII = 0x20, 0x80
_INTEGER = r"^[+-]?[0-9]+(\.0*)?$"
_NO_TEXT = pa.scalar(None, pa.string())


def normalise(
    column: pa.Array,
    id_type: IdType,
    steps: Sequence[Normalisation],
    *,
    name: str,
    first: Place,
    missing: Missing = Missing(),  # noqa: B008 - it is frozen
) -> pa.Array:
    """Bring ids into the form that both sides hash.

    Parameters
    ----------
    column
        Text, or numbers when `id_type` says so.
    id_type
        An ``integer`` becomes its canonical decimal text (``+007`` and ``7.0`` → ``7``); a ``string`` keeps its zeros.
    steps
        What text goes through, in this order.
    name, first
        The column's name and where its first row stands, for the error.
    missing
        What means that there is no id.

    Returns
    -------
    Array
        Text, null where there is no id; an empty text counts as none.

    Raises
    ------
    ColumnType
        An id is not a whole number although the dataset says so; names the first such row.
    FileInvalid
        A text is not UTF-8; names the first such row.
    """
    if id_type is IdType.INTEGER:
        text = pc.utf8_trim_whitespace(whole_numbers(column, name, first))
        text = missing.blanked(text, text)
        _require(pc.match_substring_regex(text, _INTEGER), name, "a whole number", first)
        text = pc.replace_substring_regex(text, r"^\+?(-?)0*([0-9]+)(?:\.0*)?$", r"\1\2")
        text = pc.if_else(pc.equal(text, "-0"), "0", text)
        return pc.if_else(pc.is_in(text, value_set=missing.canonical), _NO_TEXT, text)
    text = texts(column, name, first)
    if _KEEP_PLAIN.issuperset(steps) and _are_plain(text, missing):
        return text
    if steps[:1] == (Normalisation.TRIM,):
        text, steps = pc.utf8_trim_whitespace(text), steps[1:]
        text = missing.blanked(text, text)
    else:
        text = missing.blanked(text)
    if not steps:
        return text
    for step in steps:
        text = _STEPS[step](text)
    if Normalisation.UNWRAP in steps or Normalisation.VISIBLE in steps:
        text = missing.blanked(text)  # `="NULL"` is no id either
    return pc.if_else(pc.equal(text, ""), _NO_TEXT, text)


def _are_plain(text: pa.Array, missing: Missing) -> bool:
    """Whether all are texts of ASCII without white space around them, too long to mean that there is no value."""
    if text.null_count or not len(text) or not pa.types.is_string(text.type):
        return False
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[text.offset : text.offset + len(text) + 1]
    if np.diff(ends).min() <= missing.longest:
        return False
    signs = np.frombuffer(data, dtype=np.uint8)
    has_margin = min(signs[ends[:-1]].min(), signs[ends[1:] - 1].min()) <= _SPACE
    return not has_margin and bool(signs[ends[0] : ends[-1]].max() < _BEYOND_ASCII)


def _require(right: pa.Array, name: str, expected: str, first: Place) -> None:
    wrong = pc.index(right, False).as_py()
    if wrong >= 0:
        place = Place(first.file, first.row + wrong)
        raise ColumnType(f"column `{name}`: found text that is not {expected}", where=str(place))


@dataclass(frozen=True)
class IdCounts:
    """What a pass over all ids of a dataset found.

    Parameters
    ----------
    n_rows
        Rows of the dataset.
    n_null, null_example
        Rows without an id, and the first of them.
    """

    n_rows: int
    n_null: int = 0
    null_example: Place | None = None


def check_ids(dataset: Dataset, counts: IdCounts) -> None:
    """Refuse a dataset in which no row has an id; where some have none, these are left out.

    Raises
    ------
    IdNull
        There are rows, and none has an id.
    """
    if counts.n_null and counts.n_null == counts.n_rows:
        text = f"none of {counts.n_rows} rows has a `{dataset.id}`, the first is {counts.null_example}"
        raise IdNull(text, where=dataset.uri)


def check_length(ids: pa.Array, dataset: Dataset, first: Place) -> pa.Array:
    """Return ids, none of which has more than `MAX_ID_BYTES` bytes.

    Raises
    ------
    IdLong
        One has; names the first such row.
    """
    lengths = pc.binary_length(ids)
    if (pc.max(lengths).as_py() or 0) > MAX_ID_BYTES:
        found = pc.index(pc.greater(lengths, MAX_ID_BYTES), True).as_py()
        columns = " and ".join(f"`{name}`" for name in dataset.id_columns)
        raise IdLong(
            f"column {columns}: found an id of {lengths[found].as_py():,} bytes", where=str(first.after(found))
        )
    return ids


def label_text(column: pa.Array, dataset: Dataset, first: Place) -> pa.Array:
    """Return a label column's values as they are compared with those declared, null where there is none.

    Raises
    ------
    FileInvalid
        A text is not UTF-8; names the first such row.
    """
    return words(column, str(dataset.label), first, Missing.of(dataset), trimmed=True)


def coded_labels(column: pa.Array, dataset: Dataset, first: Place) -> pa.DictionaryArray:
    """Return what `label_text` does, coded as by `fedtasks.data.cells.coded_words`; raises likewise."""
    return coded_words(column, str(dataset.label), first, Missing.of(dataset), trimmed=True)


def label_bits(labels: pa.DictionaryArray, dataset: Dataset) -> pa.Array:
    """Return 1 where the label, as `coded_labels` gives it, is positive and 0 elsewhere (``int8``)."""
    is_positive = pc.is_in(labels.dictionary, value_set=pa.array([canonical_word(_positive(dataset))]))
    return pc.fill_null(is_positive.cast(pa.int8()).take(labels.indices), 0)


def label_indices(text: pa.Array, dataset: Dataset, first: Place) -> pa.Array:
    """Return the place of each label among the declared classes (``int16``).

    Parameters
    ----------
    text
        Labels as `label_text` gives them.
    first
        Where the first row stands, for the error.

    Raises
    ------
    LabelInvalid
        A row has no label or one that is not declared; names the first such row and never the value.
    """
    known = pa.array(list(map(canonical_word, dataset.label_classes)), pa.string())
    indices = pc.index_in(text, value_set=known)
    unknown = pc.index(pc.is_valid(indices), False).as_py()
    if unknown >= 0:
        _require_label(text.slice(unknown, 1), dataset, first.after(unknown))
        problem = f"found a class that is none of the {len(dataset.label_classes)} declared"
        remedy = "add it to `label_classes`, or correct the row"
        raise LabelInvalid(f"column `{dataset.label}`: {problem}; {remedy}", where=str(first.after(unknown)))
    return indices.cast(pa.int16())


def label_numbers(numbers: pa.Array, dataset: Dataset, first: Place) -> pa.Array:
    """Return the labels of rows that all must have a number (``float64``).

    Raises
    ------
    LabelInvalid
        A row has none; names the first such row.
    """
    _require_label(numbers, dataset, first)
    return numbers


def weights(numbers: pa.Array, dataset: Dataset, first: Place) -> pa.Array:
    """Return the weights of rows that all must have one (``float64``).

    Raises
    ------
    ColumnType
        A weight is missing, zero or negative; names the first such row.
    """
    wrong = pc.index(pc.fill_null(pc.greater(numbers, 0.0), False), False).as_py()
    if wrong >= 0:
        problem = (
            "found a weight that is missing" if not numbers[wrong].is_valid else "found a weight that is not above 0"
        )
        remedy = "give each row a number above 0, or leave the row out"
        raise ColumnType(f"column `{dataset.weight}`: {problem}; {remedy}", where=str(first.after(wrong)))
    return numbers


def _require_label(labels: pa.Array, dataset: Dataset, first: Place) -> None:
    missing = pc.index(pc.is_valid(labels), False).as_py()
    if missing >= 0:
        text = f"column `{dataset.label}`: found a row without a label; give it one, or leave the row out"
        raise LabelInvalid(text, where=str(first.after(missing)))


def check_label_varies(dataset: Dataset, least: str | None, most: str | None) -> None:
    """Refuse a label that is the same in every row.

    Parameters
    ----------
    least, most
        The first and the last of the values as texts in any order; None of no rows.

    Raises
    ------
    LabelInvalid
        They are one.
    """
    if least == most:
        found = "no rows" if least is None else "only one value"
        text = f"column `{dataset.label}`: {found} found, at least two are needed; declare a column that differs"
        raise LabelInvalid(text, where=dataset.uri)


def check_label(dataset: Dataset, counts: Mapping[str | None, int]) -> None:
    """Refuse a binary label that is not one of two classes in every row.

    Parameters
    ----------
    counts
        Value (as `label_text` gives it) → rows; may stop after a few values.

    Raises
    ------
    LabelInvalid
        It is null somewhere, constant, of more than two classes, or never positive.
    """
    column = f"column `{dataset.label}`"
    n_null = counts.get(None, 0)
    if n_null:
        raise LabelInvalid(f"{column}: {n_null} rows have no label", where=dataset.uri)
    if len(counts) != 2:
        found = "only one value" if len(counts) == 1 else "more than two values" if counts else "no rows"
        raise LabelInvalid(f"{column}: {found} found, two classes are needed", where=dataset.uri)
    positive = _positive(dataset)
    if canonical_word(positive) not in counts:
        known = f"`{positive}`" if dataset.label_positive is not None else "`1` or `true`"
        remedy = "set `label_positive` to the value that counts as 1"
        raise LabelInvalid(f"{column}: no row holds {known}; {remedy}", where=dataset.uri)


def _positive(dataset: Dataset) -> str:
    return "1" if dataset.label_positive is None else dataset.label_positive.strip()
