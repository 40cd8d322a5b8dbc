"""When this party has removed the files of a run, and its half of a version of a model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the columns; nothing of what is there was removed by policy."""
    op.add_column("runs", sa.Column("removed_ms", sa.BigInteger))
    op.add_column("models", sa.Column("removed_ms", sa.BigInteger))
