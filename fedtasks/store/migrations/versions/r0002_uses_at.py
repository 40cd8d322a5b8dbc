"""When a use was last raised, for limits per day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; what was charged before counts for no day."""
    op.add_column("uses", sa.Column("at_ms", sa.BigInteger, nullable=False, server_default="0"))
