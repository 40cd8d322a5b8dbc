"""Tag tables as intersections leave them: the ids of a dataset with their tags, one table for each signing key.

::

    <storage>/tags/<dataset>/<key id>/manifest.json    which generation of the table counts
    <storage>/tags/<dataset>/<key id>/<generation>/…    bucketed Parquet files of id and tag
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.data.storage import MANIFEST, filesystem, read_json
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing

PADDING = "\x00padding\x00"
"""How ids begin that nobody has: they make sizes round, and belong to one party and dataset."""

_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Generation:
    """One state of a tag table.

    Parameters
    ----------
    name
        Its folder below the table; empty before the first.
    rows
        How many ids have a tag.
    files
        Names of its bucket files.
    """

    name: str = ""
    rows: int = 0
    files: tuple[str, ...] = ()


class TagFiles:
    """The tags of a dataset's ids under one key.

    Parameters
    ----------
    root_uri
        Root of the party's storage.
    dataset, key_id
        Whose ids, and under which key.
    """

    def __init__(self, root_uri: str, dataset: str, key_id: str) -> None:
        self.uri = f"{_folder(root_uri, dataset)}/{key_id}"

    def generation(self, name: str | None = None) -> Generation:
        """Return the generation that counts, or one of those kept.

        Raises
        ------
        DataMissing
            The generation called `name` is not kept any more.
        """
        kept = self.kept()
        if name is None:
            return kept[-1] if kept else Generation()
        for generation in (*kept, Generation()):
            if generation.name == name:
                return generation
        raise DataMissing(
            f"generation {name} of the tag table is gone, other runs have replaced it; clear the whole task",
            where=self.uri,
        )

    def kept(self) -> list[Generation]:
        """Return the generations that are still there, the one that counts last."""
        place = f"{self.uri}/{MANIFEST}"
        try:
            found = read_json(place)["generations"]
            return [Generation(each["name"], each["rows"], tuple(each["files"])) for each in found]
        except DataMissing:
            return []
        except (KeyError, TypeError):
            raise DataCorrupt(
                "not the manifest of a tag table; move its folder away to begin anew", where=place
            ) from None

    def read(self, generation: Generation) -> Iterator[pa.RecordBatch]:
        """Yield a generation's ``tag`` (binary) and ``id`` (text), bucket by bucket."""
        for name in generation.files:
            yield from read_tags(f"{self.uri}/{generation.name}/{name}")


def read_tags(uri: str) -> Iterator[pa.RecordBatch]:
    """Yield ``tag`` (binary) and ``id`` (text) of one bucket file; raise `DataMissing` if it has been replaced."""
    fs, path = filesystem(uri)
    try:
        opened = fs.open(path, "rb")
    except FileNotFoundError:
        raise DataMissing("the tags are gone, newer runs have replaced them; try again", where=uri) from None
    with opened as file:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=["tag", "id"]):
            tags = batch.column("tag").cast(pa.binary())
            yield pa.RecordBatch.from_arrays([tags, batch.column("id")], ["tag", "id"])


def find_key(root_uri: str, dataset: str, key_id: str = "") -> str:
    """Return the id of the key under which a dataset has tags: the one that is named, or the only one.

    Raises
    ------
    DataMissing
        It has none, or none under the key that is named.
    ConfigError
        It has tags under several keys and none is named; names them.
    """
    folder = _folder(root_uri, dataset)
    fs, path = filesystem(folder)
    entries = fs.ls(path, detail=True) if fs.exists(path) else []
    names = [str(each["name"]).rstrip("/").rpartition("/")[2] for each in entries if each["type"] == "directory"]
    # When a key is named, the manifests of others do not matter.
    wanted = [name for name in names if key_id in ("", name)]
    keys = sorted(name for name in wanted if TagFiles(root_uri, dataset, name).generation().rows)
    if key_id in keys:
        return key_id
    if key_id or not keys:
        under = f" under key {key_id}" if key_id else ""
        raise DataMissing(
            f"no intersection has left tags of dataset `{dataset}`{under}; run one first (DAG offline_psi)",
            where=folder,
        )
    if len(keys) > 1:
        raise ConfigError(f"name the key whose tags to use, one of: {', '.join(keys)}", field="key")
    return keys[0]


def _folder(root_uri: str, dataset: str) -> str:
    return f"{root_uri.rstrip('/')}/tags/{dataset}"
