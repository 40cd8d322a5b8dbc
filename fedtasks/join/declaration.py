"""What the streaming join declares: kinds of steps, and clauses that bound them."""

from __future__ import annotations

from fedtasks.join.settings import JoinSettings, TakeSettings
from fedtasks.kinds import Kind, Remark
from fedtasks.tickets.clauses import Clause

KINDS = (
    Kind("join", "fedtasks.join.half:run", JoinSettings, forks=True, is_sharded=True),
    Kind("joined", "fedtasks.join.take:run", TakeSettings, forks=True),
)

CLAUSES = (
    Clause(
        "outputs.join_ids",
        "How ids of events may cross in a streaming join: keyed (hashes with a secret of both halves; whoever knows an "
        "id can still look whether it is there), or clear",
        default="keyed",
        choices=("keyed", "clear"),
    ),
)

REMARKS = (
    Remark(
        "join_rate",
        "stream `{about}`: in a window of event time only {count} % of the rows here have a counterpart at {peer}, "
        "less than half of what was usual before; `fedtasks joins show {about}` says from when",
    ),
    Remark(
        "join_clock",
        "where rows are joined, {peer}'s time of an event is {count} ms {about} than the one here: if clocks differ by "
        "that, declare it as `offset_s` of `event_time`, or join with a larger `within_s`",
    ),
    Remark("join_ids", "compare how the ids of both sides are written: {about}"),
)
