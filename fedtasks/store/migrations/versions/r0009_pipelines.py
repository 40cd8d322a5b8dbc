"""A DAG run may hold a run of each of several pipelines, and be refused one of each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Widen what may be there once; every DAG held one pipeline, which is named as it is."""
    running = sa.text("state = 'running'")
    op.drop_index("uq_runs_running_dag_run", "runs")
    op.create_index(
        "uq_runs_running_dag_run",
        "runs",
        ["dag_id", "dag_run_id", "pipeline"],
        unique=True,
        sqlite_where=running,
        postgresql_where=running,
    )
    op.rename_table("refusals", "refusals_before")
    op.create_table(
        "refusals",
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("dag_run_id", sa.Text, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("failure", sa.JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        # The table of before keeps the name of its key until it is gone.
        sa.PrimaryKeyConstraint("dag_id", "dag_run_id", "pipeline", name="pk_refusals_pipeline"),
    )
    op.execute(
        "INSERT INTO refusals (dag_id, dag_run_id, pipeline, partition, peer, failure, at_ms)"
        " SELECT dag_id, dag_run_id, dag_id, partition, peer, failure, at_ms FROM refusals_before"
    )
    op.drop_table("refusals_before")
