"""Versions of models, as far as both sides have published them; one version of each is in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, select, update

from fedtasks.clock import utc
from fedtasks.errors import ModelRemoved, ModelTaken, ModelUnknown
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns, to_row
from fedtasks.store.rows import ModelRow


class ModelBook(Repository):
    """The models of a store; who writes a version waits for all others who do."""

    _table = schema.models

    def get(self, model: str, version: int) -> ModelRow | None:
        """Return a version, or None."""
        return self._row(ModelRow, model=model, version=version)

    def champion(self, model: str) -> ModelRow | None:
        """Return the version in use, or None."""
        return self._row(ModelRow, model=model, champion=True)

    def list(self, model: str | None = None) -> Rows[ModelRow]:
        """Return the versions of one model or of all, by name and number."""
        return self._rows(ModelRow, *self._table.primary_key, model=model)

    def consumed(self, model: str, version: int) -> dict[str, Rows[str]]:
        """Return what a version and all it went on from learnt from: this party's dataset → sorted partitions."""
        known = {row.version: row for row in self.list(model)}
        found: dict[str, set[str]] = {}
        row = known.get(version)
        while row is not None:
            for dataset, partitions in row.consumed.items():
                found.setdefault(dataset, set()).update(partitions)
            row = known.get(row.parent) if row.parent is not None else None
        return {dataset: sorted(partitions) for dataset, partitions in sorted(found.items())}

    def publish(self, row: ModelRow, pipeline: str) -> ModelRow:
        """Enter a version, which is in use from now on; entering it twice enters it once.

        What one side alone had entered, before its peer failed and both did so again under the next number, goes.

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
        ModelUnknown
            There is no such version as its parent.
        """
        with self._write() as connection:
            self._lock_table(connection)
            owners = select(schema.runs.c.pipeline, self._table.c.peer).join_from(self._table, schema.runs)
            for owner in connection.execute(owners.where(self._table.c.model == row.model).distinct()):
                if tuple(owner) != (pipeline, row.peer):
                    detail = f"`{row.model}` belongs to pipeline {owner.pipeline} with {owner.peer}"
                    raise ModelTaken(detail, model=row.model)
            stored = [to_row(ModelRow, each) for each in connection.execute(self._where(model=row.model))]
            versions = {each.version: each for each in stored}
            found = versions.get(row.version)
            if found is not None and _identity(found) == _identity(row):
                return found
            newest = max(versions, default=0)
            if row.version <= newest:
                raise ModelTaken(model=row.model, version=row.version, newest=newest)
            if row.parent is not None and row.parent not in versions:
                raise ModelUnknown(model=row.model, version=row.parent)
            self._remove_again(connection, row, stored)
            self._step_down(connection, row.model)
            published = replace(row, champion=True)
            connection.execute(self._table.insert(), to_columns(published))
            return published

    def make_champion(self, model: str, version: int) -> ModelRow:
        """Put a version into use; raise `ModelUnknown` when there is none, `ModelRemoved` when its half was removed."""
        table = self._table
        with self._write() as connection:
            self._lock_table(connection)
            found = connection.execute(self._where(model=model, version=version)).first()
            if found is None:
                raise ModelUnknown(model=model, version=version)
            require_kept(to_row(ModelRow, found))
            self._step_down(connection, model)
            chosen = (table.c.model == model) & (table.c.version == version)
            connection.execute(update(table).where(chosen).values(champion=True))
            return replace(to_row(ModelRow, found), champion=True)

    def mark_removed(self, model: str, version: int) -> bool:
        """Remember that this party gives up its half of a version, and return whether it may: not of one in use."""
        table = self._table
        with self._write() as connection:
            self._lock_table(connection)
            may_go = (table.c.model == model) & (table.c.version == version) & ~table.c.champion
            found = connection.execute(update(table).where(may_go).values(removed_ms=self._clock()))
            return found.rowcount == 1

    def _remove_again(self, connection: Connection, row: ModelRow, stored: Iterable[ModelRow]) -> None:
        """Remove what is the very version that a row is, under an earlier number that no other has gone on from."""
        versions, table = list(stored), self._table
        parents = {row.parent, *(each.parent for each in versions)}
        for each in versions:
            if _halves(each) == _halves(row) and each.version not in parents:
                connection.execute(delete(table).where(table.c.model == row.model, table.c.version == each.version))

    def _step_down(self, connection: Connection, model: str) -> None:
        table = self._table
        connection.execute(update(table).where(table.c.model == model, table.c.champion).values(champion=False))


def require_kept(row: ModelRow) -> None:
    """Raise `ModelRemoved` of a version whose half this party has given up."""
    if row.removed_ms is not None:
        raise ModelRemoved(model=row.model, version=row.version, removed=utc(row.removed_ms, "%Y-%m-%d"))


def _identity(row: ModelRow) -> Mapping[str, Any]:
    """Return what makes a version; when it came to be, its figures and whether it is in use may differ."""
    return {**to_columns(row), "metrics": None, "champion": False, "published_ms": 0, "removed_ms": None}


def _halves(row: ModelRow) -> tuple[str, str, str]:
    """Return what two numbers of one version have in common."""
    return row.run_id, row.own_digest, row.peer_digest
