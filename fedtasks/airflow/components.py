"""All components of one Airflow, from one process that imports Airflow once: for one machine, not for a company.

    python -m fedtasks.airflow.components FOLDER [RESTART_S]

migrates the metadata database, then runs api-server, scheduler, dag-processor and triggerer, each in a fork with a log
of its own in FOLDER, where ``NAME.pid`` holds its process id. What they do is Airflow's own command line. As soon as
one ends, all do; with RESTART_S it is started again after so many seconds, as a service manager would.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

COMPONENTS: Mapping[str, Sequence[str]] = {
    # First, because it takes longest to start.
    "api-server": ("api-server", "--workers", "1"),
    # Their log servers would listen on every interface, and both parties' on the same port.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
"""Name → arguments of Airflow's command line."""

_SHARED = (
    "airflow.__main__",
    "airflow.serialization.serialized_objects",
    "airflow.jobs.scheduler_job_runner",
    "airflow.executors.local_executor",
    "airflow.dag_processing.manager",
    "airflow.jobs.triggerer_job_runner",
    "airflow.api_fastapi.execution_api.app",
)
"""What most of them import: half of the CPU of a start, once instead of for each."""

_DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def main(folder: Path, restart_s: float | None = None) -> int:
    """Run all components until SIGTERM, or until one of them ends.

    Parameters
    ----------
    folder
        Where their logs and process ids are.
    restart_s
        After how many seconds one that has ended by itself is started again; by default all end with it.

    Returns
    -------
    int
        Exit code: 0 after SIGTERM, 1 when a component ended by itself.
    """
    _import_shared()
    migration = _fork("migrate", ("db", "migrate"), folder)
    _, status = os.waitpid(migration, 0)
    if status:
        print(f"the metadata database cannot be migrated; see {folder / 'migrate.log'}", flush=True)
        return 1
    children: dict[int, str] = {}
    is_told = False

    def tell(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_told
        is_told = True
        for pid in children:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(pid, signal.SIGTERM)

    # Nothing is told to end before all have begun, else one would be missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, tell)
    for name in COMPONENTS:
        children[_begin(name, folder)] = name
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    code = 0
    while children:
        pid, status = os.wait()
        if pid not in children:
            continue
        name = children.pop(pid)
        if is_told:
            continue
        print(f"the {name} ended with {os.waitstatus_to_exitcode(status)}; see {folder / name}.log", flush=True)
        if restart_s is None:
            code = 1
            tell(signal.SIGTERM, None)
            continue
        time.sleep(restart_s)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if not is_told:
            children[_begin(name, folder)] = name
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return code


def _begin(name: str, folder: Path) -> int:
    """Start a component, keep its process id in a file and return it."""
    pid = _fork(name, COMPONENTS[name], folder)
    (folder / f"{name}.pid").write_text(str(pid), encoding="utf-8")
    return pid


def _import_shared() -> None:
    """Import what all need. Nothing of it starts a thread or opens a connection, which would not survive a fork."""
    gc.disable()  # what is imported stays
    for module in _SHARED:
        importlib.import_module(module)
    gc.freeze()
    gc.enable()


def _fork(name: str, arguments: Sequence[str], folder: Path) -> int:
    """Run Airflow's command line in a child and return its process id; in the child, this does not return."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    from airflow import settings
    from airflow.__main__ import main as airflow

    database = str(settings.SQL_ALCHEMY_CONN)
    if database.startswith("sqlite"):
        _be_patient(name, database)
        settings.configure_vars()  # type: ignore[no-untyped-call]
        settings.configure_orm()  # type: ignore[no-untyped-call]
    sys.argv = ["airflow", *arguments]
    airflow()  # type: ignore[no-untyped-call]
    if name == "migrate" and database.startswith("sqlite"):
        _use_wal(database)
    sys.exit()


def _be_patient(name: str, database: str) -> None:
    """Say how long a component waits for SQLite's one writer.

    The api-server writes its audit log on its event loop. When another of its requests holds the lock, both wait for
    each other until this time is over; whoever asked tries again. The others have no such knot and may wait.
    """
    os.environ[_DATABASE] = f"{database}?timeout={2 if name == 'api-server' else 30}"


def _use_wal(database: str) -> None:
    """Let SQLite's readers and the one writer work side by side; that is kept in the file."""
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *(float(seconds) for seconds in sys.argv[2:3])))
