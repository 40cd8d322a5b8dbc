"""Whether a run's DAG run is known to have been triggered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column; the DAG run of every run that is there has been triggered, or its run is given up as before."""
    op.add_column("runs", sa.Column("triggered", sa.Boolean, nullable=False, server_default=sa.true()))
