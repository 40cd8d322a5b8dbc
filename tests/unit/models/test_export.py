"""Predictions beside ids, of a leader that has the label alone: against a plain join."""

from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fedtasks.authoring.sample import Pair, pair_as_declared, sample_pair
from fedtasks.authoring.trial import Tried, try_out
from fedtasks.config import Dataset
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.errors import ConfigError, DataMissing, DiskFull
from fedtasks.models.export import predictions_by_id, task_that_scored, write_file
from fedtasks.pipeline.catalogue import align, evaluate, intersect, joined, predict, train

BUYERS = Dataset(name="buyers", uri="", id="shop, score", features={}, label="bought")
STEPS = [intersect(), align(), train("secureboost", trees=2), evaluate(), predict(scores="both")]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, list[Tried]]:
    """A run between a leader that has the label alone, and ids of two columns, and a follower."""
    folder = tmp_path_factory.mktemp("run")
    pair = pair_as_declared(folder, BUYERS, "bank", "shop")
    return pair, list(try_out(STEPS, pair, folder, partition="2026-11-21"))


def storage_of(pair: Pair, name: str) -> RunStorage:
    root = pair.parties[name].storage
    (folder,) = (local_path(root) / "runs").iterdir()
    return RunStorage(root, folder.name)


def exported(pair: Pair, name: str, file: Path, task: str = "predict") -> int:
    dataset = pair.parties[name].datasets[0]
    return write_file(predictions_by_id(storage_of(pair, name), dataset, task, {}), file)


def read(file: Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pq.read_table(file)
    texts = pyarrow.csv.ConvertOptions(column_types={"shop": pa.string(), "score_": pa.string()})
    return pyarrow.csv.read_csv(file, convert_options=texts)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(("name", "task"), [("bank", "predict"), ("shop", "predict"), ("bank", "evaluate")])
def test_export_equals_a_plain_join(
    tried: tuple[Pair, list[Tried]], tmp_path: Path, name: str, task: str, ending: str
) -> None:
    pair, _ = tried
    file = tmp_path / f"scores{ending}"
    rows = exported(pair, name, file, task)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    storage = storage_of(pair, name)
    shared = storage.published("psi")
    people = pa.concat_tables(pq.read_table(local_path(shared.path(entry.name))) for entry in shared.files)
    ids = dict(zip(people["tag"].to_pylist(), people["id"].to_pylist(), strict=True))
    scored = pq.read_table(local_path(storage.published(task).path("predictions.parquet"))).to_pylist()
    expected = sorted((*ids[row["tag"]].split("\x1f"), row["score"]) for row in scored)
    found = read(file)
    assert rows == found.num_rows == len(expected)
    assert found.column_names == ["shop", "score_", "score"] + ["label"] * (task == "evaluate")
    assert sorted(zip(*(found[column].to_pylist() for column in ("shop", "score_", "score")), strict=True)) == expected
    # The id is that of the rows which the party brought.
    own = pq.read_table(local_path(pair.parties[name].datasets[0].uri))
    brought = set(zip(own["shop"].to_pylist(), own["score"].to_pylist(), strict=True))
    assert {row[:2] for row in expected} <= brought


def test_label_alone_is_enough_at_the_leader(tried: tuple[Pair, list[Tried]]) -> None:
    _, steps = tried
    by_name = {each.step: each for each in steps}
    assert by_name["evaluate"].sides["bank"].metrics["auc"] > 0.6
    assert by_name["train"].sides["bank"].metrics["remark.label_alone"] == 1
    # Both trees are of the follower's features.
    assert by_name["train"].sides["shop"].metrics["importance.spent"] > 0


def test_export_refuses_to_overwrite_and_leaves_nothing_behind(tried: tuple[Pair, list[Tried]], tmp_path: Path) -> None:
    pair, _ = tried
    taken = tmp_path / "scores.csv"
    taken.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        exported(pair, "bank", taken)
    assert taken.read_text() == "mine"
    for file, problem in ((tmp_path / "scores.txt", "ends in none"), (tmp_path / "none" / "a.csv", "no folder")):
        with pytest.raises(ConfigError, match=problem):
            exported(pair, "bank", file)
    assert [each.name for each in tmp_path.iterdir()] == ["scores.csv"]


def test_export_at_a_follower_that_learnt_no_scores_says_so(tried: tuple[Pair, list[Tried]], tmp_path: Path) -> None:
    pair, _ = tried
    with pytest.raises(DataMissing, match="only the leader learns them"):
        exported(pair, "shop", tmp_path / "scores.csv", "evaluate")


def test_export_of_joined_rows_says_that_tags_alone_are_known(tmp_path: Path) -> None:
    pair = sample_pair(tmp_path, streams=True)
    rows = {"rows_task": "joined"}
    steps = [joined("clicks"), train("secureboost", trees=2, **rows), predict(**rows)]
    assert [each.step for each in try_out(steps, pair, tmp_path, partition="2026-11-21")] == [
        "joined", "train", "predict"
    ]  # fmt: skip
    dataset = pair.parties["bank"].datasets[0]
    with pytest.raises(ConfigError, match="tags alone are kept"):
        next(predictions_by_id(storage_of(pair, "bank"), dataset, "predict", {"predict": rows}))


def test_export_that_breaks_off_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    def full() -> object:
        yield pa.RecordBatch.from_pydict({"id": ["a"], "score": [0.5]})
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull, match="No space left"):
        write_file(full(), tmp_path / "scores.csv")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_export_onto_a_file_system_without_links_is_whole_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    batch = pa.RecordBatch.from_pydict({"id": ["a"], "score": [0.5]})
    assert write_file([batch], tmp_path / "scores.csv") == 1
    with pytest.raises(ConfigError, match="is there already"):
        write_file([batch], tmp_path / "scores.csv")
    assert [each.name for each in tmp_path.iterdir()] == ["scores.csv"]


def test_task_that_scored_is_the_one_that_predicts() -> None:
    steps = [{"name": "measure", "kind": "evaluate"}, {"name": "score", "kind": "predict"}, {"name": "own"}]
    assert task_that_scored(steps) == "score"
    assert task_that_scored(steps[:1]) == "measure"
    with pytest.raises(DataMissing, match="no step"):
        task_that_scored(steps[2:])
