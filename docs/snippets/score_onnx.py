"""Outputs of a half as ONNX, by onnxruntime and NumPy; needs neither fedtasks nor TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime


def run(
    folder: str, rows: dict[str, list], *, file: str = "model.onnx", farmhash64: Callable | None = None, **received
) -> dict[str, np.ndarray]:
    """Run one half on its columns, where None is no value, and on what it has received; return arrays by name.

    `farmhash64` is the function Fingerprint64 of FarmHash; it is needed where values are hashed.
    """
    card = json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))
    worded = {each["name"]: each for kind in ("categorical", "sequences") for each in card["encoder"][kind]}
    session = onnxruntime.InferenceSession(f"{folder}/{file}")
    taken = {each.name: each.shape for each in session.get_inputs()}
    given = dict(received)
    for feature, name in card["inputs"].items():
        if name in taken and name not in received:
            column = worded.get(feature)
            values = rows[feature]
            given[name] = ids(column, values, farmhash64) if column else numbers(values, taken[name][1:])
    outputs = [each.name for each in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, given), strict=True))


def numbers(values: list, width: list[int]) -> np.ndarray:
    """Write a number, or a vector of numbers, as float64, NaN where there is none."""
    found = np.full((len(values), *width), np.nan)
    for row, value in enumerate(values):
        if value is not None:
            found[row] = np.array(value, float)
    return found


def ids(column: dict, values: list, farmhash64: Callable | None) -> np.ndarray:
    """Write texts as the ids that the half was trained with, int32."""
    known = {text: number for number, text in enumerate(column["vocabulary"])}
    buckets = column["hash_buckets"]
    none = buckets or len(known) + 1

    def number(text: str) -> int:
        return farmhash64(text.encode()) % buckets if buckets else known.get(text, len(known))

    if "length" not in column:
        return np.array([number(text) if text else none for text in values], np.int32)
    found = np.zeros((len(values), column["length"]), np.int32)
    for row, texts in enumerate(values):
        last = [1 + number(text) for text in texts or () if text][-column["length"] :]
        found[row, : max(1, len(last))] = last or 1 + none
    return found
