"""Spark: its session, and what its jobs have in common."""
