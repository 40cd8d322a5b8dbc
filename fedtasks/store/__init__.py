"""Where a gateway keeps its state, so that it can be restarted at any moment: PostgreSQL, or SQLite on a laptop."""

from fedtasks.store.landings import Landings
from fedtasks.store.models import ModelRegistry
from fedtasks.store.peers import Peers
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
from fedtasks.store.store import Store, check_chain
from fedtasks.store.tags import TagTables

__all__ = [
    "ApprovalRow",
    "AuditRow",
    "DisclosureRow",
    "HalfRow",
    "LandingRow",
    "Landings",
    "MetricRow",
    "ModelRegistry",
    "ModelRow",
    "PeerRow",
    "Peers",
    "RefusalRow",
    "RunRow",
    "Store",
    "TagTableRow",
    "TagTables",
    "TicketRequestRow",
    "TicketRow",
    "check_chain",
]
