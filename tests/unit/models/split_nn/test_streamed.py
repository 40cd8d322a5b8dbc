"""Train rows that are read from blocks window by window, against the same rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.config import Feature, FeatureType
from fedtasks.data.blocks import LABEL, TAG, TRAIN, WEIGHT, Blocks, write_blocks
from fedtasks.data.columns import numbers_of
from fedtasks.data.run_storage import RunStorage
from fedtasks.errors import DataCorrupt, DiskFull
from fedtasks.models.split_nn import streamed
from fedtasks.models.split_nn.batches import validation_rows, windows
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.streamed import EncodedBlocks, StreamedInOrder, StreamedRows
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.train_data import Counts, DataInBlocks, train_data
from tests.support.halves import RUN
from tests.support.split_nn_case import FEATURES, write_party

SETTINGS = TrainSettings(batch_size=16, shuffle_rows=90, seed=4)
VALIDATES = TrainSettings(batch_size=16, shuffle_rows=90, validation_fraction=0.25, early_stopping_epochs=1)


def unheard() -> None:
    """Take the word that a block was read."""


def encode(table: pa.Table) -> Rows:
    """Return the ages, which tell rows apart, an id and nothing; labels of two outputs, and weights."""
    age = numbers_of(table, "age").astype(np.float32)
    features = {"age": age[:, np.newaxis], "id": np.arange(len(age), dtype=np.int32), "none": np.empty((len(age), 0))}
    label = table[LABEL].to_numpy().astype(np.float32)
    return Rows(features, Targets({"label": label, "twice": 2 * label[:, np.newaxis]}, table[WEIGHT].to_numpy()))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    weights = np.random.default_rng(1).random(400)
    return write_party(tmp_path_factory.mktemp("party"), "leader", n=400, weights=weights, rows_per_block=40)


Encoded = Callable[..., EncodedBlocks]


@pytest.fixture
def encoded(blocks: Blocks) -> Iterator[Encoded]:
    """Make encoded blocks, which are closed at the end."""
    with ExitStack() as made:

        def make(settings: TrainSettings = SETTINGS) -> EncodedBlocks:
            counts = blocks.rows_per_block(TRAIN)
            validates = validation_rows(sum(counts), settings)
            return made.enter_context(closing(EncodedBlocks(blocks, counts, encode, validates, unheard)))

        yield make


def assert_equal(found: Rows, expected: Rows) -> None:
    for one, other in zip([*found.arrays, found.places], [*expected.arrays, expected.places], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def expected_batches(blocks: Blocks, epoch: int, settings: TrainSettings) -> Iterator[Rows]:
    """Yield the batches of an epoch, from all rows in memory."""
    rows, counts = whole(blocks), blocks.rows_per_block(TRAIN)
    trained = ~validation_rows(sum(counts), settings)
    ends = np.cumsum(counts)
    of_block = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
    of_block = [numbers[trained[numbers]] for numbers in of_block]
    order = []
    for window in windows([len(numbers) for numbers in of_block], epoch, settings):
        order += np.concatenate([of_block[block] for block in window.blocks])[window.order()].tolist()
    for start in range(0, len(order), settings.batch_size):
        yield rows.take(np.array(order[start : start + settings.batch_size]))


def whole(blocks: Blocks) -> Rows:
    """Return all train rows; ids are counted anew in each block, as in what is read of one."""
    rows = encode(blocks.table(TRAIN))
    ids = [np.arange(count, dtype=np.int32) for count in blocks.rows_per_block(TRAIN)]
    return Rows({**rows.features, "id": np.concatenate(ids)}, rows.targets)


@pytest.mark.parametrize("settings", [SETTINGS, VALIDATES], ids=["all", "validation"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["file", "no room"])
def test_batches_from_blocks_are_those_of_the_same_order_in_memory(
    blocks: Blocks, encoded: Encoded, settings: TrainSettings, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_kept:
        monkeypatch.setattr(streamed, "allocate", no_room)
    source = encoded(settings)
    rows = StreamedRows(source)
    seen = []
    for epoch in (0, 1, 1):
        found, expected = list(rows.batches(epoch, settings)), list(expected_batches(blocks, epoch, settings))
        assert len(found) == len(expected) == -(-rows.n_rows // settings.batch_size)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
        seen = sorted(np.concatenate([each.places for each in found]).tolist())
    validates = validation_rows(sum(blocks.rows_per_block(TRAIN)), settings)
    assert seen == np.flatnonzero(~validates).tolist()


def no_room(place: Path, n_bytes: int) -> None:
    raise DiskFull("there is no room", where=str(place))


@pytest.mark.parametrize("first", [1, 7, 13, 100])
def test_batches_from_a_later_one_on_read_no_window_before_it(
    encoded: Encoded, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = encoded()
    rows = StreamedRows(source)
    expected = list(rows.batches(0, SETTINGS))[first:]
    read: list[Any] = []
    load = source.rows
    monkeypatch.setattr(
        source, "rows", lambda numbers, trained: [read.append(numbers), load(numbers, trained=trained)][1]
    )
    found = list(rows.batches(0, SETTINGS, first))
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
    of_windows, n_rows = [], 0
    for window in windows(source.n_trained, 0, SETTINGS):
        n_rows += window.n_rows
        if n_rows > first * SETTINGS.batch_size:
            of_windows.append(window.blocks)
    assert read == of_windows


def test_no_more_than_two_windows_are_read_before_they_are_needed(
    encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = encoded(), []
    load = source.rows
    monkeypatch.setattr(
        source, "rows", lambda numbers, trained: [read.append(numbers), load(numbers, trained=trained)][1]
    )
    all_windows = list(windows(source.n_trained, 0, SETTINGS))
    assert len(all_windows) > 3
    done = 0
    for batch in StreamedRows(source).batches(0, SETTINGS):
        done += batch.n_rows
        begun = sum(1 for end in np.cumsum([window.n_rows for window in all_windows]) if end < done) + 1
        assert len(read) <= begun + 1


@pytest.mark.parametrize("size", [7, 1000])
def test_validation_rows_come_in_their_order(blocks: Blocks, encoded: Encoded, size: int) -> None:
    source, rows = encoded(VALIDATES), whole(blocks)
    validates = validation_rows(rows.n_rows, VALIDATES)
    in_order = StreamedInOrder(source, int(validates.sum()))
    for _ in range(2):
        for one, other in zip(in_order.parts(size), rows.take(validates).parts(size), strict=True):
            assert_equal(one, other)


def test_block_that_cannot_be_read_ends_the_training_with_its_own_error(
    blocks: Blocks, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = encoded()

    def damaged(number: int, split: str) -> pa.Table:
        raise DataCorrupt("the block is damaged", where=f"block {number}")

    monkeypatch.setattr(blocks, "block", damaged)
    with pytest.raises(DataCorrupt, match="the block is damaged"):
        list(StreamedRows(source).batches(0, SETTINGS))


def test_rows_are_in_memory_if_they_fit_into_one_window(blocks: Blocks) -> None:
    n_rows = blocks.table(TRAIN).num_rows
    fits, more = (train_data(blocks, TrainSettings(shuffle_rows=each), unheard) for each in (n_rows, n_rows - 1))
    assert (fits.n_rows, more.n_rows) == (n_rows, n_rows)
    assert fits.facts == {} != more.facts
    for each in (fits, more):
        assert each.labels().equals(blocks.table(TRAIN, columns=[LABEL, WEIGHT]))
    with fits.split(encode, SETTINGS) as split:
        assert isinstance(split.trained, Rows)
    with more.split(encode, SETTINGS) as split:
        assert isinstance(split.trained, StreamedRows)
        assert split.validation is None


def test_encoder_of_rows_that_do_not_fit_is_fitted_on_a_sample_and_counts_all(blocks: Blocks) -> None:
    table, counts = blocks.table(TRAIN), blocks.rows_per_block(TRAIN)
    exact = Encoder.fit(table, blocks.features)
    assert DataInBlocks(blocks, counts, table.num_rows, unheard).fit() == exact
    found = DataInBlocks(blocks, counts, table.num_rows // 3, unheard).fit()
    every_fourth = table.take(pa.array(np.arange(0, table.num_rows, 4)))
    assert found.numeric == Encoder.fit(every_fourth, blocks.features).numeric != exact.numeric
    assert found.categorical == exact.categorical


def test_category_that_a_sample_lacks_has_a_place_if_it_is_frequent_in_all_rows(tmp_path: Path) -> None:
    blocks = write_party(tmp_path, "follower", n=300, rows_per_block=50)
    jobs = DataInBlocks(blocks, blocks.rows_per_block(TRAIN), 9, unheard).fit().categorical
    assert [(column.name, column.vocabulary, column.rare_share) for column in jobs] == [("job", ("x", "y", "z"), 0.0)]
    assert FEATURES["follower"]["job"] is FeatureType.CATEGORICAL


def test_category_that_is_hashed_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tags = pa.array([rng.bytes(16) for _ in range(90)], pa.binary(16))
    sites = pa.array([f"site {number}" for number in range(90)])
    blocks = write_blocks(
        RunStorage(f"file://{tmp_path}", RUN),
        1,
        pa.table({TAG: tags, "site": sites, "home": pa.array(["own", "rent"] * 45)}),
        {"site": FeatureType.CATEGORICAL, "home": FeatureType.CATEGORICAL},
        details={"site": Feature(FeatureType.CATEGORICAL, hash_buckets=8)},
        rows_per_block=30,
    )
    counted: list[str] = []
    add = Counts.add

    def noted(counts: Counts, name: str, values: pa.ChunkedArray) -> None:
        counted.append(name)
        add(counts, name, values)

    monkeypatch.setattr(Counts, "add", noted)
    found = DataInBlocks(blocks, blocks.rows_per_block(TRAIN), 20, unheard).fit().categorical
    assert [(column.name, column.hash_buckets, column.vocabulary) for column in found] == [
        ("site", 8, ()),
        ("home", None, ("own", "rent")),
    ]
    assert set(counted) == {"home"}


def test_ids_of_sequences_are_counted_in_all_rows_and_once_in_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tags = pa.array([rng.bytes(16) for _ in range(90)], pa.binary(16))
    seen = [["often", "often"] if number % 3 else ["one person's"] * (9 if number == 3 else 0) for number in range(90)]
    kinds, details = {"seen": FeatureType.SEQUENCE}, {"seen": Feature(FeatureType.SEQUENCE, length=2)}
    table = pa.table({TAG: tags, "seen": pa.array(seen, pa.list_(pa.string()))})
    blocks = write_blocks(
        RunStorage(f"file://{tmp_path}", RUN), 1, table, kinds, details=details, rows_per_block=30, test_fraction=0.1
    )
    few = DataInBlocks(blocks, blocks.rows_per_block(TRAIN), 7, unheard).fit()
    assert few.sequences[0].vocabulary == Encoder.fit(blocks.table(TRAIN), kinds, details).sequences[0].vocabulary
    assert few.sequences[0].vocabulary == ("often",)
