"""Where a gateway keeps its state, so that it can be restarted at any moment: PostgreSQL, or SQLite on a laptop."""

from fedtasks.store.audit import AuditFilter, check_chain
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
    TicketRequestRow,
    TicketRow,
)
from fedtasks.store.runs import RunCharge
from fedtasks.store.store import Store
from fedtasks.store.tags import TagBook
from fedtasks.store.uses import Charged

__all__ = [
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
    "Store",
    "TagBook",
    "TagTableRow",
    "TicketRequestRow",
    "TicketRow",
    "check_chain",
]
