"""Aligned rows: Parquet files that both sides hold with the same ids in the same order.

A block set belongs to the task that made it, and its rows are in the order of its key, a column that both sides have
alike. Task ``align`` orders by tag: a block is the rows whose tags lie in one equal part of the tag space. Tags are
uniform, so blocks are of about equal size, both sides cut them alike without talking, and blocks in order of their
number are rows in order of their tag. Whoever orders by another key cuts the rows, which are the same on both sides,
into equal parts. Task ``joined`` keeps the order in which two streams were joined: its key tells rows apart, and both
sides have the same order because both have joined in it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtasks.config import Feature, FeatureType, LabelKind
from fedtasks.data.held_out import UNIT_TYPE, Unit, is_held_out, units_of_keys
from fedtasks.data.row_files import shards_of
from fedtasks.data.run_storage import FileEntry, Manifest, RunStorage
from fedtasks.data.storage import filesystem, write_atomically
from fedtasks.data.tables import FEATURE_TYPES, LABEL_TYPES
from fedtasks.data.tables import LABEL as LABEL
from fedtasks.data.tables import WEIGHT as WEIGHT
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, DataCorrupt
from fedtasks.names import OWN, TAG_BYTES, own_column

TASK = "align"
"""The task whose blocks are opened unless another is named."""

TAG, SPLIT, UNIT = own_column("tag"), own_column("split"), own_column("unit")
"""Columns of a block beside the features, `LABEL` and `WEIGHT`; of units see `fedtasks.data.held_out`."""

TRAIN, TEST = "train", "test"

_PLAIN_NAMES = {name: name.removeprefix(OWN) for name in (TAG, SPLIT, LABEL, WEIGHT)}
_INTEGER_BYTES = 8
_READ_ROWS = 100_000


class KeyType(enum.Enum):
    """What a block set may be ordered by."""

    BINARY = "binary"
    INTEGER = "integer"


@dataclass(frozen=True)
class OrderKey:
    """The column by which the rows of a block set are ordered; both sides have the same values there.

    Parameters
    ----------
    column
        Its name.
    type
        Bytes of equal width, or integers of 64 bits.
    width
        Bytes of one value.
    """

    column: str = TAG
    type: KeyType = KeyType.BINARY
    width: int = TAG_BYTES

    def __post_init__(self) -> None:
        if self.width < 1 or (self.type is KeyType.INTEGER and self.width != _INTEGER_BYTES):
            raise ConfigError(f"a key of type {self.type.value} is not {self.width} bytes wide", field="width")

    @property
    def arrow(self) -> pa.DataType:
        """The column's type in Arrow."""
        return pa.binary(self.width) if self.type is KeyType.BINARY else pa.int64()

    def rows(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return keys as a ``uint8`` array of shape ``(n, width)`` whose rows are ordered as the keys are.

        Raises
        ------
        DataCorrupt
            A row has no key.
        """
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        whole = whole.cast(self.arrow)
        if whole.null_count:
            raise DataCorrupt(f"a row has no {self.column}")
        if self.type is KeyType.INTEGER:
            # Big-endian and without a sign, bytes compare as the numbers do.
            shifted: np.ndarray = whole.to_numpy().astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
            in_order: np.ndarray = shifted.astype(">u8").view(np.uint8).reshape(-1, self.width)
            return in_order
        start = whole.offset * self.width
        raw = np.frombuffer(whole.buffers()[1] or b"", dtype=np.uint8)
        return raw[start : start + len(whole) * self.width].reshape(-1, self.width)


BY_TAG = OrderKey()
"""The key of what task ``align`` makes."""


def block_schema(
    features: Mapping[str, FeatureType],
    *,
    label: LabelKind | None = None,
    has_weight: bool = False,
    has_units: bool = True,
    key: OrderKey = BY_TAG,
) -> pa.Schema:
    """Return the columns of a block: key, split, unit, the features as declared, and label and weight at the leader.

    Parameters
    ----------
    features
        Column → type.
    label
        What kind of label there is: 0 or 1 (``int8``), the place among the classes (``int16``), or a number
        (``float64``); None without one.
    has_weight
        Whether rows have weights (``float64``).
    has_units
        Whether rows say of which unit they are; those that an earlier release has written do not.
    key
        By what rows are ordered.

    Raises
    ------
    ConfigError
        A feature is called as the key is.
    """
    if key.column in features:
        raise ConfigError(f"a feature cannot be called `{key.column}`, as the order of rows is", field="features")
    fields = [pa.field(key.column, key.arrow, nullable=False), pa.field(SPLIT, pa.string(), nullable=False)]
    if has_units:
        fields.append(pa.field(UNIT, UNIT_TYPE, nullable=False))
    fields += [pa.field(name, FEATURE_TYPES[kind]) for name, kind in features.items()]
    if label is not None:
        fields.append(pa.field(LABEL, LABEL_TYPES[label], nullable=False))
    if has_weight:
        fields.append(pa.field(WEIGHT, pa.float64(), nullable=False))
    return pa.schema(fields)


def n_blocks(n_rows: int, rows_per_block: int) -> int:
    """Return into how many blocks `n_rows` are cut, so that one holds about `rows_per_block`."""
    return max(1, -(-n_rows // rows_per_block))


def block_of(tags: pa.Array | pa.ChunkedArray, blocks: int) -> np.ndarray:
    """Return the number of the block that each tag belongs to, in the order of tags."""
    return shards_of(tag_array(tags), blocks)


def split_of(is_test: npt.NDArray[np.bool_]) -> pa.Array:
    """Return ``train`` or ``test`` for each row."""
    return pc.if_else(pa.array(is_test), pa.scalar(TEST), pa.scalar(TRAIN))


def tag_array(tags: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return tags as a ``uint8`` array of shape ``(n, 16)``."""
    return BY_TAG.rows(tags)


def write_block(folder: str, number: int, table: pa.Table, schema: pa.Schema, *, is_ordered: bool = False) -> FileEntry:
    """Write one block, by default sorted by its key, into `folder`; safe to repeat.

    Parameters
    ----------
    table
        The block's rows, with every column of `schema` (see `block_schema`); cast to its types.
    is_ordered
        Whether the rows are in their order already, and stay in it.

    Returns
    -------
    FileEntry
        What was written.
    """
    name = f"block-{number:05d}.parquet"
    rows = table.select(schema.names).cast(schema)
    sink = pa.BufferOutputStream()
    pq.write_table(rows if is_ordered else rows.sort_by(schema.names[0]), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_atomically(f"{folder}/{name}", content)
    return FileEntry(name, len(content), hashlib.sha256(content).hexdigest())


def publish_blocks(
    storage: RunStorage,
    attempt: int,
    *,
    features: Mapping[str, FeatureType],
    details: Mapping[str, Feature] | None = None,
    label: LabelKind | None = None,
    classes: Sequence[str] = (),
    has_weight: bool = False,
    further_labels: Sequence[str] = (),
    learnt: Sequence[str] = (),
    unit: Unit = Unit.PERSON,
    task: str = TASK,
    key: OrderKey = BY_TAG,
    written: Sequence[FileEntry] = (),
    order: tuple[int, str] | None = None,
) -> Blocks:
    """Publish the blocks that were written into the attempt's folder.

    Parameters
    ----------
    features, label, has_weight, key
        As `block_schema` was given them.
    details
        Feature → its declaration, of those that say more than their type.
    classes
        The texts of the label's classes, if it has such.
    further_labels
        Which of the features are no features but further labels.
    learnt
        The partitions that are new.
    unit
        What units are.
    task
        The task that made them.
    written, order
        What `write_block` and `order_digest` have said, so that nothing is read again.
    """
    rows, row_order = order or order_digest(storage.attempt(task, attempt), key)
    facts = {
        "features": {name: kind.value for name, kind in features.items()},
        "details": {name: declared.said for name, declared in (details or {}).items()},
        "has_label": label is not None,
        "label": label.value if label else None,
        "classes": list(classes),
        "further_labels": list(further_labels),
        "has_weight": has_weight,
        "row_order": row_order,
        "learnt": list(learnt),
        "unit": unit.value,
        "key": to_plain(key),
        "own": OWN,
    }
    return Blocks(storage.publish(task, attempt, rows=rows, facts=facts, written=written))


def order_digest(folder: str, key: OrderKey = BY_TAG) -> tuple[int, str]:
    """Return the number of rows of the blocks in `folder`, and the SHA-256 (hex) over their keys in row order."""
    fs, path = filesystem(folder)
    hasher = hashlib.sha256()
    rows = 0
    for name in sorted(fs.glob(f"{path}/block-*.parquet")):
        with fs.open(name, "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=[key.column]):
                hasher.update(key.rows(batch.column(key.column)).tobytes())
                rows += batch.num_rows
    return rows, hasher.hexdigest()


def write_blocks(
    storage: RunStorage,
    attempt: int,
    table: pa.Table,
    features: Mapping[str, FeatureType],
    *,
    details: Mapping[str, Feature] | None = None,
    label: LabelKind = LabelKind.BINARY,
    classes: Sequence[str] = (),
    further_labels: Sequence[str] = (),
    seed: int = 0,
    test_fraction: float = 0.25,
    rows_per_block: int = 100_000,
    task: str = TASK,
    key: OrderKey = BY_TAG,
) -> Blocks:
    """Write and publish a table that fits into memory.

    Parameters
    ----------
    table
        Columns of the key and the features, and at the leader `LABEL` as `label` says and maybe `WEIGHT`; any row
        order. Without a column of units, each row's follows from its key.
    features
        Column → type, in the order that models see them.
    details
        As for `publish_blocks`.
    label, classes
        What kind of label it is, if there is one, and the texts of its classes.
    further_labels
        Which of the features are no features but further labels.
    seed, test_fraction
        Which rows are held out: see `fedtasks.data.held_out.is_held_out`.
    rows_per_block
        About how many rows one file holds.
    task
        The task that makes them.
    key
        By what rows are ordered.
    """
    kind = label if LABEL in table.column_names else None
    has_weight = WEIGHT in table.column_names
    schema = block_schema(features, label=kind, has_weight=has_weight, key=key)
    folder = storage.attempt(task, attempt)
    if UNIT not in table.column_names:
        table = table.append_column(UNIT, units_of_keys(key.rows(table.column(key.column))))
    is_test = is_held_out(table.column(UNIT).to_numpy(), seed=seed, test_fraction=test_fraction)
    table = table.append_column(SPLIT, split_of(is_test))
    count = n_blocks(table.num_rows, rows_per_block)
    if key == BY_TAG:
        numbers = block_of(table.column(TAG), count)
    else:
        table = table.sort_by(key.column)
        numbers = np.arange(table.num_rows) * count // max(1, table.num_rows)
    written = [
        write_block(folder, int(number), table.filter(pa.array(numbers == number)), schema)
        for number in np.unique(numbers)
    ]
    return publish_blocks(
        storage,
        attempt,
        features=features,
        details=details,
        label=kind,
        classes=classes if kind is not None else (),
        further_labels=further_labels,
        has_weight=has_weight,
        task=task,
        key=key,
        written=written,
    )


class Blocks:
    """The aligned rows of a run, as the task that made them published them.

    Parameters
    ----------
    manifest
        What that task published; see `open`.

    Attributes
    ----------
    features
        Column → type, in the order that models see them.
    details
        Feature → its declaration, of those that say more than their type.
    has_label, label, classes
        Whether there is a label, of which kind, and the texts of its classes: label ``i`` is ``classes[i]``.
    further_labels
        Columns of numbers that models may predict beside the label, and that no model sees as a feature.
    has_weight
        Whether rows have weights.
    key
        By what rows are ordered.
    order_digest
        SHA-256 (hex) over the keys in row order.
    learnt
        The partitions that were new.
    unit
        What units are; None where rows do not say of which unit they are.
    n_rows
        How many rows there are.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        try:
            self.features: Mapping[str, FeatureType] = {
                name: FeatureType(kind) for name, kind in manifest.facts["features"].items()
            }
            # Before there were such features, a manifest told of none.
            self.details: Mapping[str, Feature] = {
                name: build(Feature, declared) for name, declared in manifest.facts.get("details", {}).items()
            }
            self.has_label = bool(manifest.facts["has_label"])
            # Before there were other kinds, a manifest told of none.
            kind = manifest.facts.get("label", LabelKind.BINARY.value)
            self.label: LabelKind | None = LabelKind(kind) if self.has_label else None
            self.classes: tuple[str, ...] = tuple(manifest.facts.get("classes", ()))
            self.further_labels: tuple[str, ...] = tuple(manifest.facts.get("further_labels", ()))
            self._columns = self.features
            self.features = {name: kind for name, kind in self._columns.items() if name not in self.further_labels}
            self.has_weight = bool(manifest.facts.get("has_weight", False))
            # Before its own columns stood apart, the product called them by plain names.
            self._plain_names = {} if manifest.facts.get("own") == OWN else _PLAIN_NAMES
            # Before rows could be ordered by anything else, a manifest told of no key.
            key = build(OrderKey, manifest.facts.get("key", {}))
            self.key = BY_TAG if self._plain_names.get(TAG) == key.column else key
            self.order_digest = str(manifest.facts["row_order"])
            self.learnt: tuple[str, ...] = tuple(manifest.facts.get("learnt", ()))
            unit = manifest.facts.get("unit")
            self.unit = Unit(unit) if unit else None
        except (ConfigError, KeyError, ValueError):
            raise DataCorrupt("the manifest does not describe blocks", where=manifest.uri) from None
        self.n_rows = manifest.rows

    @classmethod
    def open(cls, storage: RunStorage, task: str = TASK) -> Blocks:
        """Open the blocks of a run and verify every file.

        Parameters
        ----------
        storage
            The run's files.
        task
            The task that made the blocks.

        Raises
        ------
        DataMissing
            That task has not published.
        DataCorrupt
            A file does not match the manifest.
        """
        manifest = storage.published(task)
        manifest.verify()
        return cls(manifest)

    def only(self, numbers: Sequence[int]) -> Blocks:
        """Return some of the blocks by themselves, as if there were no others; the order's digest is that of all.

        Notes
        -----
        Cost: opens each of these files.
        """
        files = tuple(self._manifest.files[number] for number in numbers)
        return Blocks(replace(self._manifest, files=files, rows=sum(map(self._rows_of, files))))

    def _rows_of(self, entry: FileEntry) -> int:
        fs, path = filesystem(self._manifest.path(entry.name))
        with fs.open(path, "rb") as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """Columns of every block."""
        return block_schema(
            self._columns,
            label=self.label,
            has_weight=self.has_weight,
            has_units=self.unit is not None,
            key=self.key,
        )

    @property
    def n_blocks(self) -> int:
        """How many files there are."""
        return len(self._manifest.files)

    def table(self, split: str | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows, or those of one split, in row order, by default with all their columns."""
        return pa.Table.from_batches(self._filtered(_READ_ROWS, split, columns), self._schema_of(columns))

    def block(self, number: int, split: str | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one block, or those of one split of it, in row order.

        Parameters
        ----------
        number
            From 0 to `n_blocks` - 1: the place of its file, since a block without any row has none.
        split, columns
            As for `table`.
        """
        batches = self._of_file(self._manifest.files[number], _READ_ROWS, split, columns)
        return pa.Table.from_batches(batches, self._schema_of(columns))

    def rows_per_block(self, split: str) -> tuple[int, ...]:
        """Return how many rows of a split each block has.

        Notes
        -----
        Cost: reads one column, a block at a time.
        """
        return tuple(self.block(number, split, columns=[SPLIT]).num_rows for number in range(self.n_blocks))

    def batches(
        self, rows: int, split: str | None = None, *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, `rows` at a time (the last batch may be shorter), by default all their columns.

        Notes
        -----
        Cost: holds about two batches in memory.
        """
        waiting: list[pa.RecordBatch] = []
        held = 0
        for batch in self._filtered(rows, split, columns):
            waiting.append(batch)
            held += batch.num_rows
            if held >= rows:
                joined = pa.concat_batches(waiting)
                yield joined.slice(0, rows)
                rest = joined.slice(rows)
                waiting, held = [rest], rest.num_rows
        if held:
            yield pa.concat_batches(waiting)

    def _schema_of(self, columns: Sequence[str] | None) -> pa.Schema:
        return self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])

    def _filtered(self, rows: int, split: str | None, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        if split not in (None, TRAIN, TEST):
            raise ConfigError(f"`{split}` is not one of: {TRAIN}, {TEST}", field="split")
        for entry in self._manifest.files:
            yield from self._of_file(entry, rows, split, columns)

    def _of_file(
        self, entry: FileEntry, rows: int, split: str | None, columns: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        schema = self._schema_of(columns)
        wanted = schema.names if split is None else list(dict.fromkeys([*schema.names, SPLIT]))
        read = [self._plain_names.get(name, name) for name in wanted]
        fs, path = filesystem(self._manifest.path(entry.name))
        with fs.open(path, "rb") as file:
            for found in pq.ParquetFile(file).iter_batches(batch_size=rows, columns=read):
                batch = pa.RecordBatch.from_arrays(list(map(found.column, read)), wanted)
                chosen = batch if split is None else batch.filter(pc.equal(batch.column(SPLIT), split))
                yield pa.RecordBatch.from_arrays([chosen.column(name) for name in schema.names], schema=schema)
