"""Alembic's entry: migrates the connection that it is handed, inside the transaction that is already open."""

from __future__ import annotations

from alembic import context

from fedtasks.store.schema import with_partial_indexes

context.configure(connection=context.config.attributes["connection"], target_metadata=with_partial_indexes())
context.run_migrations()
