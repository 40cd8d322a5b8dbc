"""What a function of one's own gets when it runs as one half of a step: a link, its configuration, its data."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from fedtasks.config import FeatureType
from fedtasks.data.blocks import Blocks
from fedtasks.data.tables import LABEL, WEIGHT, list_parts, read_rows, rows_schema
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import ConfigError
from fedtasks.link.link import Link
from fedtasks.runtime.context import Entry, Outcome, TaskContext

log = logging.getLogger(__name__)

MAX_OUTCOME_CHARS = 64_000
"""The longest outcome, as JSON, that a function may return: it is kept and signed by both sides."""

AS_LIBRARY = "_AIRFLOW__AS_LIBRARY"
"""With this in the environment, importing Airflow makes no folder and reads no configuration."""
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_IN_FILE = re.compile(r"/[^:]+\.py:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Config:
    """What one half of a function of one's own knows of the run.

    Parameters
    ----------
    party, peer
        The names of this party and of the other.
    leader
        Which of the two holds the label.
    run_id, partition
        The run, and whose data it uses.
    settings
        The step's settings, equal on both sides.
    report
        ``report({"done": 3, "of": 10}, step=3, loss=0.4)`` shows progress and stores metrics of this side.
    alive
        ``alive()`` says that a long computation goes on; a half that says nothing for `stall_s` is ended.
    """

    party: str
    peer: str
    leader: str
    run_id: str
    partition: str
    settings: Mapping[str, Any]
    report: Callable[..., None] = field(repr=False)
    alive: Callable[[], None] = field(repr=False)

    @property
    def is_leader(self) -> bool:
        """Whether this party holds the label."""
        return self.leader == self.party


class Data:
    """This party's rows: its dataset as declared, and the aligned rows if the run has them."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    @cached_property
    def _dataset(self) -> Any:
        return self._context.dataset

    def batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """Yield the dataset's rows in batches: the named columns, or all features; never the id.

        The label and the weight are asked for by ``label`` and ``weight``, or as the dataset calls them.

        Raises
        ------
        ConfigError
            A column is not declared as a feature or the label.
        DataMissing, ColumnMissing, ColumnType, FileInvalid
            The dataset is not what was declared.
        """
        names = self._names(columns)
        for part in list_parts(self._dataset, self._context.partitions):
            for batch in read_rows(self._dataset, part):
                self._context.alive()
                yield pa.RecordBatch.from_arrays([batch.column(column) for column in names.values()], list(names))

    def table(self, *columns: str) -> pa.Table:
        """Return what `batches` yields as one table, which must fit into memory."""
        schema = rows_schema(self._dataset)
        fields = [schema.field(column).with_name(name) for name, column in self._names(columns).items()]
        return pa.Table.from_batches(self.batches(*columns), pa.schema(fields))

    @property
    def numeric(self) -> list[str]:
        """The numeric features, in the order declared."""
        return [name for name, kind in self._dataset.model_features.items() if kind is FeatureType.NUMERIC]

    @cached_property
    def blocks(self) -> Blocks:
        """The aligned rows, in the same order on both sides; raises `DataMissing` before task ``align``."""
        return Blocks.open(self._context.storage)

    def _names(self, columns: tuple[str, ...]) -> dict[str, str]:
        """Return the asked columns, by default all features, each with what rows call it."""
        features: Mapping[str, FeatureType] = self._dataset.features
        known: dict[str, str] = {}
        for alias, column, declared in (
            ("label", LABEL, self._dataset.label),
            ("weight", WEIGHT, self._dataset.weight),
        ):
            if declared is not None:
                known |= {alias: column, declared: column}
        known |= {name: name for name in features}
        for name in columns:
            if name not in known:
                raise ConfigError(f"`{name}` is not a column of {self._dataset.name}: {', '.join(known)}", field=name)
        return {name: known[name] for name in columns or features}


def entry_at(entry: str) -> Entry:
    """Import what a step runs.

    Parameters
    ----------
    entry
        ``package.module:function``, an `Entry`, or ``/folder/file.py:function`` of one's own.

    Raises
    ------
    ConfigError
        There is none, or something that it imports is missing. What else its module raises goes on its way.
    """
    place, _, name = entry.rpartition(":")
    try:
        if _IN_FILE.fullmatch(entry):
            return entry_of(getattr(_module(Path(place)), name).function)
        if _ENTRY.fullmatch(entry):
            found: Entry = getattr(importlib.import_module(place), name)
            return found
    except (ImportError, AttributeError, FileNotFoundError, SyntaxError) as error:
        log.exception("`%s` cannot be imported", entry)
        raise ConfigError(f"`{entry}` cannot be imported: {error}", field="entry") from error
    raise ConfigError(f"`{entry}` is neither package.module:function nor /file.py:function", field="entry")


def _module(file: Path) -> ModuleType:
    """Import the DAG file that holds a function of one's own, without any of Airflow's state."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    with _airflow_as_library():
        spec.loader.exec_module(module)
    return module


@contextmanager
def _airflow_as_library() -> Iterator[None]:
    before = os.environ.get(AS_LIBRARY)
    os.environ[AS_LIBRARY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[AS_LIBRARY]
        else:
            os.environ[AS_LIBRARY] = before


def entry_of(function: Callable[[Link, Config, Data], Mapping[str, Any]]) -> Entry:
    """Return what runs `function` as one half; what that returns must equal the other half's."""

    def run(context: TaskContext) -> Outcome:
        config = context.config
        given = Config(
            party=context.party.name,
            peer=config.peer,
            leader=config.leader,
            run_id=config.run_id,
            partition=config.partition,
            settings=config.settings,
            report=context.report,
            alive=context.alive,
        )
        with context.open_link({}) as link:
            found = function(link, given, Data(context))
        return Outcome(values=_checked(function.__name__, found))

    return run


def _checked(name: str, found: object) -> dict[str, Any]:
    """Return what a function found, if it is something that both sides can sign."""
    if found is None:
        return {}
    try:
        if not isinstance(found, Mapping):
            raise TypeError
        text = json.dumps(to_plain(dict(found)), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError):
        raise ConfigError(f"`{name}` must return a mapping of what JSON can hold, without NaN", field=name) from None
    if len(text) > MAX_OUTCOME_CHARS:
        raise ConfigError(f"`{name}` returned {len(text)} characters, at most {MAX_OUTCOME_CHARS}", field=name)
    plain: dict[str, Any] = json.loads(text)
    return plain
