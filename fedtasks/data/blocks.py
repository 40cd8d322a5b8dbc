"""Aligned rows: Parquet files that both sides hold with the same ids in the same order.

A block is the rows whose tags lie in one equal part of the tag space. Tags are uniform, so blocks are of about equal
size, both sides cut them alike without talking, and blocks in order of their number are rows in order of their tag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.storage import Manifest, RunStorage, filesystem, write_atomically
from fedtasks.data.tables import LABEL_TYPES
from fedtasks.errors import ConfigError, DataCorrupt

TASK = "align"
TAG_BYTES = 16
TAG, SPLIT, LABEL, WEIGHT = "tag", "split", "label", "weight"
TRAIN, TEST = "train", "test"

_ARROW = {FeatureType.NUMERIC: pa.float64(), FeatureType.CATEGORICAL: pa.string()}


def block_schema(
    features: Mapping[str, FeatureType], *, label: LabelKind | None = None, has_weight: bool = False
) -> pa.Schema:
    """Return the columns of a block: tag, split, the features as declared, and label and weight at the leader.

    Parameters
    ----------
    features
        Column → type.
    label
        What kind of label there is: 0 or 1 (``int8``), the place among the classes (``int16``), or a number
        (``float64``); None without one.
    has_weight
        Whether rows have weights (``float64``). Only then no feature can be called so.

    Raises
    ------
    ConfigError
        A feature has a name that blocks need for themselves.
    """
    for name in (TAG, SPLIT, LABEL, *([WEIGHT] if has_weight else [])):
        if name in features:
            raise ConfigError(f"a feature cannot be called `{name}`; rename the column", field="features")
    fields = [pa.field(TAG, pa.binary(TAG_BYTES), nullable=False), pa.field(SPLIT, pa.string(), nullable=False)]
    fields += [pa.field(name, _ARROW[kind]) for name, kind in features.items()]
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
    heads = tag_array(tags)[:, :4].copy().view(">u4").ravel().astype(np.uint64)
    return ((heads * np.uint64(blocks)) >> np.uint64(32)).astype(np.int32)


def split_of(tags: pa.Array | pa.ChunkedArray, *, seed: int, test_fraction: float) -> pa.Array:
    """Return ``train`` or ``test`` for each tag: a hash of the tag decides, so both sides agree without talking."""
    prefix = b"fedtasks-split" + seed.to_bytes(8, "big", signed=True)
    bound = int(test_fraction * 2**64)
    is_test = [
        int.from_bytes(hashlib.sha256(prefix + tag.tobytes()).digest()[:8], "big") < bound for tag in tag_array(tags)
    ]
    return pc.if_else(pa.array(is_test, pa.bool_()), pa.scalar(TEST), pa.scalar(TRAIN))


def tag_array(tags: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return tags as a ``uint8`` array of shape ``(n, 16)``."""
    column = tags.combine_chunks() if isinstance(tags, pa.ChunkedArray) else tags
    column = column.cast(pa.binary(TAG_BYTES))
    if column.null_count:
        raise DataCorrupt("a row has no tag")
    start = column.offset * TAG_BYTES
    raw = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)
    return raw[start : start + len(column) * TAG_BYTES].reshape(-1, TAG_BYTES)


def write_block(folder: str, number: int, table: pa.Table, schema: pa.Schema) -> str:
    """Write one block, sorted by tag, into `folder`; safe to repeat.

    Parameters
    ----------
    table
        The block's rows, with every column of `schema` (see `block_schema`); cast to its types.

    Returns
    -------
    str
        The file's name.
    """
    name = f"block-{number:05d}.parquet"
    ordered = table.select(schema.names).cast(schema).sort_by(TAG)
    sink = pa.BufferOutputStream()
    pq.write_table(ordered, sink, compression="zstd")
    write_atomically(f"{folder}/{name}", sink.getvalue().to_pybytes())
    return name


def publish_blocks(
    storage: RunStorage,
    attempt: int,
    *,
    features: Mapping[str, FeatureType],
    label: LabelKind | None = None,
    classes: Sequence[str] = (),
    has_weight: bool = False,
    learnt: Sequence[str] = (),
) -> Blocks:
    """Publish the blocks that were written into the attempt's folder.

    Parameters
    ----------
    features, label, has_weight
        As `block_schema` was given them.
    classes
        The texts of the label's classes, if it has such.
    learnt
        The partitions that are new.
    """
    folder = storage.attempt(TASK, attempt)
    rows, order = order_digest(folder)
    facts = {
        "features": {name: kind.value for name, kind in features.items()},
        "has_label": label is not None,
        "label": label.value if label else None,
        "classes": list(classes),
        "has_weight": has_weight,
        "row_order": order,
        "learnt": list(learnt),
    }
    return Blocks(storage.publish(TASK, attempt, rows=rows, facts=facts))


