"""What runs the jobs that pass over rows: own sorts and DuckDB's joins on one machine, Spark on a cluster."""

from fedtasks.engines.opened import open_engine

__all__ = ["open_engine"]
