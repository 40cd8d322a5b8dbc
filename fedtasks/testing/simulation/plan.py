"""What is to happen in a schedule: what people do, and what breaks, both from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

DAYS = ("2026-11-19", "2026-11-20")

LATER = "2026-11-21"
"""The day that is run once another has published its model."""

PARTIES = ("bank", "shop")

FAULTS = (
    "kill gateway",
    "kill gateway before a commit",
    "kill gateway after a commit",
    "cut",
    "hold",
    "slow",
    "lose worker",
    "airflow away",
    "scheduler dead",
    "store away",
    "disk full",
    "clock",
)
"""What breaks and heals again without anybody's doing."""

MANNERS = ("person says no", "person says nothing", "person says both")
"""How a person who is asked may answer instead of saying yes, for a while; the last are two of them at once."""

DEEDS = ("clear", "cancel", "revoke", "fail")
"""What people do to runs that go on."""


@dataclass(frozen=True, order=True)
class Event:
    """One thing that happens from outside.

    Parameters
    ----------
    at_s
        When it begins.
    kind
        What it is.
    party
        Whom it befalls, or who does it.
    lasts_s
        How long it stays so.
    day
        The partition that it is about.
    peer
        With whom: by default the only other one.
    number
        Which commit, how many seconds, which task: what the kind makes of it.
    """

    at_s: float
    kind: str
    party: str
    lasts_s: float = 0.0
    day: str = ""
    number: int = 0
    peer: str = ""

    def __str__(self) -> str:
        parts = [
            self.kind,
            self.day,
            self.peer,
            f"for {self.lasts_s:.1f} s" if self.lasts_s else "",
            str(self.number or ""),
        ]
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Plan:
    """A schedule's events.

    Parameters
    ----------
    parties
        Who takes part.
    events
        What happens, in the order in which it begins.
    runs, at_once
        What the tickets allow.
    person
        Whether they ask for a person.
    frames
        How many frames each half sends, four a second.
    publishes
        Whether each run publishes a version of one model.
    """

    parties: tuple[str, ...] = PARTIES
    events: tuple[Event, ...] = ()
    runs: int = 12
    at_once: int = 4
    person: bool = False
    frames: int = 6
    publishes: bool = False

    @property
    def over_s(self) -> float:
        """When the last thing that happens from outside is over."""
        return max((event.at_s + event.lasts_s for event in self.events), default=0.0)

    def of(self, *kinds: str) -> Iterator[Event]:
        """Yield the events of some kinds."""
        return (event for event in self.events if event.kind in kinds)


def draw(seed: int, *, restores: bool = False) -> Plan:
    """Return the plan of a seed; with `restores`, a store is restored from a copy in it, too."""
    chances = random.Random(f"{seed}/plan")  # noqa: S311 - the whole point is that it can be drawn again
    person = chances.random() < 0.2
    events = [*_triggers(chances), *_faults(chances), *_deeds(chances), *(_manners(chances) if person else ())]
    events += _landings(chances)
    at_once, publishes = chances.choice((1, 2, 4)), chances.random() < 0.07
    events += _publications(chances) if publishes else ()
    events += [_restore(chances)] if restores else ()
    return Plan(events=tuple(sorted(events)), person=person, at_once=at_once, publishes=publishes)


def _triggers(chances: random.Random) -> Iterator[Event]:
    days = DAYS[: chances.choice((1, 1, 1, 2))]
    for day in days:
        at_s = chances.uniform(1.0, 3.0)
        who = chances.choice((("bank",), ("shop",), ("bank", "shop"), ("bank", "bank")))
        for party in who:
            yield Event(at_s, "trigger", party, day=day)
            at_s += chances.choice((0.0, chances.uniform(0.0, 0.1), chances.uniform(0.0, 5.0)))


def _faults(chances: random.Random) -> Iterator[Event]:
    for _ in range(chances.choice((0, 1, 1, 2, 2, 3))):
        kind, party = chances.choice(FAULTS), chances.choice(PARTIES)
        at_s = chances.choice((chances.uniform(0.0, 4.0), chances.uniform(0.0, 20.0)))
        lasts_s = chances.choice((chances.uniform(0.1, 5.0), chances.uniform(1.0, 25.0)))
        number = 0
        if "commit" in kind:
            number = chances.randint(1, 60)
        elif kind == "clock":
            number = chances.choice((-40, -5, 5, 40))
        elif kind == "lose worker":
            lasts_s = 0.0
        elif kind == "scheduler dead":
            lasts_s *= 2.5  # Airflow itself notices after half a minute
        yield Event(at_s, kind, party, lasts_s=lasts_s, number=number)


def _deeds(chances: random.Random) -> Iterator[Event]:
    if chances.random() < 0.3:
        kind, party = chances.choice(DEEDS), chances.choice(PARTIES)
        yield Event(chances.uniform(3.0, 20.0), kind, party, day=DAYS[0], number=chances.randint(0, 3))


def _manners(chances: random.Random) -> Iterator[Event]:
    if chances.random() < 0.5:
        lasts_s = chances.choice((chances.uniform(5.0, 30.0), chances.uniform(5.0, 60.0), 150.0))
        yield Event(chances.uniform(0.0, 5.0), chances.choice(MANNERS), chances.choice(PARTIES), lasts_s=lasts_s)


def _restore(chances: random.Random) -> Event:
    at_s, number = chances.uniform(2.0, 25.0), chances.randint(1, 15)
    return Event(at_s, "restore store", chances.choice(PARTIES), chances.uniform(0.5, 5.0), number=number)


def _landings(chances: random.Random) -> Iterator[Event]:
    if chances.random() < 0.2:
        for party in chances.choice((PARTIES, PARTIES[:1], PARTIES[1:])):
            at_s = chances.uniform(0.0, 15.0)
            for _ in range(chances.choice((1, 1, 2))):
                yield Event(at_s, "land", party, day=chances.choice(DAYS))
                at_s += chances.choice((0.0, chances.uniform(0.0, 5.0)))


def _publications(chances: random.Random) -> Iterator[Event]:
    yield Event(chances.uniform(15.0, 30.0), "trigger", chances.choice(PARTIES), day=LATER)
    for _ in range(chances.choice((0, 1, 1, 2))):
        yield Event(chances.uniform(12.0, 45.0), "promote", chances.choice(PARTIES), number=chances.randint(1, 2))
