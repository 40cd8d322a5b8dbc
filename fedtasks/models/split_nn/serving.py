"""A trained half as a SavedModel on raw columns, for whoever serves it with TensorFlow and without fedtasks."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from fedtasks.data.storage import filesystem
from fedtasks.models.split_nn.encoder import CLIP, LARGEST, Encoder, NumericColumn
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import LEADER

EMBEDDING, PROBABILITY = "embedding", "probability"


def write(folder: str, encoder: Encoder, settings: TrainSettings, role: str, weights: Sequence[np.ndarray]) -> None:
    """Write a half as a SavedModel into a folder of any file system.

    Parameters
    ----------
    encoder, settings, role, weights
        The half.
    """
    network = (LeaderHalf if role == LEADER else FollowerHalf)(encoder.width, settings, 0)
    network.assign(weights)
    module = _module(encoder, network)
    (concrete,) = module.serve._list_all_concrete_functions()
    with tempfile.TemporaryDirectory() as place:
        # TensorFlow writes to local disks only; fsspec takes it from there.
        tf.saved_model.save(module, place, signatures=concrete)
        fs, target = filesystem(folder)
        for file in sorted(Path(place).rglob("*")):
            if file.is_file():
                name = f"{target}/{file.relative_to(place).as_posix()}"
                fs.makedirs(name.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(name, file.read_bytes())


def _module(encoder: Encoder, half: LeaderHalf | FollowerHalf) -> tf.Module:
    """Return a module whose ``serve`` takes raw columns (and the embedding, at the leader) by name."""
    module = tf.Module()
    signature = _signature(encoder)
    if isinstance(half, FollowerHalf):
        module.bottom = half.bottom

        def serve(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
            return {EMBEDDING: half.embed(_matrix(encoder, columns))}
    else:
        module.bottom, module.top = half.bottom, half.top
        signature[EMBEDDING] = tf.TensorSpec([None, half.peer_width], tf.float32, EMBEDDING)

        def serve(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
            embedding = columns[EMBEDDING]
            # A leader may have the label alone.
            features = _matrix(encoder, columns) if encoder.width else tf.zeros([tf.shape(embedding)[0], 0])
            return {PROBABILITY: tf.sigmoid(half.logits(features, embedding))}

    module.serve = tf.function(serve)
    module.serve.get_concrete_function(**signature)
    return module


def _signature(encoder: Encoder) -> dict[str, tf.TensorSpec]:
    """Return raw columns as a SavedModel takes them: float64 with NaN for missing, text with "" for missing."""
    kinds = {column.name: tf.float64 for column in encoder.numeric}
    kinds |= {column.name: tf.string for column in encoder.categorical}
    return {name: tf.TensorSpec([None], kinds[column], name) for column, name in encoder.input_names.items()}


def _matrix(encoder: Encoder, columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return what `Encoder.matrix` does, of raw columns by the names of the signature."""
    return tf.cast(tf.concat(list(_parts(encoder, columns)), axis=1), tf.float32)


def _parts(encoder: Encoder, columns: Mapping[str, tf.Tensor]) -> Iterator[tf.Tensor]:
    names = encoder.input_names
    for number in encoder.numeric:
        value = columns[names[number.name]]
        missing = tf.math.is_nan(value)
        value = tf.where(missing, tf.zeros_like(value), value)
        if number.mean is None:
            value = tf.clip_by_value(value, tf.constant(-LARGEST, tf.float64), tf.constant(LARGEST, tf.float64))
        indicators = [~missing & tf.equal(value, tf.constant(each, tf.float64)) for each in number.apart]
        is_no_value = functools.reduce(tf.logical_or, indicators, missing)
        yield tf.where(is_no_value, tf.zeros_like(value), _scaled(number, value))[:, tf.newaxis]
        for indicator in (*indicators, *([missing] if number.has_missing else [])):
            yield tf.cast(indicator, tf.float64)[:, tf.newaxis]
    for category in encoder.categorical:
        text = columns[names[category.name]][:, tf.newaxis]
        missing = tf.equal(text, "")
        known = tf.equal(text, tf.constant([category.vocabulary], tf.string, shape=[1, len(category.vocabulary)]))
        unknown = ~(missing | tf.reduce_any(known, axis=1, keepdims=True))
        yield tf.cast(tf.concat([known, unknown, missing], axis=1), tf.float64)


def _scaled(number: NumericColumn, value: tf.Tensor) -> tf.Tensor:
    if number.mean is not None:
        return tf.clip_by_value((value - number.mean) / number.scale, -CLIP, CLIP)
    if len(number.knots) < 2:
        return tf.zeros_like(value)
    knots, scores, slopes = (tf.constant(each, tf.float64) for each in (number.knots, number.scores, number.slopes))
    inside = tf.clip_by_value(value, knots[0], knots[-1])
    before = tf.clip_by_value(tf.searchsorted(knots, inside, side="right") - 1, 0, len(number.knots) - 2)
    return tf.gather(scores, before) + tf.gather(slopes, before) * (inside - tf.gather(knots, before))
