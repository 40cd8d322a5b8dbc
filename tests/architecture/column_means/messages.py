"""What the halves tell each other."""

from __future__ import annotations

from fedtasks.exchange.message import TO_LEADER, ArrayMessage

MEANS = ArrayMessage(
    "column means",
    "means of columns",
    "the mean of each numeric column, without its name",
    dtype="float64",
    shape=(None,),
    tasks=("train",),
)
DISTANCES = ArrayMessage(
    "distances",
    "distances from the means",
    "for each row how far it lies above the means, over all columns together",
    dtype="float64",
    shape=(None, 1),
    way=TO_LEADER,
    tasks=("evaluate", "predict"),
)

MESSAGES = (MEANS, DISTANCES)
