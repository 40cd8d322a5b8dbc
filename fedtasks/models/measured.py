"""On which test rows models are measured: on those that none of them has learnt from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, UNIT, Blocks
from fedtasks.data.run_storage import Manifest
from fedtasks.errors import LabelInvalid
from fedtasks.kinds import remark_metric
from fedtasks.models import trained_on


@dataclass(frozen=True)
class Measured:
    """Test rows that count.

    Parameters
    ----------
    rows
        Shape ``(n,)``: whether each test row counts.
    champion
        Whether the version in use can be measured on them too.
    is_checked
        Whether it is known of all models which rows they have learnt from.
    """

    rows: npt.NDArray[np.bool_]
    champion: bool
    is_checked: bool

    @property
    def figures(self) -> dict[str, float]:
        """How many rows do not count or are not known of; nothing where all count and all is known."""
        found = {"rows_learnt_before": float((~self.rows).sum())}
        if not self.is_checked:
            found["rows_unchecked"] = float(self.rows.sum())
        return {name: value for name, value in found.items() if value}

    @property
    def remarks(self) -> dict[str, int]:
        """The same as metrics of remarks."""
        return {remark_metric(name): int(count) for name, count in self.figures.items()}


def rows_to_measure(blocks: Blocks, table: pa.Table, trained: Manifest, in_use: Manifest | None) -> Measured:
    """Choose the test rows that count for a model, and for the version in use beside it.

    Parameters
    ----------
    table
        The test rows of `blocks`.
    trained, in_use
        What has published the leader's halves of the new model and of the version in use, if there is one.

    Raises
    ------
    LabelInvalid
        The new model has learnt from so many of them that nothing can be measured.
    """
    both = [trained, in_use] if in_use else [trained]
    known = [manifest for manifest in both if trained_on.is_known(manifest, blocks.unit)]
    is_checked = len(known) == len(both)
    if not known:
        return Measured(np.ones(table.num_rows, dtype=bool), in_use is not None, is_checked)
    units = table[UNIT].to_numpy()
    rows = ~trained_on.have_learnt(known, units)
    if _suffice(rows, table, blocks.label):
        return Measured(rows, in_use is not None, is_checked)
    rows = ~trained_on.have_learnt([manifest for manifest in known if manifest is trained], units)
    if in_use is None or not _suffice(rows, table, blocks.label):
        text = f"{(~rows).sum()} of {len(rows)} test rows have been learnt from, and the others do not suffice"
        raise LabelInvalid(f"{text}; train afresh (`start_from: fresh`), or hold out the same people as before")
    return Measured(rows, False, is_checked)


def _suffice(rows: npt.NDArray[np.bool_], table: pa.Table, label: LabelKind | None) -> bool:
    labels = table[LABEL].to_numpy()[rows]
    return len(np.unique(labels)) == 2 if label is LabelKind.BINARY else len(labels) > 0
