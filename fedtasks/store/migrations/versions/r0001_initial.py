"""Tickets, uses, runs, halves, sessions, metrics and the audit chain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("granted", sa.Boolean, nullable=False),
        sa.Column("grant", sa.Text, nullable=False),
        sa.Column("acceptance", sa.Text),
        sa.Column("revocation", sa.Text),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("synced", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name="pk_tickets"),
    )
    op.create_table(
        "uses",
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", "run_id", "kind", name="pk_uses"),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.ticket_id"], name="fk_uses_ticket_id"),
    )
    _create_runs()
    op.create_table(
        "halves",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("own", sa.Boolean, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("failure", sa.JSON(none_as_null=True)),
        sa.Column("outcome", sa.JSON(none_as_null=True)),
        sa.Column("progress", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("run_id", "task", "own", name="pk_halves"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_halves_run_id"),
        sa.CheckConstraint("state IN ('waiting', 'running', 'succeeded', 'failed')", name=op.f("ck_halves_state")),
    )
    op.create_table(
        "sessions",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("bytes_sent", sa.BigInteger, nullable=False),
        sa.Column("bytes_received", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "task", "shard", "attempt", name="pk_sessions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_sessions_run_id"),
    )
    op.create_table(
        "metrics",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Float(53)),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "task", "name", "step", name="pk_metrics"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_metrics_run_id"),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
        sa.CheckConstraint("decision IN ('allowed', 'refused', 'noted')", name=op.f("ck_audit_decision")),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("initiated", sa.Boolean, nullable=False),
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("config_digest", sa.Text, nullable=False),
        sa.Column("config_json", sa.Text, nullable=False),
        sa.Column("steps_json", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("dag_run_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("failure", sa.JSON(none_as_null=True)),
        sa.Column("peer_state", sa.Text, nullable=False),
        sa.Column("peer_failure", sa.JSON(none_as_null=True)),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("peer_receipt", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("acked_version", sa.BigInteger, nullable=False),
        sa.Column("peer_version", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("closed_ms", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
        sa.CheckConstraint("state IN ('running', 'succeeded', 'failed')", name=op.f("ck_runs_state")),
    )
    op.create_index("ix_runs_pipeline_partition", "runs", ["pipeline", "partition"])
    op.create_index("ix_runs_dag_id_dag_run_id", "runs", ["dag_id", "dag_run_id"])
    op.create_index("ix_runs_state", "runs", ["state"])
    running = sa.text("state = 'running'")
    op.create_index(
        "uq_runs_running_dag_run",
        "runs",
        ["dag_id", "dag_run_id"],
        unique=True,
        sqlite_where=running,
        postgresql_where=running,
    )
