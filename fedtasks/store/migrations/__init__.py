"""Alembic revisions of the store; run by `fedtasks.store.engine`, without an alembic.ini."""
