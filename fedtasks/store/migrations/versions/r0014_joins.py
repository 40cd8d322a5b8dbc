"""What streams have joined: the last commit of each shard, and counts of rows by windows of event time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_COUNTS = ("joined", "corrected", "late", "too_late", "unmatched", "duplicates", "rejected", "lag_ms")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "joins",
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("peer", "stream", "shard", name="pk_joins"),
    )
    op.create_table(
        "join_windows",
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("run_id", sa.Text, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.PrimaryKeyConstraint("peer", "stream", "shard", "start_ms", "run_id", name="pk_join_windows"),
    )
    op.create_index("ix_join_windows_run_id", "join_windows", ["run_id"])
