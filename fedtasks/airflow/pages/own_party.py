"""This party as the pages see it: its party.yaml, its store, its gateway."""

from __future__ import annotations

import threading
import time
from functools import cached_property
from pathlib import Path

from fedtasks.airflow.hook import FedtasksHook
from fedtasks.config import Party, load_party
from fedtasks.errors import RequestInvalid
from fedtasks.link.client import GatewayClient
from fedtasks.store import Store, TicketRequestRow

PATIENCE_S = 5.0
"""How long a person at a page waits for a gateway that does not answer."""


class OwnParty:
    """The party that the fedtasks connection, or else ``FEDTASKS_PARTY``, names; read again whenever it has changed.

    Notes
    -----
    One for each api-server process: the store is opened after the process has forked.
    """

    def __init__(self) -> None:
        self._reading = threading.RLock()
        self._read_at = 0
        self._party: Party | None = None
        self._store: Store | None = None

    @cached_property
    def _file(self) -> Path:
        return FedtasksHook().party_file

    @property
    def party(self) -> Party:
        """What party.yaml says; raises `ConfigError` until it can be read."""
        with self._reading:
            changed_at = self._file.stat().st_mtime_ns if self._file.exists() else 0
            if self._party is None or changed_at != self._read_at:
                self._party, self._read_at = load_party(self._file), changed_at
                if self._store is not None:
                    self._store.close()
                    self._store = None
            return self._party

    @property
    def name(self) -> str:
        """The party's name."""
        return self.party.name

    @property
    def store(self) -> Store:
        """The store, which the gateway has made; raises `StoreUnavailable` until it is there."""
        with self._reading:
            store = self.party.store
            if self._store is None:
                self._store = Store.open(store.url, store.password_file, migrate=False)
            return self._store

    def ticket_request(self, request_id: str) -> TicketRequestRow:
        """Return what a peer has asked for; raises `RequestInvalid` if it is not open."""
        for row in self.store.ticket_requests.list():
            if row.request_id == request_id and not row.own and row.state == "open":
                return row
        raise RequestInvalid("no request of a peer is open under this name")

    def gateway(self) -> GatewayClient:
        """Return a client of this party's gateway, to be used in a ``with`` block."""
        return GatewayClient.of(self.party, patience_s=PATIENCE_S)

    @staticmethod
    def now_ms() -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000
