"""Looks through the times of a stream's events: whether they can be, and how far they come behind newer ones."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.config import Dataset
from fedtasks.data import findings
from fedtasks.data.disorder import DisorderTally
from fedtasks.data.events import read_times
from fedtasks.data.pieces import Piece
from fedtasks.data.source_files import listed_files
from fedtasks.errors import DataError

_SHARE = 0.999
_AHEAD_MS = 86_400_000
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


def examine_times(dataset: Dataset) -> Iterator[Finding]:
    """Yield what there is to say of a stream's times, in the order of its files by their time of change.

    Notes
    -----
    Cost: one pass over the column of times.
    """
    if dataset.event_time is None:
        return
    subject, tally, without = f"{dataset.name}: {dataset.event_time.column}", DisorderTally(), 0
    try:
        for number, file in enumerate(listed_files(dataset)):
            for found in read_times(dataset, Piece(number, file.name, file.size_bytes, file.modified_ms)):
                without += found.null_count
                tally.add(found.drop_null().to_numpy())
    except DataError as error:
        yield wrong(subject, error)
        return
    yield from _told(subject, tally, without)


def _told(subject: str, tally: DisorderTally, without: int) -> Iterator[Finding]:
    rows = tally.rows + without
    if tally.oldest_ms is None or tally.newest_ms is None:
        if rows:
            yield Finding(subject, Verdict.WRONG, "no row has a time", "Name the column of the time in `event_time`")
        return
    text = f"{tally.rows:,} events from {_moment(tally.oldest_ms)} to {_moment(tally.newest_ms)}"
    if not tally.behind:
        yield Finding(subject, Verdict.OK, f"{text}, in their order")
    else:
        late_ms = tally.quantile_ms(_SHARE)
        behind = findings.share(tally.behind, tally.rows)
        text = f"{text}; {behind} come behind a newer one, 99.9 % of all by at most {_span(late_ms)}"
        text = f"{text}, the last by {_span(tally.most_ms)}"
        least_s = max(1, math.ceil(late_ms / 1000))
        remedy = f"With `lateness_s: {least_s}` at most one of a thousand is late"
        yield Finding(subject, Verdict.NOTE, text, remedy)
    if without:
        share = findings.share(without, rows)
        text = f"{without:,} of {rows:,} rows ({share}) have no time, and are left out"
        yield Finding(subject, Verdict.WARNING, text, "Give each row a time")
    ahead_ms = tally.newest_ms - time.time() * 1000
    if ahead_ms > _AHEAD_MS:
        text = f"the newest event lies {_span(int(ahead_ms))} ahead of this machine's clock"
        remedy = "Correct the row, or `unit`, `zone` and `offset_s`: what is older by far than the newest is late"
        yield Finding(subject, Verdict.WARNING, text, remedy)


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(span_ms: int) -> str:
    for unit_ms, word in _UNITS:
        if span_ms >= unit_ms:
            return f"{span_ms / unit_ms:.3g} {word}"
    return f"{span_ms} ms"
