"""Halves as ONNX: they score as inside, in a runtime that knows neither fedtasks nor TensorFlow."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from fedtasks.config import Feature, FeatureType
from fedtasks.data.storage import write_json
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import ConfigError
from fedtasks.models.contract import CARD
from fedtasks.models.split_nn import onnx_files
from fedtasks.models.split_nn.columns import NumericColumn
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.model import Document, EncodedHalf, SplitNnHalf, half_digest
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.sources import Source
from tests.support.networks import GALLERY, Case, gallery_case, published, scores_together

SETTINGS = TrainSettings(batch_size=50, embedding=4, hidden=(8,), top=(6,), network="own")
SNIPPET = Path(__file__).parents[4] / "docs" / "snippets" / "score_onnx.py"
NAMES = sorted(folder.name for folder in GALLERY.iterdir() if folder.is_dir())
KINDS = {
    "income": FeatureType.NUMERIC,
    "city": FeatureType.CATEGORICAL,
    "device": FeatureType.CATEGORICAL,
    "seen": FeatureType.SEQUENCE,
    "words": FeatureType.SEQUENCE,
    "query": FeatureType.VECTOR,
}
DETAILS = {
    "device": Feature(FeatureType.CATEGORICAL, hash_buckets=7),
    "seen": Feature(FeatureType.SEQUENCE, length=4),
    "words": Feature(FeatureType.SEQUENCE, length=3, hash_buckets=11),
    "query": Feature(FeatureType.VECTOR, width=2),
}


@pytest.fixture
def converter() -> None:
    """What writes ONNX and what runs it."""
    for name in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: it comes with the extra `onnx` and the group `dev`")


def farmhash64(text: bytes) -> int:
    return int.from_bytes(tf.fingerprint([text]).numpy()[0].tobytes(), "little")


def run(folder: Path, rows: pa.Table, file: str, **received: np.ndarray) -> dict[str, np.ndarray]:
    """Run one half as the page does; return what it puts out, by the names of the SavedModel."""
    found = runpy.run_path(str(SNIPPET))["run"](
        str(folder), rows.to_pydict(), file=file, farmhash64=farmhash64, **received
    )
    return {name.removesuffix(onnx_files.SENT): value for name, value in found.items()}


def save(half: EncodedHalf, folder: Path) -> list[str]:
    """Write a half as it is exported; return the names of its files, in the order of rounds."""
    folder.mkdir()
    half.save_onnx(folder)
    write_json(f"{folder}/{CARD}", to_plain(half.document))
    return sorted(path.name for path in folder.glob("*.onnx"))


def scores_outside(folders: dict[str, Path], files: dict[str, list[str]], case: Case) -> np.ndarray:
    """Pass rows through both halves, round by round; the follower computes once there is what it takes."""
    (answer,) = files["follower"]
    sent: dict[str, np.ndarray] = {}
    if len(files["leader"]) == 1:
        sent = run(folders["follower"], case.follower, answer)
    else:
        kept = run(folders["leader"], case.leader, files["leader"][0])
        sent = run(folders["follower"], case.follower, answer, **{n: v for n, v in kept.items() if "kept" not in n})
        sent |= {name: value for name, value in kept.items() if "kept" in name}
    return run(folders["leader"], case.leader, files["leader"][-1], **sent)["score"]


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("name", NAMES)
def test_network_of_the_gallery_scores_as_inside(name: str, tmp_path: Path) -> None:
    case = gallery_case(name, 200)
    halves = {
        role: published(case, each, role, SETTINGS)
        for role, each in zip(("leader", "follower"), case.sides(SETTINGS), strict=True)
    }
    inside = scores_together(halves["leader"], halves["follower"], case)
    folders = {role: tmp_path / role for role in halves}
    files = {role: save(half, folders[role]) for role, half in halves.items()}
    np.testing.assert_allclose(scores_outside(folders, files, case), inside, rtol=0, atol=1e-6)
    assert np.ptp(inside) > 0


def people(n: int, seed: int) -> pa.Table:
    """Make rows with values of every kind, some of them missing, extreme, rare or never seen in training."""
    rng = np.random.default_rng(seed)

    def lists(words: list[str], most: int) -> list[list[str] | None]:
        chosen = [rng.choice(words, rng.integers(0, most)).tolist() for _ in range(n)]
        return [None if rng.random() < 0.1 else each for each in chosen]

    income = np.where(rng.random(n) < 0.1, -999.0, rng.lognormal(7, 2, n))
    income[: n // 20] = 1e300 * rng.choice([-1, 1], n // 20)
    columns: dict[str, Any] = {
        "age": pa.array(rng.normal(40, 30, n), mask=rng.random(n) < 0.1),
        "income": pa.array(income, mask=rng.random(n) < 0.1),
        "city": pa.array(rng.choice(np.array(["Köln", "Rom", "", f"new {seed}", None]), n).tolist(), pa.string()),
        "device": pa.array([f"modèle {number}" for number in rng.integers(0, 40, n)], mask=rng.random(n) < 0.1),
        "seen": pa.array(lists([*map(str, range(30)), f"new {seed}", ""], 9), pa.list_(pa.string())),
        "words": pa.array(lists(["täglich", "x" * 40, ""], 5), pa.list_(pa.string())),
        "query": pa.array(
            [None if rng.random() < 0.1 else [x, 0.5] for x in rng.normal(5, 3, n)], pa.list_(pa.float64())
        ),
    }
    return pa.table(columns)


def built_in_half(role: str) -> SplitNnHalf:
    encoder = Encoder.fit(people(300, 0), KINDS, DETAILS)
    scaled_by_an_earlier_release = NumericColumn("age", 31.7, 9.3)
    encoder = replace(encoder, numeric=(*encoder.numeric, scaled_by_an_earlier_release))
    settings = TrainSettings(embedding=4, hidden=(8,), top=(6,))
    weights = Source().half(Features(encoder), settings, 3, has_label=role == "leader").arrays
    found = half_digest(encoder, weights)
    return SplitNnHalf(Document("r", role, settings, "", encoder.input_names, encoder, found, "", "split_nn"), weights)


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize("n_rows", [200, 1, 0])
def test_network_that_comes_with_fedtasks_takes_every_kind_of_column(tmp_path: Path, n_rows: int) -> None:
    halves = {role: built_in_half(role) for role in ("leader", "follower")}
    for role, half in halves.items():
        assert save(half, tmp_path / role) == ["model.onnx"]
    rows = people(200, 1).slice(0, n_rows)
    answer = halves["follower"].answer(rows)
    found = run(tmp_path / "follower", rows, "model.onnx")["embedding"]
    np.testing.assert_allclose(found, answer, rtol=1e-6, atol=1e-6)
    found = run(tmp_path / "leader", rows, "model.onnx", embedding=answer)["probability"]
    np.testing.assert_allclose(found, halves["leader"].score(rows, answer), rtol=0, atol=1e-6)


ERFINV = """
import keras
from fedtasks import Send


