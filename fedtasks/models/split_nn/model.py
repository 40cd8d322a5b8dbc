"""A trained half as files: a SavedModel on raw columns, its weights, and ``model.json`` with what belongs to it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from fedtasks.data.storage import Manifest, filesystem, read_bytes, read_json, write_atomically, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataCorrupt, ProtocolViolated
from fedtasks.exchange.message import ArrayMessage
from fedtasks.models.contract import CARD, Card, HalfModel
from fedtasks.models.split_nn import messages
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.leakage import Leak
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import LEADER

MODEL, WEIGHTS = "model", "weights.npz"
EMBEDDING, PROBABILITY = "embedding", "probability"

Network = LeaderHalf | FollowerHalf


@dataclass(frozen=True)
class Document:
    """Contents of ``model.json``.

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
    format
        The algorithm's name.
    label_leak
        At the leader: the worst that was measured of what its training, and those that it went on from, have sent.
    """

    run_id: str
    role: str
    settings: TrainSettings
    row_order: str
    inputs: Mapping[str, str]
    encoder: Encoder
    digest: str
    peer_digest: str
    format: str = ""
    label_leak: Leak | None = None


def half_digest(encoder: Encoder, network: Network) -> str:
    """Return SHA-256 (hex) over what decides a half's output: its encoder and its weights."""
    return digest([encoder, network.digest])


class SplitNnHalf(HalfModel):
    """One party's half of a split network.

    Parameters
    ----------
    document
        What it says about itself.
    network
        Its weights.
    """

    def __init__(self, document: Document, network: Network) -> None:
        self.document = document
        self.network = network

    @property
    def answers(self) -> ArrayMessage:
        """See `HalfModel.answers`; of the width that both halves were trained with."""
        return replace(messages.EMBEDDING, shape=(None, self.document.settings.embedding))

    @property
    def card(self) -> Card:
        """See `HalfModel.card`."""
        return Card.of(self.document)

    @cached_property
    def _serving(self) -> tf.Module:
        return serving_module(self.document.encoder, self.network)

    def answer(self, rows: pa.Table | pa.RecordBatch, unknown: str = "") -> np.ndarray:
        """Return the follower's embedding, shape ``(n, embedding)``; the encoder has a place for unknown values."""
        del unknown
        return np.asarray(self._serving.serve(**self.document.encoder.columns(rows))[EMBEDDING].numpy())

    def score(self, rows: pa.Table | pa.RecordBatch, answer: np.ndarray, unknown: str = "") -> np.ndarray:
        """Return the probability of label 1, shape ``(n,)``; the encoder has a place for unknown values."""
        del unknown
        if answer.shape != (rows.num_rows, self.document.settings.embedding):
            raise ProtocolViolated(f"an embedding of shape {answer.shape} for {rows.num_rows} rows")
        inputs = self.document.encoder.columns(rows) | {EMBEDDING: tf.constant(answer)}
        return np.asarray(self._serving.serve(**inputs)[PROBABILITY].numpy())

    def save(self, folder: str) -> None:
        """Write the SavedModel, its weights and ``model.json``."""
        (concrete,) = self._serving.serve._list_all_concrete_functions()
        with tempfile.TemporaryDirectory() as place:
            # TensorFlow writes to local disks only; fsspec takes it from there.
            tf.saved_model.save(self._serving, place, signatures=concrete)
            fs, target = filesystem(folder)
            for file in sorted(Path(place).rglob("*")):
                if file.is_file():
                    name = f"{target}/{MODEL}/{file.relative_to(place).as_posix()}"
                    fs.makedirs(name.rpartition("/")[0], exist_ok=True)
                    fs.pipe_file(name, file.read_bytes())
        weights = io.BytesIO()
        arrays = {f"w{index:03d}": weight.numpy() for index, weight in enumerate(self.network.weights)}
        np.savez(weights, allow_pickle=False, **arrays)
        write_atomically(f"{folder}/{WEIGHTS}", weights.getvalue())
        write_json(f"{folder}/{CARD}", to_plain(self.document))

    def hand_on(self, network: Network) -> None:
        """Give a new network these weights to go on from.

        Raises
        ------
        ConfigError
            The new network is of another shape.
        """
        try:
            _assign(network, [weight.numpy() for weight in self.network.weights])
        except ValueError:
            raise ConfigError(
                "`embedding`, `hidden` or `top` differ from those of the version", field="start_from"
            ) from None


def load(manifest: Manifest, role: str) -> SplitNnHalf:
    """Read a half that `train` has published.

    Raises
    ------
    DataCorrupt
        It is no split network.
    """
    prepare_tensorflow()
    place = manifest.path(CARD)
    try:
        document = build(Document, read_json(place))
    except ConfigError as error:
        raise DataCorrupt(f"not a model: {error.detail}", where=place) from error
    network = (LeaderHalf if role == LEADER else FollowerHalf)(document.encoder.width, document.settings, 0)
    with np.load(io.BytesIO(read_bytes(manifest.path(WEIGHTS))), allow_pickle=False) as arrays:
        try:
            _assign(network, [arrays[name] for name in sorted(arrays.files)])
        except ValueError:
            raise DataCorrupt("the weights are not those of this model", where=place) from None
    return SplitNnHalf(document, network)


def _assign(network: Network, weights: list[np.ndarray]) -> None:
    """Set the weights of a network; raise `ValueError` if they are of another shape."""
    if [weight.shape for weight in weights] != [tuple(weight.shape) for weight in network.weights]:
        raise ValueError
    for variable, weight in zip(network.weights, weights, strict=True):
        variable.assign(weight)


def serving_module(encoder: Encoder, half: Network) -> tf.Module:
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
