"""Predictions beside this party's own ids, as a file for whoever uses them.

A run's files know people by tags alone. Which of this party's ids a tag stands for, its intersection has kept here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from fedtasks import durable
from fedtasks.config import Dataset
from fedtasks.data.ascending import KEY, are_in, keys_of, walk
from fedtasks.data.batch_files import read_batches
from fedtasks.data.held_out import Unit
from fedtasks.data.run_storage import Manifest, RunStorage
from fedtasks.data.tables import columns_of_ids
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing
from fedtasks.models.results import PREDICTIONS, SCORE
from fedtasks.shortage import shortage

ENDINGS = (".csv", ".parquet")
"""What files can be written, by how their names end."""

_TAG = "tag"
"""What the key of people is called in files of predictions and of people."""

_PEOPLE = pa.schema([(_TAG, KEY), ("id", pa.string())])


def task_that_scored(steps: Iterable[Mapping[str, Any]]) -> str:
    """Return the last step that scores people, one of kind ``predict`` before one of kind ``evaluate``.

    Parameters
    ----------
    steps
        A run's, each with ``name`` and ``kind``.

    Raises
    ------
    DataMissing
        None of them does.
    """
    by_kind = {step.get("kind", ""): str(step["name"]) for step in steps}
    for kind in ("predict", "evaluate"):
        if kind in by_kind:
            return by_kind[kind]
    raise DataMissing("no step of this run scores people: `predict` and `evaluate` do")


def predictions_by_id(
    storage: RunStorage, dataset: Dataset, task: str, settings: Mapping[str, Mapping[str, Any]]
) -> Iterator[pa.RecordBatch]:
    """Yield a run's predictions, each with the id that this party knows the person by.

    Parameters
    ----------
    storage
        The run's files.
    dataset
        This party's dataset of the run; the columns of its id come first, as they were compared.
    task
        The task that has scored.
    settings
        Task → its settings where they differ from the defaults, which name the tasks that made rows and people.

    Raises
    ------
    ConfigError
        The rows are no people but events of a joined stream.
    DataMissing
        A task has published nothing, or no predictions: this party did not learn them.
    DataCorrupt
        A file has changed, or somebody who is scored is not among the people of the run.

    Notes
    -----
    Reveals: nothing; all of it is this party's.
    Cost: one pass over both files, in the order of tags; holds a batch of each.
    """
    rows_task = settings.get(task, {}).get("rows_task", "align")
    with suppress(DataMissing):  # what has made the rows may be gone, what has found the people not
        rows = storage.published(rows_task)
        if rows.facts.get("unit") == Unit.EVENT.value:
            text = f"the rows of task `{rows_task}` are events of a joined stream, of which tags alone are kept"
            raise ConfigError(f"{text}; read the predictions by tag", field="rows_task")
    people = storage.published(settings.get(rows_task, {}).get("psi_task", "psi"))
    scored = storage.published(task)
    if not any(entry.name == PREDICTIONS for entry in scored.files):
        text = f"task `{task}` has left no predictions here: with `scores: leader`, only the leader learns them"
        raise DataMissing(text, where=scored.uri)
    for manifest in (people, scored):
        manifest.verify()
    place = scored.path(PREDICTIONS)
    schema = next(iter(read_batches(place)), pa.RecordBatch.from_pylist([], _PEOPLE)).schema
    if schema.names[0] != _TAG:
        raise DataMissing(f"the rows of task `{rows_task}` are not those of people by tag", where=place)
    for known, scores in walk((_PEOPLE, _pairs(people)), (schema, read_batches(place))):
        if scores.num_rows:
            found = known.filter(pa.array(are_in(keys_of(known), keys_of(scores))))
            if found.num_rows != scores.num_rows:
                missing = scores.num_rows - found.num_rows
                raise DataCorrupt(f"{missing} people who are scored are not among those of the run", where=people.uri)
            yield _beside(columns_of_ids(dataset, found.column("id")), scores, dataset)


def _pairs(people: Manifest) -> Iterator[pa.RecordBatch]:
    for entry in people.files:
        yield from read_batches(people.path(entry.name), _PEOPLE.names)


def _beside(ids: Mapping[str, pa.Array], scores: pa.RecordBatch, dataset: Dataset) -> pa.RecordBatch:
    """Return ids and predictions as columns of their own, probabilities of classes each in one."""
    predicted: dict[str, pa.Array] = {}
    for name, column in zip(scores.schema.names[1:], scores.columns[1:], strict=True):
        if pa.types.is_fixed_size_list(column.type):
            width = column.type.list_size
            classes = dataset.label_classes if len(dataset.label_classes) == width else range(width)
            predicted |= {f"{SCORE}_{each}": pc.list_element(column, place) for place, each in enumerate(classes)}
        else:
            predicted[name] = column
    columns: dict[str, pa.Array] = {}
    for name, column in ids.items():
        while name in predicted:  # an id that is called as a figure
            name += "_"
        columns[name] = column
    return pa.RecordBatch.from_pydict({**columns, **predicted})


def write_file(batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """Write batches to a new file that only its owner may read; return how many rows it has.

    Parameters
    ----------
    path
        Where, on this machine; its ending says how. It appears whole or not at all.

    Raises
    ------
    ConfigError
        There is something already, there is no such folder, the ending is not one of `ENDINGS`, or it may not be
        written.
    DataMissing
        There is no row.
    DiskFull
        There is no room for it.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"`{path}` ends in none of: {', '.join(ENDINGS)}", field="to")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder `{path.parent}`; make it", field="to")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _private(partial) as file:
            rows = _write(batches, file, path.suffix)
        _move(partial, path)
    except FileExistsError:
        raise ConfigError(f"`{path}` is there already; remove it, or name another file", field="to") from None
    except OSError as error:
        problem = f"`{path}` cannot be written: {error.strerror or error}"
        raise shortage(error) or ConfigError(problem, field="to") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return rows


def _move(partial: Path, path: Path) -> None:
    durable.sync(partial)
    try:
        os.link(partial, path)  # unlike a rename, never in the place of another file
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError from None
        durable.replace(partial, path)
    durable.sync(path.parent)


@contextmanager
def _private(path: Path) -> Iterator[Any]:
    with suppress(FileNotFoundError):
        path.unlink()  # of a process that was killed
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


def _write(batches: Iterable[pa.RecordBatch], file: Any, ending: str) -> int:
    rows, writer = 0, None
    try:
        for batch in batches:
            if writer is None:
                kinds = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}
                writer = kinds[ending](file, batch.schema)
            writer.write_batch(batch)
            rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise DataMissing("nobody was scored")
    return rows
