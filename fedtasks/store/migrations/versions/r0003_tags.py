"""Tags of own ids, for live lookups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "tag_tables",
        sa.Column("table_id", sa.Integer, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("generation", sa.Text, nullable=False),
        sa.Column("columns", sa.JSON, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("loaded_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("dataset", "key_id", name="pk_tag_tables"),
    )
    op.create_table(
        "tags",
        sa.Column("table_id", sa.Integer, nullable=False),
        sa.Column("tag", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.PrimaryKeyConstraint("table_id", "tag", name="pk_tags"),
    )
    op.create_index("ix_tags_table_id_id", "tags", ["table_id", "id"])
