"""Where a store may be made, rows to put into it, and other processes at the same store."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fedtasks.store import RunRow, Store, TicketRow
from tests.support.forks import FORKS

NOW = 1_700_000_000_000
RUN = "credit.2026-11-21.1"
TICKET = TicketRow("t-1", "shop", True, "grant", None, None, NOW)


@dataclass(frozen=True)
class Database:
    """Where an empty store may be made."""

    url: str
    password_file: Path | None


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory(prefix="fedtasks-store-") as folder:
        Store.open(f"sqlite:///{folder}/store.db").close()
        return Path(folder, "store.db").read_bytes()


def make_empty_store(file: Path) -> None:
    """Write the file of a store with nothing in it, which takes less than migrating one to this release."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
        written.write(_empty_store())


@contextmanager
def opened(database: Database, **options: Any) -> Iterator[Store]:
    with Store.open(database.url, database.password_file, **options) as store:
        yield store


def run_row(number: int = 1, **changes: Any) -> RunRow:
    row = RunRow(
        run_id=f"credit.2026-11-21.{number}",
        pipeline="credit",
        partition="2026-11-21",
        number=number,
        peer="shop",
        initiated=True,
        ticket_id="t-1",
        config_digest="d" * 64,
        config_json='{"a":1}',
        steps_json="[]",
        dag_id="credit",
        dag_run_id=f"manual__{number}",
        opened_ms=NOW + number,
    )
    return dataclasses.replace(row, **changes)


PRELUDE = """
from fedtasks.errors import TicketExhausted, TicketRateLimited
from fedtasks.store import Store, TicketRow
said = []
say = said.append
def meet():
    control.send("here")
    control.recv()
"""


class Process:
    """Another Python process with the same store; ``meet()`` in its code waits for `go`, ``say()`` keeps a word."""

    def __init__(self, database: Database, code: str, name: str = "") -> None:
        self._control, far = FORKS.Pipe()
        known = {"control": far, "url": database.url, "password_file": database.password_file, "name": name}
        self._process = FORKS.Process(target=exec, args=(f"{PRELUDE}{code}\ncontrol.send(said)", known), daemon=True)
        self._process.start()
        far.close()

    def wait_here(self) -> None:
        assert self._control.recv() == "here"

    def go(self) -> None:
        self._control.send("go")

    def end(self) -> list[Any]:
        """Return what it has said."""
        said: list[Any] = self._control.recv()
        self._process.join(120)
        assert self._process.exitcode == 0
        return said

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._control.close()


def run_together(database: Database, code: str, n_processes: int) -> list[Any]:
    """Run `code` in several processes that all pass ``meet()`` at the same time; returns what they have said."""
    with ExitStack() as stack:
        processes = [Process(database, code, str(number)) for number in range(n_processes)]
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            process.wait_here()
        for process in processes:
            process.go()
        return [word for process in processes for word in process.end()]
