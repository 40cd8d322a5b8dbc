"""Which store this is, what peers remember that it does not, and the runs by their end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add tables, columns and an index; the store gets its identity when it is first asked for it."""
    op.create_index("ix_runs_closed_ms", "runs", ["closed_ms"])
    op.create_table("identity", sa.Column("store_id", sa.Text, nullable=False), sa.PrimaryKeyConstraint("store_id"))
    op.create_table(
        "lost_runs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_lost_runs_peer", "lost_runs", ["peer"])
    op.add_column("peers", sa.Column("store_id", sa.Text, nullable=False, server_default=""))
    op.add_column("peers", sa.Column("store_runs", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("peers", sa.Column("restored_ms", sa.BigInteger))
