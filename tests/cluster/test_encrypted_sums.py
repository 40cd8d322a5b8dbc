"""Sums by Spark against sums by threads: the same for the same rows, and nothing stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.config import Spark
from fedtasks.data.storage import local_path
from fedtasks.encrypted import histograms as sums_by_threads
from fedtasks.encrypted import spark as sums_by_spark
from fedtasks.encrypted.bins import Binner
from fedtasks.encrypted.cipher import PaillierOwner, PaillierSums, SumCipher
from fedtasks.encrypted.histograms import BinnedRows, LocalHistograms, Scratch
from fedtasks.encrypted.spark import SparkHistograms
from fedtasks.engines.spark import SparkEngine
from fedtasks.engines.spark_session import spark_session
from fedtasks.errors import DataCorrupt, ProtocolViolated
from tests.unit.models.secureboost.boosting import NullOwner, NullSums, Rows

pytestmark = pytest.mark.cluster

BLOCK_ROWS, N_ROWS, KEY_BITS = 64, 300, 2048


@dataclass(frozen=True)
class Keys:
    """A cipher, and ciphertexts of as many rows as wanted."""

    cipher: SumCipher
    encrypt: Callable[[int], np.ndarray]

    def plain(self, sums: np.ndarray) -> np.ndarray:
        """Return sums as on the wire: there a sum has one form."""
        worker = self.cipher.maker()()
        return worker.leave(worker.enter(self.cipher.leave(sums.reshape(-1, sums.shape[-1]))))


@dataclass
class Case:
    """Binned rows of a follower, and both kinds of sums over them."""

    rows: BinnedRows
    keys: Keys
    local: LocalHistograms
    spark: SparkHistograms
    folder: Path

    def begin(self, rng: np.random.Generator, share: float, columns: list[int]) -> np.ndarray:
        """Begin a tree at both with the same rows; return which."""
        bag = np.flatnonzero(rng.random(N_ROWS) < share)
        ciphertexts = self.keys.encrypt(len(bag))
        for sums in (self.local, self.spark):
            sums.begin(bag, columns)
            # Neither the messages' ends nor their number are those of blocks.
            for piece in np.array_split(ciphertexts, 7):
                sums.add(piece)
        return bag

    def assert_equal(self, slots: np.ndarray, n_slots: int) -> None:
        ours, theirs = self.spark.of(slots, n_slots), self.local.of(slots, n_slots)
        assert ours.shape == theirs.shape
        np.testing.assert_array_equal(self.keys.plain(ours), self.keys.plain(theirs))

    def files(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    with spark_session(Spark("local[2]", "512m"), "sums", f"file://{tmp_path_factory.mktemp('spark')}") as session:
        yield SparkEngine(session)


@pytest.fixture(scope="module")
def paillier() -> Iterator[Keys]:
    owner = PaillierOwner(N_ROWS, KEY_BITS)
    modulus = int.from_bytes(owner.key().modulus, "big")

    def encrypt(n_rows: int) -> np.ndarray:
        return owner.encrypt(np.arange(n_rows) * 7 - 500, np.arange(n_rows))

    yield Keys(PaillierSums(modulus, N_ROWS), encrypt)
    owner.close()


@pytest.fixture(params=["null", "paillier"])
def keys(request: pytest.FixtureRequest) -> Keys:
    if request.param == "paillier":
        return request.getfixturevalue("paillier")  # type: ignore[no-any-return]
    rng = np.random.default_rng(1)
    return Keys(NullSums(), lambda n: NullOwner().encrypt(*rng.integers(-9, 99, (2, n))))


@pytest.fixture
def case(engine: SparkEngine, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    for module in (sums_by_threads, sums_by_spark):
        monkeypatch.setattr(module, "BLOCK_ROWS", BLOCK_ROWS)
    rng = np.random.default_rng(2)
    table = Rows(
        pa.table(
            {
                "income": pa.array(rng.normal(size=N_ROWS), mask=rng.random(N_ROWS) < 0.2),
                "visits": pa.array(np.where(rng.random(N_ROWS) < 0.7, 0.0, rng.integers(0, 9, N_ROWS))),
                "job": pa.array(rng.choice(["x", "y", "z"], N_ROWS)),
            }
        )
    )
    folder = tmp_path / "sums"
    with Scratch() as scratch:
        rows = BinnedRows.of(table, "train", Binner.fit(table, "train", 8), scratch)  # type: ignore[arg-type]
        candidates = rows.candidates()
        local = LocalHistograms(rows, candidates, keys.cipher, scratch)
        ours = SparkHistograms(engine, rows, candidates, keys.cipher, f"file://{folder}")
        yield Case(rows, keys, local, ours, folder)


def test_sums_equal_those_of_threads(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    # So few that the sums of a slot are in several rows of a frame.
    monkeypatch.setattr(sums_by_spark, "CHUNK_SUMS", 10)
    rng = np.random.default_rng(3)
    for share, columns in ((1.0, [0, 1, 2]), (0.4, [0, 2])):
        bag = case.begin(rng, share, columns)
        in_bag = np.isin(np.arange(N_ROWS), bag)
        for n_slots in (1, 3):
            slots = np.where(in_bag, rng.integers(-1, n_slots, N_ROWS), -1).astype(np.int32)
            case.assert_equal(slots, n_slots)


@pytest.mark.parametrize("keys", ["null"], indirect=True)
def test_sums_of_few_rows_equal_those_of_threads(case: Case) -> None:
    bag = case.begin(np.random.default_rng(4), 1.0, [0, 1, 2])
    for chosen in (bag[:0], bag[70:71], bag[130:200]):
        slots = np.full(N_ROWS, -1, dtype=np.int32)
        slots[chosen] = 1
        case.assert_equal(slots, 2)


@pytest.mark.parametrize("keys", ["null"], indirect=True)
def test_files_of_a_tree_go_when_the_next_begins_and_bins_are_written_once(case: Case) -> None:
    bag = case.begin(np.random.default_rng(5), 1.0, [0, 1, 2])
    bins = {f"bins-{number:05d}" for number in range(5)}
    assert case.files() == bins | {f"rows-{number:05d}" for number in range(5)}
    case.spark.of(np.zeros(N_ROWS, np.int32), 1)
    assert case.files() == bins | {f"rows-{number:05d}" for number in range(5)}
    written = {path: path.stat().st_mtime_ns for path in case.folder.glob("bins-*")}

    case.spark.begin(bag[:70], [0])
    assert case.files() == bins
    case.spark.add(case.keys.encrypt(70))

    assert case.files() == bins | {"rows-00000", "rows-00001"}
    assert {path: path.stat().st_mtime_ns for path in case.folder.glob("bins-*")} == written


@pytest.mark.parametrize("keys", ["null"], indirect=True)
def test_rows_of_one_block_alone_are_held_until_it_is_complete(case: Case) -> None:
    case.spark.begin(np.arange(BLOCK_ROWS + 1), [0])
    case.spark.add(case.keys.encrypt(BLOCK_ROWS - 1))
    assert case.files() == set()
    case.spark.add(case.keys.encrypt(1))
    assert case.files() == {"bins-00000", "rows-00000"}
    case.spark.add(case.keys.encrypt(1))
    assert case.files() == {f"{kind}-0000{number}" for kind in ("bins", "rows") for number in (0, 1)}


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("rows-00001", "changed", "has changed"),
        ("rows-00003", "cut", "has changed"),
        ("bins-00002", "gone", "is gone"),
    ],
)
@pytest.mark.parametrize("keys", ["null"], indirect=True)
def test_damaged_file_is_named(case: Case, name: str, damage: str, said: str) -> None:
    case.begin(np.random.default_rng(6), 1.0, [0, 1, 2])
    (file,) = case.folder.rglob(name)
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[-1] ^= 1
        file.write_bytes(content if damage == "changed" else content[:-8])

    with pytest.raises(DataCorrupt, match=said) as caught:
        case.spark.of(np.zeros(N_ROWS, np.int32), 1)

    assert local_path(caught.value.where) == file


@pytest.mark.parametrize("keys", ["paillier"], indirect=True)
def test_ciphertext_that_is_none_is_refused_as_by_threads(case: Case) -> None:
    strange = np.full((1, case.keys.cipher.width), 255, np.uint8)
    for sums in (case.local, case.spark):
        with pytest.raises(ProtocolViolated, match="not a number below the modulus"):  # noqa: PT012
            sums.begin(np.arange(1), [0])
            sums.add(strange)
            sums.of(np.zeros(N_ROWS, np.int32), 1)
