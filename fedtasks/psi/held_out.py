"""Which aligned rows are held out for the test: by a hash that both sides know, or as the leader tells the follower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.data.blocks import LABEL, UNIT
from fedtasks.data.held_out import Unit, bound, count_draws, draws, is_held_out, own_secret
from fedtasks.data.tables import HELD_OUT, Part
from fedtasks.engines.engine import Batches, Engine, Frame
from fedtasks.link.link import Link
from fedtasks.psi import messages
from fedtasks.psi.settings import AlignSettings, HeldOutBy
from fedtasks.runtime.context import TaskContext

Mask: TypeAlias = npt.NDArray[np.bool_]
Choice: TypeAlias = Callable[[int, pa.Table], Mask]
"""Says which rows of a block are held out, of its number and its rows in order."""

_COUNTS = pa.schema([(LABEL, pa.int64()), ("counts", pa.binary())])


def tells(context: TaskContext, settings: AlignSettings) -> bool:
    """Whether this half tells the other which rows are held out."""
    return settings.held_out_by is not HeldOutBy.PERSON and context.is_leader


def is_told(context: TaskContext, settings: AlignSettings) -> bool:
    """Whether this half is told."""
    return settings.held_out_by is not HeldOutBy.PERSON and not context.is_leader


def unit_of(settings: AlignSettings) -> Unit:
    """Return what is held out or learnt from."""
    return Unit.ROW if settings.held_out_by is HeldOutBy.PARTITION else Unit.PERSON


def newest(parts: Sequence[Part], settings: AlignSettings) -> frozenset[str]:
    """Return the partitions whose rows are held out, where partitions decide."""
    if settings.held_out_by is not HeldOutBy.PARTITION:
        return frozenset()
    return frozenset(sorted({part.partition for part in parts})[-settings.test_partitions :])


def choose(context: TaskContext, settings: AlignSettings, engine: Engine, rows: Frame) -> Choice:
    """Return how this party finds the rows that are held out: by the hash, or as the leader.

    Parameters
    ----------
    rows
        All rows, with units, and at the leader labels; they are gone through where labels decide.
    """
    match settings.held_out_by:
        case HeldOutBy.PERSON:
            return _by_person(settings.seed, settings.test_fraction)
        case HeldOutBy.LABEL:
            return _by_label(context, settings, engine, rows)
        case _:
            return _as_marked


def listen(link: Link, count: int, n_people: int) -> Choice:
    """Return what the leader says of the rows of `count` blocks."""
    told = [messages.HELD_OUT.numbered(number).receive(link, n_people // 8 + 1) for number in range(count)]

    def choice(number: int, table: pa.Table) -> Mask:
        bits = np.frombuffer(told[number], dtype=np.uint8)
        if len(bits) != -(-table.num_rows // 8):
            messages.HELD_OUT.numbered(number).refuse(len(bits), f"bits of {table.num_rows} rows")
        return np.unpackbits(bits, count=table.num_rows).astype(bool)

    return choice


def tell(link: Link, masks: Mapping[int, bytes], count: int) -> None:
    """Tell the follower which rows of each block are held out."""
    for number in range(count):
        messages.HELD_OUT.numbered(number).send(link, masks.get(number, b""))


def packed(mask: Mask) -> bytes:
    """Return one bit for each row."""
    return np.packbits(mask).tobytes()


def _by_person(seed: int, test_fraction: float) -> Choice:
    def choice(_: int, table: pa.Table) -> Mask:
        return is_held_out(table.column(UNIT).to_numpy(), seed=seed, test_fraction=test_fraction)

    return choice


def _as_marked(_: int, table: pa.Table) -> Mask:
    return np.asarray(table.column(HELD_OUT).to_numpy(zero_copy_only=False), dtype=bool)


def _by_label(context: TaskContext, settings: AlignSettings, engine: Engine, rows: Frame) -> Choice:
    """Hold out the same share of each class, by draws that the follower cannot repeat.

    Notes
    -----
    If the follower knew the draws, the rows whose draw lies between the bounds of two classes would tell their label.
    """
    secret, seed = own_secret(context.party.storage), settings.seed

    def count(batches: Batches) -> Batches:
        found: dict[int, npt.NDArray[np.int64]] = {}
        for batch in batches:
            labels, drawn = batch.column(LABEL).to_numpy(), draws(batch.column(UNIT).to_numpy(), seed, secret)
            for label in np.unique(labels).tolist():
                found[label] = found.get(label, 0) + count_draws(drawn[labels == label])
        for label, counts in found.items():
            yield pa.RecordBatch.from_pylist([{LABEL: label, "counts": counts.tobytes()}], schema=_COUNTS)

    counts: dict[int, npt.NDArray[np.int64]] = {}
    for row in engine.collect(engine.map(engine.select(rows, [UNIT, LABEL]), count, _COUNTS)):
        counts[row[LABEL]] = counts.get(row[LABEL], 0) + np.frombuffer(row["counts"], dtype=np.int64)
    bounds = {label: np.uint64(bound(found, settings.test_fraction)) for label, found in counts.items()}

    def choice(_: int, table: pa.Table) -> Mask:
        labels, drawn = table.column(LABEL).to_numpy(), draws(table.column(UNIT).to_numpy(), seed, secret)
        held = np.zeros(table.num_rows, dtype=bool)
        for label in pc.unique(table.column(LABEL)).to_pylist():
            held |= (labels == label) & (drawn < bounds[label])
        return held

    return choice
