"""What the pages show: disclosures, refusals, approvals, peers, landed partitions, models; how long halves waited."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the tables and columns."""
    for name in ("announced_ms", "started_ms"):
        op.add_column("halves", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_runs_opened_ms", "runs", ["opened_ms"])
    op.add_column("runs", sa.Column("at_rest", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "disclosures",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "task", "attempt", "name", name="pk_disclosures"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_disclosures_run_id"),
    )
    op.create_table(
        "refusals",
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("dag_run_id", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("failure", sa.JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "dag_run_id", name="pk_refusals"),
    )
    op.create_table(
        "approvals",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("clause", sa.Text, nullable=False),
        sa.Column("asked_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("decided_ms", sa.BigInteger),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_approvals"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_approvals_run_id"),
        sa.CheckConstraint("state IN ('asked', 'approved', 'rejected', 'expired')", name="ck_approvals_state"),
    )
    op.create_table(
        "peers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("connected", sa.Boolean, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("clock_skew_s", sa.Float(53), nullable=False),
        sa.Column("failure", sa.JSON),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("checks", sa.JSON),
        sa.Column("checked_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("name", name="pk_peers"),
    )
    op.create_table(
        "ticket_requests",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("own", sa.Boolean, nullable=False),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_ticket_requests"),
        sa.CheckConstraint("state IN ('open', 'granted', 'declined')", name="ck_ticket_requests_state"),
    )
    op.create_table(
        "landings",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("landed_ms", sa.BigInteger, nullable=False),
        sa.Column("synced", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("party", "dataset", "partition", name="pk_landings"),
    )
    op.create_table(
        "models",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("parent", sa.Integer),
        sa.Column("own_digest", sa.Text, nullable=False),
        sa.Column("peer_digest", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON),
        sa.Column("consumed", sa.JSON, nullable=False),
        sa.Column("champion", sa.Boolean, nullable=False),
        sa.Column("published_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_models"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_models_run_id"),
    )
    op.create_index("ix_models_run_id", "models", ["run_id"])
    champion = sa.text("champion")
    op.create_index(
        "uq_models_champion", "models", ["model"], unique=True, sqlite_where=champion, postgresql_where=champion
    )
