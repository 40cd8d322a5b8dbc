"""Alembic's entry: migrates the connection that it is handed, inside the transaction that is already open."""

from __future__ import annotations

from alembic import context

from fedtasks.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
