"""Between which values the labels of some rows lie, and whether anything can be learnt from them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset, LabelKind
from fedtasks.errors import LabelInvalid

_CONSTANT = {
    LabelKind.BINARY: "are of one class",
    LabelKind.CLASSES: "are of one class",
    LabelKind.NUMBER: "have one number",
}


@dataclass(frozen=True)
class LabelRange:
    """The labels of rows for training, or for the test.

    Parameters
    ----------
    rows
        How many rows there are.
    least, most
        Between which their labels lie; None without any.
    """

    rows: int = 0
    least: float | None = None
    most: float | None = None

    def with_labels(self, labels: pa.Array | pa.ChunkedArray) -> LabelRange:
        """Return the range of these labels and some more."""
        found = pc.min_max(labels).as_py()
        ends = [each for each in (self.least, self.most, found["min"], found["max"]) if each is not None]
        return LabelRange(self.rows + len(labels), min(ends, default=None), max(ends, default=None))

    def check(self, dataset: Dataset, purpose: str, remedy: str) -> None:
        """Raise `LabelInvalid` unless labels differ.

        Parameters
        ----------
        purpose
            What the rows are for.
        remedy
            What helps, beside a label that differs.
        """
        if self.least != self.most:
            return
        alike = f"all {self.rows} rows for {purpose} {_CONSTANT[dataset.label_kind]}"
        alike = alike if self.rows else f"no row is for {purpose}"
        text = f"column `{dataset.label}`: {alike}; {remedy} (`test_fraction`), or declare a label that differs"
        raise LabelInvalid(text, where=dataset.uri)
