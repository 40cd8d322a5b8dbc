"""A version's half in a folder of its own: all of it, for its owner alone, or nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fedtasks.data.run_storage import Manifest, RunStorage
from fedtasks.data.storage import local_path
from fedtasks.errors import ConfigError, DataCorrupt
from fedtasks.models.contract import CARD, ModelFormat
from fedtasks.models.exported import export_half
from fedtasks.models.secureboost.model import FollowerHalf
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.wire.v1.model_pb2 import ModelVersion

RUN = "credit.2026-11-21.bank.1"
SAVED = {
    "model/saved_model.pb": b"graph",
    "model/variables/variables.index": b"index",
    CARD: b'{"role": "leader"}',
}
VERSION = ModelVersion(model="credit", version=3, run_id=RUN, own_digest="a", peer_digest="b")


def publish(root: Path, files: dict[str, bytes], **facts: str) -> Manifest:
    """Let task `train` publish these files, of the version's digests."""
    storage = RunStorage(f"file://{root}", RUN)
    folder = local_path(storage.attempt("train", 1))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return storage.publish("train", 1, rows=1, facts={"digest": "a", "peer_digest": "b", **facts})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "storage"
    place.mkdir(mode=0o700)
    return place


def test_saved_model_and_card_are_copied_for_their_owner_alone(root: Path, tmp_path: Path) -> None:
    published = local_path(publish(root, {**SAVED, "weights.npz": b"w", "reconstruction.json": b"{}"}).uri)
    folder = tmp_path / "half"
    names = export_half(f"file://{root}", VERSION, "train", ModelFormat.SAVED_MODEL, folder)
    assert names == (CARD, "model/saved_model.pb", "model/variables/variables.index")
    assert {name: (folder / name).read_bytes() for name in names} == SAVED
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / CARD).write_bytes(b"changed")
    assert (published / CARD).read_bytes() == SAVED[CARD]
    with pytest.raises(ConfigError, match="is there already"):
        export_half(f"file://{root}", VERSION, "train", ModelFormat.SAVED_MODEL, folder)


def test_folder_that_cannot_be_made_is_refused(root: Path, tmp_path: Path) -> None:
    publish(root, SAVED)
    with pytest.raises(ConfigError, match="cannot be made"):
        export_half(f"file://{root}", VERSION, "train", ModelFormat.SAVED_MODEL, tmp_path / "nowhere" / "half")


@pytest.mark.parametrize("name", SAVED)
def test_half_that_has_changed_since_it_was_trained_is_not_exported(root: Path, tmp_path: Path, name: str) -> None:
    published = publish(root, SAVED)
    (local_path(published.uri) / name).write_bytes(b"another")
    with pytest.raises(DataCorrupt, match="has changed"):
        export_half(f"file://{root}", VERSION, "train", ModelFormat.SAVED_MODEL, tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["storage"]


def test_half_of_another_training_is_not_exported(root: Path, tmp_path: Path) -> None:
    publish(root, SAVED, peer_digest="c")
    with pytest.raises(DataCorrupt, match="is version 3 of `credit`"):
        export_half(f"file://{root}", VERSION, "train", ModelFormat.SAVED_MODEL, tmp_path / "half")


@pytest.mark.parametrize("form", ModelFormat)
def test_trees_have_neither_form(root: Path, tmp_path: Path, form: ModelFormat) -> None:
    storage = RunStorage(f"file://{root}", RUN)
    half = FollowerHalf("secureboost", RUN, "follower", TrainSettings(), "", {}, 0, splits=())
    half.paired("b").save(storage.attempt("train", 1))
    publish(root, {}, format="secureboost")
    with pytest.raises(ConfigError, match=r"half of .* (SavedModel|ONNX)"):
        export_half(f"file://{root}", VERSION, "train", form, tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["storage"]
