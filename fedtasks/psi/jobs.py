"""The engine of a half, whose jobs say that the half makes progress for as long as they do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fedtasks.engines import open_engine
from fedtasks.engines.engine import Engine
from fedtasks.runtime.context import TaskContext

LOOK_S = 2.0
"""So often is looked how far a job is."""


@contextmanager
def engine_of(context: TaskContext, scratch: str) -> Iterator[Engine]:
    """Yield the engine that party.yaml names.

    Parameters
    ----------
    context
        Whose jobs run; it is told that it is alive whenever a job has come further, such as a long shuffle.
    scratch
        URI of a folder for what jobs need while they run.
    """
    config, ended = context.config, threading.Event()
    with open_engine(context.party, f"{config.run_id} {config.half}", scratch) as engine:

        def watch() -> None:
            last = engine.share
            while not ended.wait(LOOK_S):
                share = engine.share
                if share != last:
                    last = share
                    context.alive()

        thread = threading.Thread(target=watch, name="jobs", daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            ended.set()
            thread.join()
