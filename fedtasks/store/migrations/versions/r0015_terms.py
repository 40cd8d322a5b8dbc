"""Which of a party's gateways is the active one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Make the table; the first gateway that serves the store begins the first term."""
    op.create_table(
        "terms",
        sa.Column("term", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("addresses", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("term", name="pk_terms"),
    )
