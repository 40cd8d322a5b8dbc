"""Whether the worker of a half renews a lease, and since when the half has made no progress."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns; a half that works now has no lease until its worker renews one."""
    op.add_column("halves", sa.Column("leased", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("halves", sa.Column("quiet_since_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("halves", sa.Column("awaits_peer", sa.Boolean, nullable=False, server_default=sa.false()))
