"""Which rows a model has learnt from, with all versions that it goes back to: the leader keeps it beside its half.

No figure of a model counts that was measured on a row which it has learnt from. Tags change with the key of an
intersection, so what is kept are units, which do not: see `fedtasks.data.held_out`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtasks.data.blocks import TRAIN, UNIT, Blocks
from fedtasks.data.held_out import Unit, Units
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import read_bytes, write_atomically

FILE = "trained-on.bin"
"""Units in ascending order, eight bytes each, little-endian."""
FACT = "trained_on"
"""The fact of a task's manifest that says what the units in `FILE` are; None where they are not known."""

_BATCH_ROWS = 100_000


def write(folder: str, blocks: Blocks, before: Manifest | None) -> str | None:
    """Write down the train rows, and those of the version that training went on from.

    Parameters
    ----------
    before
        What has published that version.

    Returns
    -------
    str or None
        What `FACT` is to say: None if some of the rows are not known, or are of another unit.

    Notes
    -----
    Cost: eight bytes for each row of the model and of its line.
    """
    if blocks.unit is None or (before is not None and before.facts.get(FACT) != blocks.unit.value):
        return None
    known = np.empty(0, np.int64) if before is None else _units(before)
    # One array, sorted where it is: of many rows, each copy counts.
    units = np.empty(len(known) + blocks.n_rows, "<i8")
    units[: len(known)] = known
    end = len(known)
    for batch in blocks.batches(_BATCH_ROWS, TRAIN, columns=[UNIT]):
        units[end : end + batch.num_rows] = batch.column(0).to_numpy()
        end += batch.num_rows
    units = units[:end]
    units.sort()
    is_new = np.append(True, units[1:] != units[:-1])[:end]
    write_atomically(f"{folder}/{FILE}", (units if is_new.all() else units[is_new]).tobytes())
    return blocks.unit.value


def is_known(manifest: Manifest, unit: Unit | None) -> bool:
    """Whether it is known which rows a model has learnt from, in units of this sort."""
    return unit is not None and manifest.facts.get(FACT) == unit.value


def have_learnt(manifests: Sequence[Manifest], units: Units) -> np.ndarray:
    """Return for each unit whether one of these models has learnt from it, where that is known (see `is_known`)."""
    found = np.zeros(len(units), dtype=bool)
    for manifest in manifests:
        found |= np.isin(units, _units(manifest))
    return found


def _units(manifest: Manifest) -> Units:
    return np.frombuffer(read_bytes(manifest.path(FILE)), dtype="<i8").astype(np.int64)