def network(features, settings):
    rows = keras.ops.tanh(keras.layers.Dense(32)(features.matrix()))
    rows = {rows}
    model = keras.Model(features.inputs, Send("first")(rows))
    model.compile(optimizer="adam")
    return model
"""


@pytest.mark.usefixtures("converter")
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("keras.ops.erfinv(rows)", "no operation for: Erfinv; take savedmodel"),
        ("keras.ops.fori_loop(0, 3, lambda _, each: keras.ops.erfinv(each), rows)", "cannot be written .*Erfinv"),
    ],
    ids=["plain", "in a loop"],
)
def test_operation_without_a_counterpart_is_named(tmp_path: Path, rows: str, told: str) -> None:
    case = gallery_case("cut_early", 60)
    half = published(case, case.sides(SETTINGS)[1], "follower", SETTINGS)
    half.document = replace(half.document, network=ERFINV.format(rows=rows))
    with pytest.raises(ConfigError, match=told):
        half.save_onnx(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("converter")
def test_half_that_is_too_large_for_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "_MOST_BYTES", 100)
    with pytest.raises(ConfigError, match="more weights than a file of ONNX can hold"):
        built_in_half("follower").save_onnx(tmp_path)


def test_missing_converter_is_named_with_the_extra_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ConfigError, match=r"needs `tf2onnx`, which is not installed: .*fedtasks\[onnx\]"):
        built_in_half("follower").save_onnx(tmp_path)
