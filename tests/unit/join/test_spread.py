"""Reading that the workers of several shards share gives each what it would read alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from fedtasks.config import Dataset, FeatureType
from fedtasks.data.growing import Piece, open_stream
from fedtasks.data.storage import local_path
from fedtasks.join import spread
from fedtasks.join.settings import JoinSettings, Match
from fedtasks.join.spread import Files, SpreadUnits
from fedtasks.join.units import Columns, DirectUnits, Source, Unit, Units
from tests.support.join_case import dataset_of
from tests.support.join_logs import NO_ID, Shape, generate, write_log

SHARDS = 3
SECRET = bytes(32)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedtasks.join.units.UNIT", 64)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    log, _ = generate(Shape(2000, rate=5, disorder_s=20, duplicates=0.05, broken=0.05, seed=4))
    dataset = dataset_of(tmp_path / "log", "leader", features={"leader_row": FeatureType.NUMERIC})
    number = write_log(log, tmp_path / "log", is_leader=True, rows_per_file=150)
    of_rejects = replace(log.part(0, 3), key=np.full(3, NO_ID))
    write_log(of_rejects, tmp_path / "log", is_leader=True, number=number)
    return dataset


class Counting:
    """A source that counts how often each piece is read."""

    def __init__(self, source: Source) -> None:
        self._source, self.read_pieces = source, list[int]()

    def look(self) -> Sequence[Piece]:
        return self._source.look()

    def read(self, piece: Piece, *more: object) -> Iterator[object]:
        self.read_pieces.append(piece.number)
        return self._source.read(piece, *more)  # type: ignore[arg-type, return-value]


Plain: TypeAlias = tuple[int, int, int, int, list[list[Any]], list[Any]]


def read_all(units: Units, since: tuple[int, int] = (0, 0), newest_ms: int = -(2**62)) -> list[Plain]:
    """Return all that can be read from a row of a piece on, before which a time was the newest."""
    found: list[Plain] = []
    for piece in units.look():
        if piece.number >= since[0]:
            row = since[1] if piece.number == since[0] else 0
            found += [plain(piece, unit, newest_ms) for unit in units.units(piece, row)]
    return found


def plain(piece: Piece, unit: Unit, newest_ms: int) -> Plain:
    rows, before_ms = unit.rows, np.maximum(unit.before_ms, newest_ms)
    columns = [array.tolist() for array in (rows.hi, rows.lo, rows.times, rows.places, before_ms, rows.keys)]
    newest = max(unit.newest_ms, newest_ms)
    return (piece.number, unit.end, newest, unit.rejected, columns, rows.payload.to_pylist())


class World:
    """The workers of all shards, each with a source of its own."""

    def __init__(self, dataset: Dataset, folder: Path, match: Match = Match.ID) -> None:
        settings = JoinSettings(shards=SHARDS, match=match)
        self.columns, self.folder = Columns(dataset, settings, SECRET), folder
        self.files = Files(f"file://{folder}/spread", SHARDS)
        self.sources = [Counting(open_stream(dataset, f"file://{folder}/pieces-{shard}")) for shard in range(SHARDS)]

    def direct(self, shard: int) -> DirectUnits:
        return DirectUnits(self.columns, self.sources[shard], shard)

    def shared(self, shard: int) -> SpreadUnits:
        return SpreadUnits(self.columns, self.sources[shard], self.files, shard, self.folder)


@pytest.mark.parametrize("match", [Match.ID, Match.LAST])
def test_shared_reading_of_several_workers_at_once_gives_each_its_rows_and_reads_pieces_once(
    dataset: Dataset, tmp_path: Path, match: Match
) -> None:
    world = World(dataset, tmp_path, match)
    expected = [read_all(world.direct(shard)) for shard in range(SHARDS)]
    assert sum(len(unit[4][0]) for units in expected for unit in units) > 1500
    for source in world.sources:
        source.read_pieces.clear()
    workers = [world.shared(shard) for shard in range(SHARDS)]
    with ThreadPoolExecutor(SHARDS) as pool:
        assert list(pool.map(read_all, workers)) == expected
    n_pieces = len(world.sources[0].look())
    assert sorted(number for source in world.sources for number in source.read_pieces) == list(range(n_pieces))


def test_shared_reading_of_a_worker_alone_waits_for_nobody(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(dataset, tmp_path)
    monkeypatch.setattr(spread, "PATIENCE_S", 1e6)
    assert read_all(world.shared(1)) == read_all(world.direct(1))


def test_shared_reading_beside_a_worker_that_does_not_come_goes_on_after_a_while(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(dataset, tmp_path)
    monkeypatch.setattr(spread, "PATIENCE_S", 0.01)
    world.shared(0)
    world.shared(2)
    assert read_all(world.shared(1)) == read_all(world.direct(1))


def test_shared_reading_from_the_middle_of_a_piece_gives_what_follows(dataset: Dataset, tmp_path: Path) -> None:
    world = World(dataset, tmp_path)
    before = next(each for each in read_all(world.direct(0)) if each[:2] == (3, 128))
    # What was newest before is known to whoever goes on from there.
    shared, direct = (read_all(units, (3, 128), before[2]) for units in (world.shared(0), world.direct(0)))
    assert shared == direct
    assert shared[0][:2] == (3, 150)


def test_shared_reading_of_pieces_that_were_forgotten_cuts_them_again(dataset: Dataset, tmp_path: Path) -> None:
    world = World(dataset, tmp_path)
    units = world.shared(2)
    expected = read_all(units)
    units.forget(4)
    kept = sorted(os.listdir(local_path(world.files.of(2, 0)).parent))
    assert kept[0] == "piece-00000004.arrow"
    assert read_all(units) == expected
