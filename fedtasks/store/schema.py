"""The tables, as SQLAlchemy Core; `migrations` bring a database here."""

from __future__ import annotations

from functools import cache

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    true,
)

REVISION = "0016"
"""The newest of `migrations`: a store of another one is migrated, or refused."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _run_key() -> Column[str]:
    return Column("run_id", Text, ForeignKey("runs.run_id"), primary_key=True)


def _object(name: str) -> Column[object]:
    return Column(name, JSON(none_as_null=True))


tickets = Table(
    "tickets",
    metadata,
    Column("ticket_id", Text, primary_key=True),
    _text("peer"),
    Column("granted", Boolean, nullable=False),
    _text("grant"),
    Column("acceptance", Text),
    Column("revocation", Text),
    _count("issued_ms"),
    Column("synced", Boolean, nullable=False),
    Column("declination", Text),
)

uses = Table(
    "uses",
    metadata,
    Column("ticket_id", Text, ForeignKey("tickets.ticket_id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    # Of what the amount is, such as a file by its SHA-256; empty where a run uses one thing.
    Column("item", Text, primary_key=True, server_default=""),
    _count("amount"),
    # When the amount last rose; a charge of before there were daily limits counts for no day.
    Column("at_ms", BigInteger, nullable=False, server_default="0"),
)

# What a peer was told of a column of labels, in millionths of a nat. It counts as long as there are these labels,
# beyond the ticket and the run under which it was told, so there is no foreign key.
label_spends = Table(
    "label_spends",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    # What was told: a part of an attempt, or what is told once and for all.
    Column("item", Text, primary_key=True),
    _count("epsilon"),
    # Which task of which run has told it, and when it last rose.
    _text("run_id"),
    _text("task"),
    _count("at_ms"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    _text("pipeline"),
    _text("partition"),
    Column("number", Integer, nullable=False),
    _text("peer"),
    Column("initiated", Boolean, nullable=False),
    _text("ticket_id"),
    _text("config_digest"),
    _text("config_json"),
    _text("steps_json"),
    _text("dag_id"),
    _text("dag_run_id"),
    _text("state"),
    _object("failure"),
    _text("peer_state"),
    _object("peer_failure"),
    _text("receipt"),
    _text("peer_receipt"),
    _count("version"),
    _count("acked_version"),
    _count("peer_version"),
    _text("note"),
    _count("opened_ms"),
    Column("closed_ms", BigInteger),
    _text("reason"),
    Column("at_rest", Boolean, nullable=False, server_default=false()),
    # Empty for a run of before there was one.
    Column("dataset_digest", Text, nullable=False, server_default=""),
    # The DAG runs of what was there before have been triggered.
    Column("triggered", Boolean, nullable=False, server_default=true()),
    # When this party has removed its files; the row stays, since it is compared, counted and numbered by.
    Column("removed_ms", BigInteger),
    CheckConstraint("state IN ('running', 'succeeded', 'failed')", name="state"),
)
Index(None, runs.c.pipeline, runs.c.partition)
Index(None, runs.c.dag_id, runs.c.dag_run_id)
Index(None, runs.c.state)
Index(None, runs.c.opened_ms)
Index(None, runs.c.closed_ms)

halves = Table(
    "halves",
    metadata,
    _run_key(),
    Column("task", Text, primary_key=True),
    Column("own", Boolean, primary_key=True),
    Column("attempt", Integer, nullable=False),
    _text("state"),
    _text("token"),
    _count("since_ms"),
    _count("until_ms"),
    _object("failure"),
    _object("outcome"),
    _object("progress"),
    # When this attempt was there, and when it began to work.
    Column("announced_ms", BigInteger, nullable=False, server_default="0"),
    Column("started_ms", BigInteger, nullable=False, server_default="0"),
    Column("paid", Integer, nullable=False, server_default="0"),
    Column("leased", Boolean, nullable=False, server_default=false()),
    # Since when it has made no progress, and whether it waits for the other half meanwhile.
    Column("quiet_since_ms", BigInteger, nullable=False, server_default="0"),
    Column("awaits_peer", Boolean, nullable=False, server_default=false()),
    CheckConstraint("state IN ('waiting', 'running', 'succeeded', 'failed')", name="state"),
)

sessions = Table(
    "sessions",
    metadata,
    _run_key(),
    Column("task", Text, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    _count("bytes_sent"),
    _count("bytes_received"),
)

metrics = Table(
    "metrics",
    metadata,
    _run_key(),
    Column("task", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    # SQLite keeps NaN, the sign of a diverged training, as NULL.
    Column("value", Float(53)),
    _count("at_ms"),
)

disclosures = Table(
    "disclosures",
    metadata,
    _run_key(),
    Column("task", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    _count("messages"),
    _count("items"),
    _count("bytes"),
)

# A DAG run that came to no run, and why.
refusals = Table(
    "refusals",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("dag_run_id", Text, primary_key=True),
    Column("pipeline", Text, primary_key=True),
    _text("partition"),
    _text("peer"),
    Column("failure", JSON, nullable=False),
    _count("at_ms"),
)

approvals = Table(
    "approvals",
    metadata,
    _run_key(),
    _text("state"),
    _text("clause"),
    _count("asked_ms"),
    _count("until_ms"),
    Column("decided_ms", BigInteger),
    _text("decided_by"),
    _text("reason"),
    CheckConstraint("state IN ('asked', 'approved', 'rejected', 'expired')", name="state"),
)

peers = Table(
    "peers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("connected", Boolean, nullable=False),
    _text("version"),
    Column("clock_skew_s", Float(53), nullable=False),
    _object("failure"),
    _count("since_ms"),
    _count("seen_ms"),
    # What the last preflight found, a list of {name, ok, code, text}.
    _object("checks"),
    Column("checked_ms", BigInteger),
    # Which store the peer was last known to have, how many runs that had, and when it was found to have lost some.
    Column("store_id", Text, nullable=False, server_default=""),
    Column("store_runs", BigInteger, nullable=False, server_default="0"),
    Column("restored_ms", BigInteger),
)

# One row: which store this is.
identity = Table("identity", metadata, Column("store_id", Text, primary_key=True))

# Runs that a peer remembers and this store does not: it was restored from a copy that is older, or made anew.
lost_runs = Table(
    "lost_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    _text("peer"),
    _text("ticket_id"),
    _count("at_ms"),
)
Index(None, lost_runs.c.peer)

ticket_requests = Table(
    "ticket_requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    _text("peer"),
    Column("own", Boolean, nullable=False),
    Column("asked", JSON, nullable=False),
    _text("state"),
    _count("at_ms"),
    CheckConstraint("state IN ('open', 'granted', 'declined')", name="state"),
)

landings = Table(
    "landings",
    metadata,
    Column("party", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    _count("rows"),
    _count("landed_ms"),
    Column("synced", Boolean, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    _text("peer"),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    _text("partition"),
    Column("parent", Integer),
    _text("own_digest"),
    _text("peer_digest"),
    _object("metrics"),
    # Dataset -> the partitions of it that this version has learnt from beyond its parent; this party's datasets only.
    Column("consumed", JSON, nullable=False),
    Column("champion", Boolean, nullable=False),
    _count("published_ms"),
    Column("algorithm", Text, nullable=False, server_default=""),
    # When this party has given up its half; the row stays, since later versions say what they have learnt beyond it.
    Column("removed_ms", BigInteger),
)
Index(None, models.c.run_id)

# The last commit of a shard of a stream that is joined with a peer, numbered alike on both sides. What is committed
# outlives the run that has committed it, so there is no foreign key.
joins = Table(
    "joins",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    _count("number"),
    # Of the account of the commit, as hexadecimal digits.
    _text("digest"),
    _text("run_id"),
    _count("at_ms"),
)

# What became of this party's rows, by windows of event time.
join_windows = Table(
    "join_windows",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    # Whose commits have counted them.
    Column("run_id", Text, primary_key=True),
    _count("joined"),
    _count("corrected"),
    _count("late"),
    _count("too_late"),
    _count("unmatched"),
    _count("duplicates"),
    _count("rejected"),
    # Of all rows that were joined together: how long after its event time each was committed.
    _count("lag_ms"),
)
Index(None, join_windows.c.run_id)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _count("at_ms"),
    _text("actor"),
    _text("action"),
    _text("decision"),
    Column("detail", JSON, nullable=False),
    _text("previous"),
    _text("digest"),
    CheckConstraint("decision IN ('allowed', 'refused', 'noted')", name="decision"),
)

# One row. Its key changes when another gateway becomes the active one, which waits for whoever holds the key's lock.
terms = Table(
    "terms",
    metadata,
    Column("term", BigInteger, primary_key=True, autoincrement=False),
    _count("began_ms"),
    _text("host"),
    Column("addresses", JSON, nullable=False),
)

tag_tables = Table(
    "tag_tables",
    metadata,
    Column("table_id", Integer, nullable=False),
    Column("dataset", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    _text("generation"),
    Column("columns", JSON, nullable=False),
    _count("rows"),
    _count("loaded_ms"),
)

# No foreign key: checking it row by row would cost more than the load.
tags = Table(
    "tags",
    metadata,
    Column("table_id", Integer, primary_key=True, autoincrement=False),
    Column("tag", LargeBinary, primary_key=True),
    _text("id"),
    Column("answer", Text),
)
Index(None, tags.c.table_id, tags.c.id)


@cache
def with_partial_indexes() -> MetaData:
    """Return all tables, also with the indexes over some rows only; naming these imports both databases' dialects."""
    # A DAG run works on one run of each pipeline at a time; when it is cleared after its run has ended, it may open the
    # next.
    running = runs.c.state == "running"
    columns = runs.c.dag_id, runs.c.dag_run_id, runs.c.pipeline
    Index("uq_runs_running_dag_run", *columns, unique=True, sqlite_where=running, postgresql_where=running)
    # One version of a model is in use.
    champion = models.c.champion
    Index("uq_models_champion", models.c.model, unique=True, sqlite_where=champion, postgresql_where=champion)
    return metadata
