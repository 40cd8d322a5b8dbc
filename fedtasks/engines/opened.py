"""The engine that party.yaml names."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from fedtasks import private
from fedtasks.config import Duckdb, Party
from fedtasks.crypto.threads import n_threads
from fedtasks.data.storage import is_local, local_path
from fedtasks.engines.engine import Engine
from fedtasks.engines.memory import give_back_freed
from fedtasks.shortage import told_short


@contextmanager
def open_engine(party: Party, name: str, scratch: str) -> Iterator[Engine]:
    """Yield the engine that party.yaml names; what it keeps goes at the end.

    Parameters
    ----------
    name
        What the work is called on a cluster.
    scratch
        URI of a private folder. On this machine an engine keeps nothing anywhere else.
    """
    if party.spark is None:
        from fedtasks.engines.duck import DuckEngine

        with _local_folder(scratch) as folder:
            give_back_freed()
            settings = party.duckdb or Duckdb()
            engine = DuckEngine(folder, settings.memory_bytes, settings.threads or n_threads())
            try:
                with told_short(folder):
                    yield cast(Engine, engine)  # that a frame goes to its own engine, types cannot say
            finally:
                engine.close()
        return
    from fedtasks.engines.spark import SparkEngine
    from fedtasks.engines.spark_session import spark_session

    with told_short(), spark_session(party.spark, name, scratch) as session:
        yield cast(Engine, SparkEngine(session))


@contextmanager
def _local_folder(scratch: str) -> Iterator[Path]:
    """Make a private folder for one engine, in `scratch` if that is on this machine."""
    if not is_local(scratch):
        with TemporaryDirectory() as place:
            yield Path(place)
        return
    folder = local_path(scratch) / f"duckdb-{uuid.uuid4().hex}"
    private.make_folders(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
