"""What a run's dataset was declared as, and which attempts earlier charges have paid for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns; a run that is there goes on with any declaration, and all its attempts are of its one charge."""
    op.add_column("runs", sa.Column("dataset_digest", sa.Text, nullable=False, server_default=""))
    op.add_column("halves", sa.Column("paid", sa.Integer, nullable=False, server_default="0"))
