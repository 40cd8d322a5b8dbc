"""Where a gateway keeps its state, so that it can be restarted at any moment: PostgreSQL, or SQLite on a laptop."""

from fedtasks.store.rows import (
    ApprovalRow,
    AuditRow,
    DisclosureRow,
    HalfRow,
    LandingRow,
    MetricRow,
    ModelRow,
    PeerRow,
    RefusalRow,
    RunRow,
    TagTableRow,
    TicketRequestRow,
    TicketRow,
)
from fedtasks.store.store import Store, now_ms
from fedtasks.store.tags import TagTables

__all__ = [
    "ApprovalRow",
    "AuditRow",
    "DisclosureRow",
    "HalfRow",
    "LandingRow",
    "MetricRow",
    "ModelRow",
    "PeerRow",
    "RefusalRow",
    "RunRow",
    "Store",
    "TagTableRow",
    "TagTables",
    "TicketRequestRow",
    "TicketRow",
    "now_ms",
]
