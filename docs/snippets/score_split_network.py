"""Probabilities of label 1 from both halves of a split network, by plain TensorFlow; needs no fedtasks."""

from __future__ import annotations

import json
from pathlib import Path

import tensorflow as tf


def probabilities(
    leader: str, follower: str, leader_rows: dict[str, list], follower_rows: dict[str, list]
) -> list[float]:
    """Score people, each side's columns apart: both may have one of the same name.

    A folder holds what task `train` has published at one side; row by row, the columns of both are of one person.
    """
    embedding = run(follower, follower_rows)["embedding"]
    return run(leader, leader_rows, embedding=embedding)["probability"].numpy().tolist()


def run(folder: str, rows: dict[str, list], **more: tf.Tensor) -> dict[str, tf.Tensor]:
    """Run one half on its columns; None is no value."""
    serve = tf.saved_model.load(f"{folder}/model").signatures["serving_default"]
    specs = serve.structured_input_signature[1]
    inputs = json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))["inputs"]
    return serve(**{name: column(rows[feature], specs[name]) for feature, name in inputs.items()}, **more)


def column(values: list, spec: tf.TensorSpec) -> tf.Tensor:
    """Write a missing number as NaN, a missing text as an empty one; fill up shorter lists with them."""
    missing = "" if spec.dtype == tf.string else float("nan")
    if len(spec.shape) == 2:
        width = spec.shape[1] or max((len(value or ()) for value in values), default=0)
        values = [[*(value or ()), *[None] * (width - len(value or ()))] for value in values]
        values = [[missing if item is None else item for item in value] for value in values]
        return tf.constant(values, spec.dtype, shape=(len(values), width))
    return tf.constant([missing if value is None else value for value in values], spec.dtype)
