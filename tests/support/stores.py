"""Where a store may be made, rows to put into it, and other processes at the same store."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtasks.store import RunRow, Store, TicketRow

NOW = 1_700_000_000_000
RUN = "credit.2026-11-21.1"
TICKET = TicketRow("t-1", "shop", True, "grant", None, None, NOW)
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Database:
    """Where an empty store may be made."""

    url: str
    password_file: Path | None


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
import sys
from pathlib import Path
from fedtasks.errors import TicketExhausted, TicketRateLimited
from fedtasks.store import Store, TicketRow
url, password_file, name = sys.argv[1], Path(sys.argv[2]) if sys.argv[2] else None, sys.argv[3]
def meet():
    print("here", flush=True)
    sys.stdin.readline()
"""


class Process:
    """Another Python process with the same store; ``meet()`` in it waits for `go`."""

    def __init__(self, database: Database, code: str, name: str = "") -> None:
        arguments = [database.url, str(database.password_file or ""), name]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_here(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "here\n"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> str:
        output, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return output

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def run_together(database: Database, code: str, n_processes: int) -> list[str]:
    """Run `code` in several processes that all pass ``meet()`` at the same time; returns what they printed."""
    with ExitStack() as stack:
        processes = [Process(database, code, str(number)) for number in range(n_processes)]
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            process.wait_here()
        for process in processes:
            process.go()
        return [process.end() for process in processes]
