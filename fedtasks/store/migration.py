"""Brings the schema of a store up to date, by the revisions in `migrations`."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from fedtasks.errors import StoreUnavailable
from fedtasks.store import engine as database

MIGRATION_LOCK = 0x66656474
"""PostgreSQL advisory lock held while the schema is migrated."""

# Alembic keeps the migration under way in a global of its own.
_one_migration = threading.Lock()


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to this release, or to an older `revision`; several processes may try at once.

    Raises
    ------
    StoreUnavailable
        Its schema is of a newer release.
    """
    config = _config()
    with _one_migration, engine.execution_options(writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError:
            raise newer(engine) from None


def is_known(revision: str) -> bool:
    """Return whether this release knows a revision."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def newer(engine: Engine) -> StoreUnavailable:
    """Return the error of a schema that is newer than this release."""
    found = database.revision_of(engine)
    return StoreUnavailable(
        f"the schema is {found}, newer than this fedtasks knows; upgrade fedtasks", where=database.place(engine)
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
