"""A trained half as files: a SavedModel on raw columns, and ``model.json`` with what belongs to it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from fedtasks.data.storage import Manifest, filesystem, read_bytes, read_json, write_atomically, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataCorrupt
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.versions import pairing

MODEL, CARD, WEIGHTS = "model", "model.json", "weights.npz"
EMBEDDING, PROBABILITY = "embedding", "probability"


@dataclass(frozen=True)
class ModelCard:
    """What a published half says about itself.

    Parameters
    ----------
    run_id, role
        Which run trained it, and ``leader`` or ``follower``.
    settings, row_order
        What it was trained with.
    inputs, encoder
        Raw column → input of the SavedModel, and how it encodes them.
    digest, peer_digest
        Of this half (see `half_digest`) and of the one that it was trained with.
    """

    run_id: str
    role: str
    settings: TrainSettings
    row_order: str
    inputs: Mapping[str, str]
    encoder: Encoder
    digest: str
    peer_digest: str

    @property
    def pairing(self) -> str:
        """See `fedtasks.models.versions.pairing`."""
        return pairing(self.role, self.digest, self.peer_digest)


def half_digest(encoder: Encoder, half: LeaderHalf | FollowerHalf) -> str:
    """Return SHA-256 (hex) over what decides a half's output: its encoder and its weights."""
    return digest([encoder, half.digest])


def serving_module(encoder: Encoder, half: LeaderHalf | FollowerHalf) -> tf.Module:
    """Return a module whose ``serve`` takes raw columns (and the embedding, at the leader) by name."""
    module = tf.Module()
    signature = encoder.signature
    if isinstance(half, FollowerHalf):
        module.bottom = half.bottom

        def serve(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
            return {EMBEDDING: half.embed(encoder(columns))}
    else:
        module.bottom, module.top = half.bottom, half.top
        signature[EMBEDDING] = tf.TensorSpec([None, half.peer_width], tf.float32, EMBEDDING)

        def serve(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
            return {PROBABILITY: tf.sigmoid(half.logits(encoder(columns), columns[EMBEDDING]))}

    module.serve = tf.function(serve)
    module.serve.get_concrete_function(**signature)
    return module


def save_half(folder: str, card: ModelCard, half: LeaderHalf | FollowerHalf) -> None:
    """Write the SavedModel, its weights and ``model.json`` into `folder`, on whatever file system that is."""
    module = serving_module(card.encoder, half)
    (concrete,) = module.serve._list_all_concrete_functions()
    with tempfile.TemporaryDirectory() as place:
        # TensorFlow writes to local disks only; fsspec takes it from there.
        tf.saved_model.save(module, place, signatures=concrete)
        fs, target = filesystem(folder)
        for file in sorted(Path(place).rglob("*")):
            if file.is_file():
                name = f"{target}/{MODEL}/{file.relative_to(place).as_posix()}"
                fs.makedirs(name.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(name, file.read_bytes())
    weights = io.BytesIO()
    arrays = {f"w{index:03d}": weight.numpy() for index, weight in enumerate(half.weights)}
    np.savez(weights, allow_pickle=False, **arrays)
    write_atomically(f"{folder}/{WEIGHTS}", weights.getvalue())
    write_json(f"{folder}/{CARD}", to_plain(card))


class SavedHalf:
    """A published half, loaded from its SavedModel.

    Parameters
    ----------
    manifest
        What the training task published.
    role
        The half that this party must hold.

    Raises
    ------
    DataCorrupt
        A file differs from the manifest, or the model is not of this role.
    DataMissing
        The task published no model.
    """

    def __init__(self, manifest: Manifest, role: str) -> None:
        manifest.verify()
        place = manifest.path(CARD)
        try:
            self.card = build(ModelCard, read_json(place))
        except ConfigError as error:
            raise DataCorrupt(f"not a model: {error.detail}", where=place) from error
        if self.card.role != role:
            raise DataCorrupt(f"this is the {self.card.role}'s half, and this party is the {role}", where=place)
        with tempfile.TemporaryDirectory() as local:
            for entry in manifest.files:
                if entry.name.startswith(f"{MODEL}/"):
                    fs, source = filesystem(manifest.path(entry.name))
                    target = Path(local, entry.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(fs.cat_file(source))
            self._model = tf.saved_model.load(str(Path(local, MODEL)))
        self._serve = self._model.signatures["serving_default"]
        self._weights = manifest.path(WEIGHTS)

    def hand_on(self, half: LeaderHalf | FollowerHalf) -> None:
        """Give a new half these weights to go on from.

        Raises
        ------
        ConfigError
            The new half is of another shape.
        """
        with np.load(io.BytesIO(read_bytes(self._weights)), allow_pickle=False) as arrays:
            weights = [arrays[name] for name in sorted(arrays.files)]
        if [weight.shape for weight in weights] != [tuple(weight.shape) for weight in half.weights]:
            raise ConfigError("`embedding`, `hidden` or `top` differ from those of the version", field="start_from")
        for variable, weight in zip(half.weights, weights, strict=True):
            variable.assign(weight)

    def embed(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return the follower's embedding of raw rows, shape ``(n, embedding)``; raises as `Encoder.columns`."""
        return np.asarray(self._serve(**self.card.encoder.columns(rows))[EMBEDDING].numpy())

    def score(self, rows: pa.Table | pa.RecordBatch, embedding: np.ndarray) -> np.ndarray:
        """Return the probability of label 1 of raw rows, shape ``(n,)``; raises as `Encoder.columns`."""
        inputs = self.card.encoder.columns(rows) | {EMBEDDING: tf.constant(embedding)}
        return np.asarray(self._serve(**inputs)[PROBABILITY].numpy())
