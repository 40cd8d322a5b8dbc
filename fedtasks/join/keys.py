"""What events of both sides are known by: keyed hashes of ids and keys, and the shards that these fall into."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fedtasks.config import Dataset
from fedtasks.config.events import STEPS_MS
from fedtasks.crypto.hashing import hash_rows
from fedtasks.data.hashable import texts_of
from fedtasks.errors import ConfigError
from fedtasks.join.rows import Integers, Words, halves_of
from fedtasks.join.settings import JoinSettings, Match

_DOMAIN = b"fedtasks-join\x00"
_BLOCK_BYTES = 64
"""What SHA-256 takes at a time: what all rows begin with is one block, and hashed once."""

_HALF = np.uint64(32)


def tags_of_texts(texts: pa.Array, secret: bytes) -> tuple[Words, Words]:
    """Return the two halves of the tags of ids or keys, none of which is null.

    Notes
    -----
    Reveals: a tag is random to whoever does not know the stream's secret; whoever does can look whether an id that it
    knows is there.
    Cost: one hash for each row.
    """
    begin = (_DOMAIN + secret).ljust(_BLOCK_BYTES, b"\0")
    return halves_of(hash_rows("sha256", begin, texts_of(texts)))


def shards_of_tags(hi: Words, shards: int) -> Integers:
    """Return the shard of each tag by its first half: equal parts of the space of its upper bits, in their order."""
    return ((hi >> _HALF) * np.uint64(shards) >> _HALF).astype(np.int64)


def check_shards(dataset: Dataset, shards: int) -> None:
    """Refuse several shards where the columns that decide in which one an event lies are not part of every key.

    Raises
    ------
    ConfigError
        Names the key, and the column that it lacks.
    """
    if shards < 2:
        return
    for number, parts in enumerate(dataset.key_levels, 1):
        lacking = [column for column in dataset.shard_columns if column not in parts]
        if lacking:
            text = f"there are {shards} shards, and `{lacking[0]}`, which decides the shard, is not part of"
            text += f" `{', '.join(parts)}`, level {number} of `event_keys`"
            raise ConfigError(f"{text}; name columns that are part of every key, or take one shard", field="shard_by")


def key_facts(dataset: Dataset, settings: JoinSettings) -> dict[str, str]:
    """Return what both sides' datasets must have alike, so that equal ids or keys mean the same; not columns' names."""
    if settings.match is Match.ID:
        return dataset.id_facts
    levels = ["+".join(part if part in STEPS_MS else "column" for part in parts) for parts in dataset.key_levels]
    places = [
        ",".join(str(parts.index(column) + 1) if column in parts else "-" for column in dataset.shard_columns)
        for parts in dataset.key_levels
    ]
    facts = {"normalise": dataset.id_facts["normalise"], "event_keys": "; ".join(levels)}
    return facts | ({"shard_by": "; ".join(places)} if settings.shards > 1 else {})
