"""Which algorithm has trained a version of a model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; of versions that are there, their files tell."""
    op.add_column("models", sa.Column("algorithm", sa.Text, nullable=False, server_default=""))
