"""What the halves of task ``joined`` tell each other."""

from __future__ import annotations

from fedtasks.exchange.message import JsonListMessage, JsonMessage

_JOINED = ("joined",)

CUT = JsonMessage(
    "joined commits",
    "how much of the joined stream is here",
    "nothing that it does not hold itself: how many commits of each shard of the join the sender has",
    fields={"commits": list},
    tasks=_JOINED,
    holds="for each shard of the joined stream, how many commits this side has of it, and the first that it keeps",
)
ORDER = JsonListMessage(
    "joined order",
    "rows and digest of their order",
    "nothing that it does not hold itself",
    items=(int, str),
    tasks=_JOINED,
    holds="number of rows that were taken, and digest of their tags in row order",
)

TAKE_MESSAGES = (CUT, ORDER)
