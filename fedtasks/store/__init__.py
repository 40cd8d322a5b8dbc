"""Where a gateway keeps its state, so that it can be restarted at any moment: PostgreSQL, or SQLite on a laptop."""

from fedtasks.store.audit import ACTING, CUT, GENESIS, AuditFilter, check_chain
from fedtasks.store.rows import (
    ApprovalRow,
    AuditRow,
    DisclosureRow,
    HalfRow,
    JoinRow,
    JoinWindowRow,
    Labels,
    LabelSpendRow,
    LabelsTold,
    LandingRow,
    LostRunRow,
    MetricRow,
    ModelRow,
    PeerRow,
    RefusalRow,
    RunRow,
    TagTableRow,
    TermRow,
    TicketRequestRow,
    TicketRow,
)
from fedtasks.store.runs import RunCharge
from fedtasks.store.seat import SILENT_S, Seat, seat_of
from fedtasks.store.store import Store
from fedtasks.store.tags import TagBook
from fedtasks.store.uses import Charged

__all__ = [
    "ACTING",
    "CUT",
    "GENESIS",
    "SILENT_S",
    "ApprovalRow",
    "AuditFilter",
    "AuditRow",
    "Charged",
    "DisclosureRow",
    "HalfRow",
    "JoinRow",
    "JoinWindowRow",
    "LabelSpendRow",
    "Labels",
    "LabelsTold",
    "LandingRow",
    "LostRunRow",
    "MetricRow",
    "ModelRow",
    "PeerRow",
    "RefusalRow",
    "RunCharge",
    "RunRow",
    "Seat",
    "Store",
    "TagBook",
    "TagTableRow",
    "TermRow",
    "TicketRequestRow",
    "TicketRow",
    "check_chain",
    "seat_of",
]
