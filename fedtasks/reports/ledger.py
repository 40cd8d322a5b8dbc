"""What left the house: each message by the name that people know it by, and what the receiver learns of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedtasks.registry import declared
from fedtasks.store import DisclosureRow

_MARKS = re.compile(r"\*\*|`|\[(.*?)\]\(.*?\)")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Parameters
    ----------
    task, name
        Of which task, and what the messages are called on the link.
    what
        What was sent, in words.
    learns
        What the receiver learns of it.
    messages, items, bytes
        How many messages over all attempts, how many rows where they are arrays or tables, and their size.
    """

    task: str
    name: str
    what: str
    learns: str
    messages: int
    items: int
    bytes: int


def meaning(name: str, measured: Mapping[str, str] = MappingProxyType({})) -> tuple[str, str]:
    """Return what messages of a name are, in words, and what their receiver learns.

    Both come from the declaration of the message; what is not declared here is what the authors of a pipeline send.

    Parameters
    ----------
    measured
        What a run has measured of it, in words, by what the metrics begin with.
    """
    for message in declared("MESSAGES").values():
        if found := message.meaning(name):
            what, learns = found
            told = measured.get(message.measured_as, "")
            return what, f"{_plain(learns)}. Measured: {told}" if told else _plain(learns)
    return name, "what the pipeline's authors sent there"


def _plain(learns: str) -> str:
    """Return the first sentence of a declaration's text, without the marks of Markdown."""
    return _MARKS.sub(r"\1", learns.partition(". ")[0])


def ledger(
    rows: Iterable[DisclosureRow],
    bytes_sent: int,
    counts: Mapping[str, int] = MappingProxyType({}),
    measured: Mapping[str, str] = MappingProxyType({}),
) -> list[Entry]:
    """Sum what all attempts have sent, by task and name, largest first.

    Parameters
    ----------
    rows
        What the halves said that they sent.
    bytes_sent
        What the gateway counted: what nobody has named (a half was killed, or frames were sent again) is a line of
        its own, so that the ledger never says less than what left.
    counts
        What both halves have counted alike.
    measured
        As of `meaning`.
    """
    sums: dict[tuple[str, str], tuple[int, int, int]] = {}
    for row in rows:
        key, more = (row.task, row.name), (row.messages, row.items, row.bytes)
        sums[key] = tuple(map(sum, zip(sums.get(key, (0, 0, 0)), more, strict=True)))  # type: ignore[assignment]
    # Files count as bytes on the link; how many ids they hold, both halves have agreed on.
    counted = {message.name: message.counted_as for message in declared("MESSAGES").values() if message.counted_as}
    entries = []
    for (task, name), (messages, items, size) in sums.items():
        what, learns = meaning(name, measured)
        held = items or counts.get(counted.get(name, ""), 0)
        entries.append(Entry(task, name, what, learns, messages, held, size))
    rest = bytes_sent - sum(entry.bytes for entry in entries)
    if rest > 0:
        entries.append(Entry("", "", "frames, and what was sent again", "nothing more", 0, 0, rest))
    return sorted(entries, key=lambda entry: (-entry.bytes, entry.task, entry.name))
