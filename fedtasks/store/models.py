"""Versions of models, as far as both sides have published them; one version of each is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from fedtasks.errors import ModelTaken, ModelUnknown
from fedtasks.store import engine as database
from fedtasks.store import schema
from fedtasks.store.rows import ModelRow

_ORDER = schema.models.c.model, schema.models.c.version


class ModelRegistry:
    """The models of a store."""

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self._reader = reader
        self._writer = writer

    def version(self, model: str, version: int) -> ModelRow | None:
        """Return a version, or None."""
        return next(iter(self._find(model=model, version=version)), None)

    def champion(self, model: str) -> ModelRow | None:
        """Return the version in use, or None."""
        return next(iter(self._find(model=model, champion=True)), None)

    def versions(self, model: str | None = None) -> list[ModelRow]:
        """Return the versions of one model or of all, by name and number."""
        return self._find(**({} if model is None else {"model": model}))

    def consumed(self, model: str, version: int) -> dict[str, list[str]]:
        """Return what a version and all that it went on from have learnt from: own dataset → sorted partitions."""
        known = {row.version: row for row in self.versions(model)}
        found: dict[str, set[str]] = {}
        row = known.get(version)
        while row is not None:
            for dataset, partitions in row.consumed.items():
                found.setdefault(dataset, set()).update(partitions)
            row = known.get(row.parent) if row.parent is not None else None
        return {dataset: sorted(partitions) for dataset, partitions in sorted(found.items())}

    def publish(self, row: ModelRow, pipeline: str) -> ModelRow:
        """Enter a version, which is in use from now on; entering it twice enters it once.

        Parameters
        ----------
        row
            The version; its number is higher than all that are there.
        pipeline
            The pipeline of its run.

        Raises
        ------
        ModelTaken
            The name belongs to another pipeline or peer, or the number to another version.
        """
        with self._write() as connection:
            owners = select(schema.runs.c.pipeline, schema.models.c.peer).join_from(schema.models, schema.runs)
            for owner in connection.execute(owners.where(schema.models.c.model == row.model).distinct()):
                if tuple(owner) != (pipeline, row.peer):
                    detail = f"`{row.model}` belongs to pipeline {owner.pipeline} with {owner.peer}"
                    raise ModelTaken(detail, model=row.model)
            versions = {found.version: found for found in _rows(connection, model=row.model)}
            found = versions.get(row.version)
            if found is not None and _identity(found) == _identity(row):
                return found
            newest = max(versions, default=0)
            if row.version <= newest:
                raise ModelTaken(model=row.model, version=row.version, newest=newest)
            if row.parent is not None and row.parent not in versions:
                raise ModelUnknown(model=row.model, version=row.parent)
            _step_down(connection, row.model)
            published = replace(row, champion=True)
            connection.execute(schema.models.insert(), vars(published))
            return published

    def make_champion(self, model: str, version: int) -> ModelRow:
        """Put a version into use; raise `ModelUnknown` when there is none."""
        with self._write() as connection:
            found = next(_rows(connection, model=model, version=version), None)
            if found is None:
                raise ModelUnknown(model=model, version=version)
            _step_down(connection, model)
            table = schema.models
            chosen = (table.c.model == model) & (table.c.version == version)
            connection.execute(update(table).where(chosen).values(champion=True))
            return replace(found, champion=True)

    def _find(self, **equal: object) -> list[ModelRow]:
        with database.translated(self._reader), self._reader.begin() as connection:
            return list(_rows(connection, **equal))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with database.translated(self._writer), self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("LOCK TABLE models IN EXCLUSIVE MODE")
            yield connection


def _rows(connection: Connection, **equal: object) -> Iterator[ModelRow]:
    table = schema.models
    query = select(table).where(*(table.c[name] == value for name, value in equal.items())).order_by(*_ORDER)
    for found in connection.execute(query):
        yield ModelRow(**found._mapping)


def _step_down(connection: Connection, model: str) -> None:
    table = schema.models
    connection.execute(update(table).where(table.c.model == model, table.c.champion).values(champion=False))


def _identity(row: ModelRow) -> Mapping[str, Any]:
    """What a version is; when it came to be, its figures and whether it is in use may differ."""
    return {**vars(row), "metrics": None, "champion": False, "published_ms": 0}
