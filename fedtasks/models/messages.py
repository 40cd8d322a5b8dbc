"""What the halves of a model tell each other, whichever algorithm it is of."""

from __future__ import annotations

import sys

from fedtasks.exchange.message import SMALL, TO_FOLLOWER, ArrayMessage, DigestMessage, JsonMessage

CHECKPOINTS = ArrayMessage(
    "checkpoints",
    "which checkpoints are held",
    "after how many epochs or trees the other half holds a checkpoint",
    dtype="int64",
    shape=(None,),
    tasks=("train",),
    holds="after how many epochs or trees the half holds a checkpoint",
    max_bytes=SMALL,
)
MODEL_DIGEST = DigestMessage(
    "model digest",
    "digest of this half of the model",
    "nothing of the model; that both halves are of one training",
    tasks=("train",),
    holds="digest of the finished half",
)
SCORES = ArrayMessage(
    "scores of rows",
    "scores",
    "the score of each row. Only with `scores: both`, if the ticket allows it: leaf values of trees and much about "
    "labels follow from them",
    dtype="float64",
    shape=(None, ...),
    most=sys.float_info.max,
    way=TO_FOLLOWER,
    tasks=("evaluate", "predict"),
    holds="scores of all rows, only with `scores: both`; for several classes one of each",
)
PUBLICATION = JsonMessage(
    "publication",
    "the next version's number, and whether it is better",
    "how many versions the other has; the follower also whether the new model is at least as good as the one in use, "
    "one bit a run about the test labels",
    fields={"version": int, "is_better": bool},
    tasks=("publish",),
    holds="the version number that this side proposes, and whether the new model is at least as good, which counts "
    "from the leader; once more when it has been entered",
)

MEASURABLE = JsonMessage(
    "measurable",
    "whether the version in use can be measured",
    "whether the other side still declares every feature that its half of the version in use needs; not which is gone",
    fields={"measurable": bool},
    tasks=("evaluate",),
    holds="whether this side's dataset still has what its half of the version in use needs; only where there is one",
)

MESSAGES = (CHECKPOINTS, MODEL_DIGEST, SCORES, MEASURABLE, PUBLICATION)
