"""Where a gateway keeps its state, so that it can be restarted at any moment: PostgreSQL, or SQLite on a laptop."""

from fedtasks.store.rows import AuditRow, HalfRow, MetricRow, RunRow, TagTableRow, TicketRow
from fedtasks.store.store import Store, now_ms
from fedtasks.store.tags import TagTables

__all__ = [
    "AuditRow",
    "HalfRow",
    "MetricRow",
    "RunRow",
    "Store",
    "TagTableRow",
    "TagTables",
    "TicketRow",
    "now_ms",
]
