"""party.yaml while the gateway runs: what can change is read again, what cannot is said to wait for a restart."""

from __future__ import annotations

import dataclasses
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from fedtasks.config import Party, load_party
from fedtasks.errors import FedtasksError, GatewayOutdated, PeerUnknown
from fedtasks.text import plain_text

log = logging.getLogger(__name__)

READ_ONCE = ("name", "gateway", "airflow", "store", "peers", "logs")
"""What listeners, logins, the store, conversations with peers and its log are made of when the gateway starts.

All the rest (datasets, notices, schedules, limits) is looked up where it is used, and counts as soon as it is written.
"""


@dataclass(frozen=True)
class FileState:
    """How the file stands against what the gateway runs with.

    Parameters
    ----------
    restart_for
        The fields of `READ_ONCE` that have been changed since.
    problem
        Why the file as it is now cannot be used; what was read before goes on to count.
    """

    restart_for: tuple[str, ...] = ()
    problem: str = ""


class PartyFile:
    """A party's configuration as its gateway runs with it.

    Parameters
    ----------
    started
        What the gateway was started with.
    file
        Where that was read and is looked at again; None if nowhere.

    Notes
    -----
    Cost: one look at the file's times each time the configuration is used; it is read when they have changed.
    """

    def __init__(self, started: Party, file: Path | None = None) -> None:
        self._started = self._newest = self._party = started
        self._file = file
        self._state = FileState()
        # Read once more at first: it may have changed between its reading and now.
        self._seen: tuple[float, ...] | None = None
        self._lock = threading.Lock()

    @property
    def party(self) -> Party:
        """The configuration that counts now."""
        with self._lock:
            self._look()
            return self._party

    @property
    def state(self) -> FileState:
        """How the file stands now."""
        with self._lock:
            self._look()
            return self._state

    def require_current(self, peer: str) -> None:
        """Check that the gateway knows a peer as the file has it.

        Raises
        ------
        GatewayOutdated
            The peer was added, changed or removed after the gateway had started.
        PeerUnknown
            It is in neither.
        """
        with self._lock:
            self._look()
            files = self._started, self._newest
        started, newest = (next((each for each in party.peers if each.name == peer), None) for party in files)
        if started != newest:
            raise GatewayOutdated(f"party.yaml has another entry for `{peer}` than the running gateway", field="peers")
        if started is None:
            raise PeerUnknown(f"`{peer}` is not among the peers of {self._started.name}")

    def _look(self) -> None:
        if self._file is None or (signature := _signature(self._file)) == self._seen:
            return
        self._seen = signature
        try:
            self._newest = load_party(self._file)
        except (FedtasksError, OSError) as error:
            problem = f"party.yaml cannot be used: {_said(error)}"
            self._state = dataclasses.replace(self._state, problem=plain_text(problem))
            log.warning("%s; what was read before goes on to count", problem)
            return
        once = {name: getattr(self._started, name) for name in READ_ONCE}
        self._party = dataclasses.replace(self._newest, **once)
        self._state = FileState(tuple(name for name in READ_ONCE if getattr(self._newest, name) != once[name]))
        log.info("party.yaml was read again")
        if self._state.restart_for:
            log.warning("%s", GatewayOutdated(field=", ".join(self._state.restart_for)))


def _signature(file: Path) -> tuple[float, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()  # whoever reads it tells why
    return found.st_mtime, found.st_size, found.st_ino


def _said(error: FedtasksError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    text = error.detail or error.public
    return f"{text} [{error.where}]" if error.where else text
