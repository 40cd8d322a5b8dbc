"""What halves of a streaming join tell each other when few rows find a counterpart any more."""

from __future__ import annotations

from fedtasks.exchange.message import JsonMessage

_JOIN = ("join",)

HALVED = JsonMessage(
    "join halved",
    "whether the join rate has halved",
    "whether of the sender's rows less than half as many as usual have a counterpart; only where the ticket's "
    "`outputs.id_shapes` is `classes`",
    fields={"halved": bool},
    tasks=_JOIN,
    holds="with `outputs.id_shapes: classes` in the ticket, whether the sender's join rate has halved since it began",
)
SHAPES = JsonMessage(
    "join shapes",
    "shapes of ids",
    "**how** the sender's ids are written: forms such as digits or e-mail addresses, lengths and case, each with its "
    "share in whole per cent. No class of fewer than 20 ids of the first 20,000 is named, and no id, digit or letter "
    "of one crosses. Only where the ticket's `outputs.id_shapes` is `classes` and both halves have said that the join "
    "rate has halved",
    fields={"columns": list},
    tasks=_JOIN,
    holds="at most nine classes: form, length (129 for any beyond 128), case, share in per cent",
    max_bytes=64 << 10,
)

HEALTH_MESSAGES = (HALVED, SHAPES)
