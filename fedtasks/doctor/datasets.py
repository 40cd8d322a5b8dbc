"""Looks through all rows of datasets and says what harms an intersection or a model: `fedtasks doctor --data`.

Ids are told by their shapes alone. Whatever is wrong with one column keeps no other from being looked at.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.config import Dataset, LabelKind, Party, load_party
from fedtasks.data import findings
from fedtasks.data.copies import readable
from fedtasks.data.id_shapes import MENDED, Form, ShapeTally, said
from fedtasks.data.partitions import landed
from fedtasks.data.profile import NumericProfile, Repeats, add_rows, profiles_of
from fedtasks.data.tables import LABEL, Part, columns_of_ids, list_parts, read_ids, read_rows, rows_schema
from fedtasks.data.values import check_label, check_label_varies
from fedtasks.doctor.streams import examine_times
from fedtasks.errors import ConfigError, DataError, DataNotLanded, FedtasksError, LabelInvalid
from fedtasks.kinds import category_limits, kinds, vocabulary_limits
from fedtasks.psi.ids import keys_of_ids

_MANY_LABELS = 1000
"""So many values of a label are told apart: more than it can have classes."""


def examine_data(party_file: Path, dataset: str = "", partition: str = "") -> Iterator[Finding]:
    """Look through the rows of datasets; yields findings as they come.

    Parameters
    ----------
    party_file
        The party's party.yaml.
    dataset
        Which dataset; by default all that are declared.
    partition
        Which partition of it; by default all that have landed.

    Raises
    ------
    ConfigError
        party.yaml does not load, or declares no such dataset.
    DataNotLanded
        The partition has not.

    Notes
    -----
    Cost: two passes over the rows, in memory that does not grow with them; more where columns cannot be read.
    """
    party = load_party(party_file)
    for each in _named(party, dataset):
        if each.is_topic:
            yield Finding(each.name, Verdict.NOTE, "a topic of Kafka, which is not looked through", "")
            continue
        keys = landed(each)
        if partition:
            if partition not in keys:
                raise DataNotLanded(dataset=each.name, partition=partition)
            keys = [partition]
        if each.is_partitioned and not keys:
            remedy = f"When one is complete: `fedtasks data land {each.name} PARTITION`"
            yield Finding(each.name, Verdict.NOTE, "no partition has landed yet", remedy)
            continue
        try:
            with readable(each) as rows:
                yield from _examine(rows, keys)
            yield from examine_times(each)
        except FedtasksError as error:
            yield wrong(each.name, error)
        except OSError as error:
            text = f"cannot be read: {error.strerror or error}"
            yield Finding(each.name, Verdict.WRONG, text, "Check that the files are there and may be read")


def _named(party: Party, dataset: str) -> Sequence[Dataset]:
    if dataset:
        return [party.dataset(dataset)]
    if not party.datasets:
        raise ConfigError(f"{party.name} declares no dataset", field="datasets")
    return party.datasets


def _examine(dataset: Dataset, partitions: Sequence[str]) -> Iterator[Finding]:
    """Look at a dataset, again without the column that something is wrong with until nothing is."""
    while True:
        try:
            parts = list_parts(dataset, partitions)
            ids, rows = _IdPass(dataset, parts), _RowPass(dataset, parts)
        except DataError as error:
            column = _culprit(dataset, error)
            if column is None:
                yield wrong(dataset.name, error)
                return
            yield wrong(_of(dataset, "label" if column == dataset.label else column), error)
            rest = _without(dataset, column)
            if rest is None:
                yield Finding(dataset.name, Verdict.NOTE, "the other columns were not looked at", "Mend this one first")
                return
            dataset = rest
            continue
        yield from ids.told()
        yield from rows.told()
        return


def _culprit(dataset: Dataset, error: DataError) -> str | None:
    """Return the column that an error is about; None if it is about something else."""
    features = map(dataset.column_of, dataset.features)
    columns = (*dataset.id_columns, *features, dataset.label, dataset.weight, dataset.held_out)
    return next((column for column in columns if column and f"`{column}`" in error.detail), None)


def _without(dataset: Dataset, column: str) -> Dataset | None:
    """Return a dataset without a column; None if it cannot be read without."""
    if column in dataset.id_columns:
        return None
    if column == dataset.label:
        return dataclasses.replace(
            dataset, label=None, label_positive=None, label_kind=LabelKind.BINARY, label_classes=(), weight=None
        )
    if column == dataset.weight:
        return dataclasses.replace(dataset, weight=None)
    if column == dataset.held_out:
        return dataclasses.replace(dataset, held_out=None)
    features = {name: kind for name, kind in dataset.features.items() if dataset.column_of(name) != column}
    columns = {name: read for name, read in dataset.columns.items() if name in features}
    return dataclasses.replace(dataset, features=features, columns=columns) if features else None


# -------------------------------------------------------------------------------------------------------- ids and label
class _IdPass:
    """What a pass over the ids and labels of a dataset finds."""

    def __init__(self, dataset: Dataset, parts: Sequence[Part]) -> None:
        self._dataset = dataset
        self._shapes = {name: ShapeTally() for name in dataset.id_columns}
        self._repeats = Repeats()
        self._labels = Counter[str | None]()
        self._numbers = NumericProfile()
        self._rows = self._missing = 0
        for part in parts:
            for batch in read_ids(dataset, part):
                self._add_ids(batch.column("id"))
                if dataset.label is not None:
                    self._add_labels(batch.column(LABEL))

    def _add_ids(self, ids: pa.Array) -> None:
        self._rows += len(ids)
        self._missing += ids.null_count
        for name, texts in columns_of_ids(self._dataset, ids).items():
            self._shapes[name].add(texts)
        hashes = np.ascontiguousarray(keys_of_ids(ids.drop_null())[:, :8])
        self._repeats.add(hashes.view(np.uint64)[:, 0])

    def _add_labels(self, labels: pa.Array) -> None:
        if self._dataset.label_kind is LabelKind.NUMBER:
            self._numbers.add(labels.cast(pa.float64()))
            return
        for found in labels.value_counts().to_pylist():
            if found["values"] in self._labels or len(self._labels) < _MANY_LABELS:
                self._labels[found["values"]] += found["counts"]

    def told(self) -> Iterator[Finding]:
        """Yield what there is to say of ids and label."""
        yield from self._ids()
        if self._dataset.label is not None:
            try:
                yield self._label()
            except LabelInvalid as error:
                yield wrong(_of(self._dataset, "label"), error)

    def _ids(self) -> Iterator[Finding]:
        subject = _of(self._dataset, "id")
        if not self._rows:
            yield Finding(subject, Verdict.WARNING, "no rows", "Check the files that `uri` names")
            return
        if self._missing:
            text = f"{self._missing:,} of {self._rows:,} rows ({findings.share(self._missing, self._rows)}) have no id"
            yield Finding(subject, Verdict.WARNING, text, "Give each row an id, or leave it out")
        if repeated := self._repeats.share:
            about = findings.share(round(repeated * self._repeats.rows), self._repeats.rows)
            text = f"about {about} of the rows repeat the id of another; of those the first counts"
            if self._dataset.is_stream:
                text = f"about {about} of the rows repeat the id of another; those that lie close together count once"
                yield Finding(subject, Verdict.NOTE, text)
            elif self._dataset.is_partitioned:
                yield Finding(subject, Verdict.NOTE, f"{text}, of the newest partition")
            else:
                yield Finding(subject, Verdict.WARNING, text, "Keep one row for each id")
        for name, tally in self._shapes.items():
            yield from _examine_shapes(_of(self._dataset, name), tally)

    def _label(self) -> Finding:
        dataset, subject = self._dataset, _of(self._dataset, "label")
        if dataset.label_kind is LabelKind.NUMBER:
            ends = (min(self._numbers.lowest, default=None), max(self._numbers.highest, default=None))
            check_label_varies(dataset, *(None if end is None else str(end) for end in ends))
            return Finding(subject, Verdict.OK, findings.describe(self._numbers))
        counts = self._labels
        if dataset.label_kind is LabelKind.BINARY:
            check_label(dataset, counts)
        else:
            counts = Counter({dataset.label_classes[int(str(place))]: rows for place, rows in counts.items()})
            check_label_varies(dataset, min(map(str, counts), default=None), max(map(str, counts), default=None))
        return findings.examine_label(subject, dataset, counts)


def _examine_shapes(subject: str, tally: ShapeTally) -> Iterator[Finding]:
    found = []
    for form, remedy in MENDED.items():
        rows = sum(count for shape, count in tally.counts.items() if shape.form is form)
        if rows:
            text = f"{findings.share(rows, tally.rows)} of the ids: {_SEEN[form]}"
            found.append(Finding(subject, Verdict.WARNING, text, remedy[0].upper() + remedy[1:]))
    yield Finding(subject, Verdict.NOTE if found else Verdict.OK, said(tally.shares()))
    yield from found


_SEEN = {
    Form.POINT_ZERO: "digits ending in .0",
    Form.SCIENTIFIC: "scientific notation, as 1.38E+10",
    Form.FORMULA: 'a formula, as ="…"',
    Form.QUOTED: "in quotes",
    Form.HIDDEN: "signs that nobody sees",
    Form.SPACED: "spaces",
    Form.NUMBER: "numbers with sign, point or comma",
}


# -------------------------------------------------------------------------------------------------- what rows hold else
class _RowPass:
    """What a pass over features, weights and what may be held out finds."""

    def __init__(self, dataset: Dataset, parts: Sequence[Part]) -> None:
        self._dataset = dataset
        self._held_out = Counter[bool]()
        # By their places, since a feature may be called as the product calls its own; a weight is behind the label.
        places = {name: place for place, name in enumerate(dataset.features, 1)}
        if dataset.weight is not None:
            places[dataset.weight] = len(places) + 2
        schema = rows_schema(dataset)
        self._profiles = profiles_of(pa.schema([schema.field(place).with_name(name) for name, place in places.items()]))
        for part in parts:
            for batch in read_rows(dataset, part):
                add_rows(self._profiles, {name: batch.column(place) for name, place in places.items()})
                if dataset.held_out is not None:
                    held = int(pc.sum(batch.column(batch.num_columns - 1)).as_py() or 0)
                    self._held_out.update({True: held, False: batch.num_rows - held})

    def told(self) -> Iterator[Finding]:
        """Yield what there is to say of each column."""
        limits, vocabularies = category_limits(kinds()), vocabulary_limits((name, {}) for name in kinds())
        for name, profile in self._profiles.items():
            subject, found = _of(self._dataset, name), list[Finding]()
            if name in self._dataset.features:
                listed = {} if name in self._dataset.hashed else vocabularies
                found = list(findings.examine_column(subject, profile, limits, listed))
            yield Finding(subject, Verdict.NOTE if found else Verdict.OK, findings.describe(profile))
            yield from found
        if self._dataset.held_out is not None:
            yield self._of_held_out(_of(self._dataset, self._dataset.held_out))

    def _of_held_out(self, subject: str) -> Finding:
        held, rows = self._held_out[True], self._held_out.total()
        text = f"{rows:,} rows, of which {held:,} may be held out ({findings.share(held, rows)})"
        if 0 < held < rows:
            return Finding(subject, Verdict.OK, text)
        return Finding(subject, Verdict.WARNING, text, "Mark some rows, and leave others to learn from")


def _of(dataset: Dataset, column: str) -> str:
    return f"{dataset.name}: {column}"
