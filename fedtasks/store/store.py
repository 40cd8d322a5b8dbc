"""The store: one book for each thing that a gateway must remember."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Engine

from fedtasks.clock import Clock, now_ms
from fedtasks.store import engine as database
from fedtasks.store.approvals import ApprovalBook
from fedtasks.store.audit import AuditBook
from fedtasks.store.halves import HalfBook
from fedtasks.store.identity import IdentityBook, LostRunBook
from fedtasks.store.joins import JoinBook
from fedtasks.store.label_spends import LabelSpendBook
from fedtasks.store.landings import LandingBook
from fedtasks.store.metrics import DisclosureBook, MetricBook, TrafficBook
from fedtasks.store.models import ModelBook
from fedtasks.store.peers import PeerBook
from fedtasks.store.refusals import RefusalBook
from fedtasks.store.runs import RunBook
from fedtasks.store.tags import TagBook
from fedtasks.store.terms import TermBook
from fedtasks.store.tickets import TicketBook, TicketRequestBook
from fedtasks.store.uses import UseBook


class Store:
    """The books of a gateway; made by `Store.open`.

    Notes
    -----
    Every change is one transaction, safe among threads and among processes. Threads may share one store; processes
    open one each (a store does not survive a fork).
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self.identity: Final = IdentityBook(engine, clock)
        self.lost_runs: Final = LostRunBook(engine, clock)
        self.tickets: Final = TicketBook(engine, clock)
        self.ticket_requests: Final = TicketRequestBook(engine, clock)
        self.uses: Final = UseBook(engine, clock)
        self.label_spends: Final = LabelSpendBook(engine, clock)
        self.runs: Final = RunBook(engine, clock)
        self.approvals: Final = ApprovalBook(engine, clock)
        self.refusals: Final = RefusalBook(engine, clock)
        self.halves: Final = HalfBook(engine, clock)
        self.metrics: Final = MetricBook(engine, clock)
        self.disclosures: Final = DisclosureBook(engine, clock)
        self.traffic: Final = TrafficBook(engine, clock)
        self.peers: Final = PeerBook(engine, clock)
        self.landings: Final = LandingBook(engine, clock)
        self.models: Final = ModelBook(engine, clock)
        self.joins: Final = JoinBook(engine, clock)
        self.tags: Final = TagBook(engine, clock)
        self.audit: Final = AuditBook(engine, clock)
        self.terms: Final = TermBook(engine, clock)

    @classmethod
    def open(cls, url: str, password_file: Path | None = None, *, migrate: bool = True, clock: Clock = now_ms) -> Store:
        """Connect to a store.

        Parameters
        ----------
        url
            ``sqlite:///FILE`` or ``postgresql://user@host:port/database``.
        password_file
            File that holds the password for PostgreSQL.
        migrate
            Bring the schema to this version first; otherwise it must be there already.
        clock
            Milliseconds since the epoch.

        Raises
        ------
        ConfigError
            The URL or the password file cannot be used.
        NotPrivate
            Others may read the file of the store.
        StoreUnavailable
            The database cannot be reached, or its schema is of another version.
        """
        engine = database.connect(url, password_file)
        try:
            if migrate:
                database.migrate(engine)
            else:
                database.require_current(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, clock)

    @staticmethod
    def is_empty(url: str, password_file: Path | None = None) -> bool:
        """Whether there is nothing of a store at a URL yet; nothing is made. Raises as `open`."""
        engine = database.connect(url, password_file)
        try:
            return database.is_empty(engine)
        finally:
            engine.dispose()

    def fence(self, term: int) -> None:
        """Write only until another gateway begins a later term; from then on, every write is `StoreUnavailable`."""
        if self._engine.dialect.name == "postgresql":  # on SQLite there is no other
            database.fence(self._engine, term)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
