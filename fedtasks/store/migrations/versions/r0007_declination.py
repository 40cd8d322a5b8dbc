"""The signed text with which the holder of a ticket says no."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; nobody could decline a ticket before."""
    op.add_column("tickets", sa.Column("declination", sa.Text))
