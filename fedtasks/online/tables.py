"""Loads the tags that intersections have left into the store, where live lookups find them; needs no engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset, Party
from fedtasks.data.copies import readable
from fedtasks.data.partitions import landed
from fedtasks.data.storage import filesystem
from fedtasks.data.tables import ID, Part, list_parts, read_rows
from fedtasks.data.tag_files import Generation, TagFiles, find_key
from fedtasks.store import Store, TagTableRow


def load_tags(
    party: Party, dataset: Dataset, store: Store, key_id: str = "", columns: Sequence[str] = ()
) -> TagTableRow:
    """Make the newest tags of a dataset ready for lookups; does nothing if they are.

    Parameters
    ----------
    key_id
        Under which key; by default the only one.
    columns
        Features whose values are kept beside the tags, to answer with.

    Raises
    ------
    DataMissing
        No intersection has left tags.
    ConfigError
        There are tags under several keys and none is named.
    DataError
        The dataset is not what was declared; only with `columns`.

    Notes
    -----
    Ids that hold NUL are left out.

    Cost: one pass over the tag table, and with `columns` one over the dataset; memory for one batch.
    """
    key_id = find_key(party.storage, dataset.name, key_id)
    files = TagFiles(party.storage, dataset.name, key_id)
    generation = files.generation()
    name = generation.name
    parts: list[Part] = []
    with readable(dataset) as rows:
        if columns:
            parts = list_parts(rows, landed(rows))
            name = f"{name}/{_fingerprint(parts)}"
        return store.tags.load(
            dataset.name,
            key_id,
            name,
            _people(files, generation),
            columns=columns,
            answers=_answers(rows, parts, columns),
        )


def _people(files: TagFiles, generation: Generation) -> Iterator[pa.RecordBatch]:
    with files.held(generation):
        for batch in files.read(generation):
            yield batch.filter(_is_storable(batch.column("id")))


def _is_storable(ids: pa.Array) -> pa.Array:
    # Padding has a NUL too, so that nobody has such an id; PostgreSQL's text cannot hold one.
    return pc.invert(pc.match_substring(ids, "\0"))


def _fingerprint(parts: Sequence[Part]) -> str:
    """Return a digest that changes with the dataset's files: their names, sizes and times."""
    facts: list[Any] = []
    for uri in sorted({part.file for part in parts}):
        fs, path = filesystem(uri)
        info = fs.info(path)
        changed = next((info[word] for word in ("mtime", "modificationTime", "ETag") if info.get(word)), None)
        facts.append([uri, info.get("size"), str(changed)])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _answers(dataset: Dataset, parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        for batch in read_rows(dataset, part):
            kept = batch.filter(_is_storable(batch.column(ID)))  # a null mask drops the row: it has no id
            texts = [json.dumps(row, ensure_ascii=False) for row in kept.select(list(columns)).to_pylist()]
            yield pa.RecordBatch.from_arrays([kept.column(ID), pa.array(texts, pa.string())], ["id", "answer"])
