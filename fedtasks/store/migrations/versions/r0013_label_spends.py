"""What peers were told of labels, over all runs and tickets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the table; what was told before there was one is not known."""
    op.create_table(
        "label_spends",
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("epsilon", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("peer", "dataset", "label", "item", name="pk_label_spends"),
    )
