"""What happened in a simulated world, in the order in which it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Parameters
    ----------
    at_s
        Seconds since the beginning of the simulation.
    who
        A party, or what it happened to.
    what
        In plain words.
    """

    at_s: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:9.3f} s  {self.who:<8} {self.what}"


@dataclass
class History:
    """Everything that happened."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, at_s: float, who: str, what: str) -> None:
        """Write down that something happened."""
        self.entries.append(Entry(at_s, who, what))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))
