"""Alembic revisions of the store; run by `fedtasks.store.migration`, without an alembic.ini."""
