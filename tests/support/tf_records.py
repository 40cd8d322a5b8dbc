"""Files of `tf.train.Example`, written as TensorFlow does."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def written(rows: Iterable[Mapping[str, Any]], *, compressed: bool = False) -> bytes:
    """Return the content of a file with these rows; what is None is left out, a list becomes several values."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                named = {name: _feature(tf, value) for name, value in row.items() if value is not None}
                writer.write(tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString())
        return gzip.compress(path.read_bytes()) if compressed else path.read_bytes()


def records(*raw: bytes) -> bytes:
    """Return the content of a file of records that need not be examples."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in raw:
                writer.write(record)
        return path.read_bytes()


def _feature(tf: Any, value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    match values:
        case [str() | bytes(), *_]:
            raw = [each.encode() if isinstance(each, str) else each for each in values]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=raw))
        case [float(), *_]:
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
