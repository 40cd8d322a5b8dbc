"""Of what a use is, such as a file by its SHA-256, so that each is charged for itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column to the key; what was charged before stays, as a use of the whole run."""
    with op.batch_alter_table("uses") as uses:
        uses.add_column(sa.Column("item", sa.Text, nullable=False, server_default=""))
        uses.drop_constraint("pk_uses", type_="primary")
        uses.create_primary_key("pk_uses", ["ticket_id", "kind", "run_id", "item"])