def order_digest(folder: str) -> tuple[int, str]:
    """Return the number of rows of the blocks in `folder`, and the SHA-256 (hex) over their tags in row order."""
    fs, path = filesystem(folder)
    hasher = hashlib.sha256()
    rows = 0
    for name in sorted(fs.glob(f"{path}/block-*.parquet")):
        with fs.open(name, "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=[TAG]):
                hasher.update(tag_array(batch.column(TAG)).tobytes())
                rows += batch.num_rows
    return rows, hasher.hexdigest()


def write_blocks(
    storage: RunStorage,
    attempt: int,
    table: pa.Table,
    features: Mapping[str, FeatureType],
    *,
    label: LabelKind = LabelKind.BINARY,
    classes: Sequence[str] = (),
    seed: int = 0,
    test_fraction: float = 0.25,
    rows_per_block: int = 100_000,
) -> Blocks:
    """Write and publish a table that fits into memory.

    Parameters
    ----------
    table
        Columns ``tag`` and the features, and at the leader ``label`` as `label` says and maybe ``weight``, unless a
        feature is called so; any row order.
    features
        Column → type, in the order that models see them.
    label, classes
        What kind of label it is, if there is one, and the texts of its classes.
    seed, test_fraction
        See `split_of`.
    rows_per_block
        About how many rows one file holds.
    """
    kind = label if LABEL in table.column_names else None
    has_weight = WEIGHT in table.column_names and WEIGHT not in features
    schema = block_schema(features, label=kind, has_weight=has_weight)
    folder = storage.attempt(TASK, attempt)
    split = split_of(table.column(TAG), seed=seed, test_fraction=test_fraction)
    table = table.append_column(SPLIT, split)
    count = n_blocks(table.num_rows, rows_per_block)
    numbers = block_of(table.column(TAG), count)
    for number in np.unique(numbers):
        write_block(folder, int(number), table.filter(pa.array(numbers == number)), schema)
    classes = classes if kind is not None else ()
    return publish_blocks(storage, attempt, features=features, label=kind, classes=classes, has_weight=has_weight)


class Blocks:
    """The aligned rows of a run, as task `align` published them.

    Parameters
    ----------
    manifest
        What `align` published; see `open`.

    Attributes
    ----------
    features
        Column → type, in the order that models see them.
    has_label, label, classes
        Whether there is a label, of which kind, and the texts of its classes: label ``i`` is ``classes[i]``.
    has_weight
        Whether rows have weights.
    order_digest
        SHA-256 (hex) over the tags in row order.
    learnt
        The partitions that were new.
    n_rows
        How many rows there are.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        try:
            self.features: Mapping[str, FeatureType] = {
                name: FeatureType(kind) for name, kind in manifest.facts["features"].items()
            }
            self.has_label = bool(manifest.facts["has_label"])
            # Before there were other kinds, a manifest told of none.
            kind = manifest.facts.get("label", LabelKind.BINARY.value)
            self.label: LabelKind | None = LabelKind(kind) if self.has_label else None
            self.classes: tuple[str, ...] = tuple(manifest.facts.get("classes", ()))
            self.has_weight = bool(manifest.facts.get("has_weight", False))
            self.order_digest = str(manifest.facts["row_order"])
            self.learnt: tuple[str, ...] = tuple(manifest.facts.get("learnt", ()))
        except (KeyError, ValueError):
            raise DataCorrupt("the manifest does not describe blocks", where=manifest.uri) from None
        self.n_rows = manifest.rows

    @classmethod
    def open(cls, storage: RunStorage, task: str = TASK) -> Blocks:
        """Open the blocks of a run and verify every file.

        Raises
        ------
        DataMissing
            Task `align` has not published.
        DataCorrupt
            A file does not match the manifest.
        """
        manifest = storage.published(task)
        manifest.verify()
        return cls(manifest)

    @property
    def schema(self) -> pa.Schema:
        """Columns of every block."""
        return block_schema(self.features, label=self.label, has_weight=self.has_weight)

    def table(self, split: str | None = None) -> pa.Table:
        """Return all rows, or those of one split, in row order."""
        return pa.Table.from_batches(self._filtered(100_000, split), self.schema)

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

    def _filtered(self, rows: int, split: str | None, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        if split not in (None, TRAIN, TEST):
            raise ConfigError(f"`{split}` is not one of: {TRAIN}, {TEST}", field="split")
        kept = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in kept])
        read = kept if split is None else list(dict.fromkeys([*kept, SPLIT]))
        for entry in self._manifest.files:
            fs, path = filesystem(self._manifest.path(entry.name))
            with fs.open(path, "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=rows, columns=read):
                    chosen = batch if split is None else batch.filter(pc.equal(batch.column(SPLIT), split))
                    yield pa.RecordBatch.from_arrays([chosen.column(name) for name in kept], schema=schema)
