"""The train rows of a party: a table in memory, or blocks that are read when their turn comes."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType
from fedtasks.data.blocks import LABEL, TRAIN, WEIGHT, Blocks
from fedtasks.digests import digest
from fedtasks.errors import ConfigError
from fedtasks.models.split_nn.batches import validation_rows
from fedtasks.models.split_nn.encoder import Encoder, counts_of_ids
from fedtasks.models.split_nn.rows import RowsInOrder, TrainRows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.streamed import Encode, EncodedBlocks, StreamedInOrder, StreamedRows


@dataclass(frozen=True)
class Split:
    """Train rows, encoded.

    Parameters
    ----------
    trained
        Those that weights are trained on.
    validation
        The others, of which there may be none; None where all are trained on.
    """

    trained: TrainRows
    validation: RowsInOrder | None = None


class TrainData(abc.ABC):
    """The train rows of a party.

    Attributes
    ----------
    n_rows
        How many there are, at both sides.
    facts
        What both sides must agree on of how they are read.
    """

    n_rows: int
    facts: Mapping[str, str]

    @abc.abstractmethod
    def fit(self) -> Encoder:
        """Return an encoder that is fitted on them: see `Encoder.fit`."""

    @abc.abstractmethod
    def labels(self) -> pa.Table:
        """Return labels and weight of all rows; may be asked for before `split`, not after.

        Notes
        -----
        Cost: some bytes a row.
        """

    @abc.abstractmethod
    def first(self, n_rows: int) -> pa.Table:
        """Return at most so many of the first rows; `split` may come after, not before.

        Tags are in no order that says anything of people, so these are as good as any.
        """

    @abc.abstractmethod
    def split(self, encode: Encode, settings: TrainSettings) -> AbstractContextManager[Split]:
        """Encode them; there may be a file that is closed at the end."""


def share_of(blocks: Blocks, number: int, workers: int) -> Blocks:
    """Return the blocks of one of several workers: every so manieth, on both sides alike.

    Raises
    ------
    ConfigError
        There are fewer blocks than workers.
    """
    if blocks.n_blocks < workers:
        raise ConfigError(
            f"{workers} workers need a block each, and there are {blocks.n_blocks}: lower `rows_per_block` of the task "
            "that makes them, such as align, or name fewer",
            field="workers",
        )
    return blocks.only(range(number, blocks.n_blocks, workers))


def train_data(blocks: Blocks, settings: TrainSettings, alive: Callable[[], None]) -> TrainData:
    """Return the train rows of blocks: in memory if there are at most `shuffle_rows` of them.

    Parameters
    ----------
    alive
        Is told whenever a block was read.
    """
    if blocks.n_rows > settings.shuffle_rows:
        rows_per_block = blocks.rows_per_block(TRAIN)
        if sum(rows_per_block) > settings.shuffle_rows:
            return DataInBlocks(blocks, rows_per_block, settings.shuffle_rows, alive)
    return DataInMemory(blocks)


def data_of_worker(
    blocks: Blocks, settings: TrainSettings, number: int, alive: Callable[[], None]
) -> tuple[TrainData, TrainData]:
    """Return the train rows of one worker, and those of all, of which only `fit` and `labels` are of use then.

    Raises
    ------
    ConfigError
        There are fewer blocks than workers.
    """
    if settings.workers == 1:
        data = train_data(blocks, settings, alive)
        return data, data
    share = share_of(blocks, number, settings.workers)
    # Never in memory as a whole: each worker is to hold its own share alone.
    whole = DataInBlocks(blocks, blocks.rows_per_block(TRAIN), settings.shuffle_rows, alive)
    return train_data(share, settings, alive), whole


class DataInMemory(TrainData):
    """Train rows that are read and encoded once."""

    def __init__(self, blocks: Blocks) -> None:
        self._table, self._features, self._details = blocks.table(TRAIN), blocks.features, blocks.details
        self._label_columns = _label_columns(blocks)
        self.n_rows, self.facts = self._table.num_rows, {}

    def fit(self) -> Encoder:
        """See `TrainData.fit`."""
        return Encoder.fit(self._table, self._features, self._details)

    def labels(self) -> pa.Table:
        """See `TrainData.labels`."""
        return self._table.select(self._label_columns)

    def first(self, n_rows: int) -> pa.Table:
        """See `TrainData.first`."""
        return self._table.slice(0, n_rows)

    @contextmanager
    def split(self, encode: Encode, settings: TrainSettings) -> Iterator[Split]:
        """See `TrainData.split`."""
        rows, validates = encode(self._table), validation_rows(self.n_rows, settings)
        del self._table
        yield Split(rows.take(~validates), rows.take(validates)) if settings.early_stopping_epochs else Split(rows)


class DataInBlocks(TrainData):
    """Train rows that are read block by block in each epoch.

    Parameters
    ----------
    blocks
        Of the party.
    rows_per_block
        How many train rows each block has.
    sample_rows
        At most so many rows are in memory to fit an encoder on.
    alive
        Is told whenever a block was read.
    """

    def __init__(
        self, blocks: Blocks, rows_per_block: tuple[int, ...], sample_rows: int, alive: Callable[[], None]
    ) -> None:
        self._blocks, self._rows_per_block, self._alive = blocks, rows_per_block, alive
        self.n_rows = sum(rows_per_block)
        self._step = -(-self.n_rows // sample_rows)
        # The order of an epoch follows from it; whoever cuts the same rows otherwise would train on other pairs.
        self.facts = {"train rows per block": digest(rows_per_block)}

    def fit(self) -> Encoder:
        """See `TrainData.fit`: on rows at equal distances; values of categories and ids are counted in all rows.

        Notes
        -----
        Cost: reads all blocks once; the memory of a block and of the sample.
        """
        features, details = self._blocks.features, self._blocks.details
        counted = [
            name
            for name, kind in features.items()
            if kind in (FeatureType.CATEGORICAL, FeatureType.SEQUENCE)
            and not (name in details and details[name].hash_buckets)
        ]
        sample, counts, start = [], Counts(), 0
        for number, n_rows in enumerate(self._rows_per_block):
            table = self._blocks.block(number, TRAIN, columns=list(features))
            sample.append(table.take(pa.array(np.arange(-start % self._step, n_rows, self._step))))
            for name in counted:
                if features[name] is FeatureType.SEQUENCE:
                    counts.merge(name, counts_of_ids(table, name))
                else:
                    counts.add(name, table[name])
            start += n_rows
            self._alive()
        encoder = Encoder.fit(pa.concat_tables(sample), features, details)
        return encoder.counted(counts.of_columns, self.n_rows)

    def labels(self) -> pa.Table:
        """See `TrainData.labels`."""
        found = []
        for number in range(self._blocks.n_blocks):
            found.append(self._blocks.block(number, TRAIN, columns=_label_columns(self._blocks)))
            self._alive()
        return pa.concat_tables(found)

    def first(self, n_rows: int) -> pa.Table:
        """See `TrainData.first`; those of the first block."""
        return self._blocks.block(0, TRAIN, columns=list(self._blocks.features)).slice(0, n_rows)

    @contextmanager
    def split(self, encode: Encode, settings: TrainSettings) -> Iterator[Split]:
        """See `TrainData.split`."""
        validates = validation_rows(self.n_rows, settings)
        blocks = EncodedBlocks(self._blocks, self._rows_per_block, encode, validates, self._alive)
        try:
            validation = StreamedInOrder(blocks, int(validates.sum())) if settings.early_stopping_epochs else None
            yield Split(StreamedRows(blocks), validation)
        finally:
            blocks.close()


def _label_columns(blocks: Blocks) -> list[str]:
    return [name for name in (LABEL, *blocks.further_labels, WEIGHT) if name in blocks.schema.names]


class Counts:
    """How many rows have each value of a column, of parts that are counted one after the other.

    Attributes
    ----------
    of_columns
        Column → a table of ``value`` and ``count``; missing values are not among them.
    """

    def __init__(self) -> None:
        self.of_columns: dict[str, pa.Table] = {}

    def add(self, name: str, values: pa.ChunkedArray) -> None:
        """Count the values of a part of a column."""
        found = pc.value_counts(values.drop_null())
        self.merge(name, pa.table({"value": found.field("values"), "count": found.field("counts")}))

    def merge(self, name: str, table: pa.Table) -> None:
        """Take in what a part of a column was counted to."""
        if name in self.of_columns:
            joined = pa.concat_tables([self.of_columns[name], table]).group_by("value").aggregate([("count", "sum")])
            table = pa.table({"value": joined["value"], "count": joined["count_sum"]})
        self.of_columns[name] = table
