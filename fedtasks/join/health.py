"""Whether a join goes on as it went before, and why it may not: a rate that halves is a remark with its causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import pyarrow as pa

from fedtasks.data.events import Rejects
from fedtasks.data.growing import Piece
from fedtasks.data.id_shapes import ShapeTally, Shares, difference, from_plain, said, to_plain
from fedtasks.data.tables import ID
from fedtasks.join import health_messages as messages
from fedtasks.join.rows import Integers
from fedtasks.join.settings import JoinSettings
from fedtasks.join.units import Source
from fedtasks.kinds import remark_metric
from fedtasks.link.link import Link
from fedtasks.runtime.context import TaskContext, report_remarks
from fedtasks.runtime.joins import JoinWindow

LEAST_ROWS = 100
"""Windows with fewer decided rows say nothing of a rate."""

LEAST_BEFORE = 5
"""So many windows must be known before one is compared with them."""

MOST_BEFORE = 60
"""With so many windows before it, at most, one is compared."""

HALF = 0.5
"""A rate below this share of the usual one is a remark."""

LEAST_OFFSET_MS = 1_000
"""Event times that lie less apart are no cause."""

SAMPLE_ROWS = 20_000
"""The ids of so many rows are looked at."""

_MOST_CLASSES = 3
_CLAUSE, _CLASSES = "outputs.id_shapes", "classes"


@dataclass(frozen=True)
class Halving:
    """A join rate that has halved.

    Parameters
    ----------
    start_ms
        Where the window begins.
    rate
        The share of its rows that have a counterpart.
    usual
        The median of the windows before it.
    """

    start_ms: int
    rate: float
    usual: float


@dataclass(frozen=True)
class Sides:
    """What is known of both sides' ids and clocks.

    Parameters
    ----------
    own_name, peer_name
        What the parties are called.
    own
        How this party's ids are written; empty if nobody has looked.
    theirs
        How the peer's are; None unless the ticket's `outputs.id_shapes` lets it say so.
    clock_offset_ms
        By how much the peer's time of an event is later than this party's, in the middle; None if nothing was joined.
    """

    own_name: str
    peer_name: str
    own: Shares = ()
    theirs: Shares | None = None
    clock_offset_ms: float | None = None


def rate_of(window: JoinWindow) -> float | None:
    """Return the share of a window's rows that have a counterpart; None if too few are decided."""
    joined = window.joined + window.corrected
    decided = joined + window.unmatched
    return joined / decided if decided >= LEAST_ROWS else None


def halving(windows: Iterable[JoinWindow], decided_ms: int, window_ms: int) -> Halving | None:
    """Return the newest window whose join rate is less than half of what was usual before it, None if none is.

    Parameters
    ----------
    windows
        What is known of windows, each once, in any order; commits of one window are to be added up.
    decided_ms
        Of rows before this it is decided whether they have a counterpart: later windows are not looked at.
    window_ms
        How long a window is.

    Notes
    -----
    What is usual is the median of up to `MOST_BEFORE` windows before, at least `LEAST_BEFORE`, of those with
    `LEAST_ROWS` decided rows. So a rate that stays low becomes usual, and is remarked once.
    Reveals: nothing.
    Cost: the windows' number times `MOST_BEFORE`.
    """
    decided = sorted((each for each in windows if each.start_ms + window_ms <= decided_ms), key=lambda w: w.start_ms)
    rates = [(each.start_ms, rate) for each in decided if (rate := rate_of(each)) is not None]
    for place in range(len(rates) - 1, LEAST_BEFORE - 1, -1):
        start_ms, rate = rates[place]
        usual = median(before for _, before in rates[max(0, place - MOST_BEFORE) : place])
        if rate < HALF * usual:
            return Halving(start_ms, rate, usual)
    return None


def remarks(stream: str, found: Halving | None, sides: Sides, within_ms: int) -> Mapping[str, int]:
    """Return what is to be remarked of a join rate that has halved, with the likely causes; empty if none has.

    Parameters
    ----------
    stream
        What the stream is called.
    found
        What `halving` says.
    sides
        What is known of both.
    within_ms
        How far apart both sides' times of one event may lie.

    Returns
    -------
    mapping of str to int
        For `fedtasks.runtime.context.report_remarks`.

    Notes
    -----
    Reveals: nothing; this party alone sees it. How the peer's ids are written it knows only where the ticket allows.
    """
    if found is None:
        return {}
    told = {remark_metric("join_rate", stream): round(100 * found.rate)}
    offset_ms = sides.clock_offset_ms
    if offset_ms is not None and abs(offset_ms) >= max(LEAST_OFFSET_MS, HALF * within_ms):
        told[remark_metric("join_clock", "later" if offset_ms > 0 else "earlier")] = round(abs(offset_ms))
    if shapes := _shapes(sides):
        told[remark_metric("join_ids", shapes)] = 1
    return told


def _shapes(sides: Sides) -> str:
    """Say how ids are written, the likely cause first; empty where nothing is known."""
    if not sides.own:
        return ""
    written = f"{sides.own_name} {said(sides.own, _MOST_CLASSES)}"
    if sides.theirs is None:
        return written
    cause = difference(sides.own, sides.theirs, sides.own_name, sides.peer_name)
    told = f"{written}; {sides.peer_name} {said(sides.theirs, _MOST_CLASSES)}"
    return f"{told} ({cause})" if cause else told


# ------------------------------------------------------------------------------------------------------ while it joins
class Health:
    """Watches the join rate of one half, and remarks when it has halved.

    Parameters
    ----------
    context
        Of the half.
    settings
        How streams are joined.

    Notes
    -----
    One shard's windows are enough, since ids fall into shards by their hash: of several halves the first one watches.
    Cost: the windows of the last `MOST_BEFORE` times two; shapes of the first `SAMPLE_ROWS` ids.
    """

    def __init__(self, context: TaskContext, settings: JoinSettings) -> None:
        self._context, self._stream = context, settings.stream
        self._window_ms, self._within_ms = int(1000 * settings.window_s), int(1000 * settings.reach_s)
        # What earlier runs have counted is what is usual; what went wrong in them, they have remarked.
        known = context.join_windows(settings.stream, context.config.shard or 0, MOST_BEFORE)
        self._windows = {window.start_ms: window for window in known}
        self._since_ms = max(self._windows, default=-1)
        self._shapes = ShapeTally()
        self._own: Shares = ()
        self._theirs: Shares | None = None
        self._found: Halving | None = None

    def look_at(self, ids: pa.Array) -> None:
        """Take up how ids are written; only those of the first `SAMPLE_ROWS` rows count."""
        if (left := SAMPLE_ROWS - self._shapes.rows) > 0:
            self._shapes.add(ids.slice(0, left))

    def seen(self, source: Source) -> Source:
        """Return a source that looks at the ids of what is read of it."""
        return _Seen(source, self)

    def add(self, windows: Iterable[JoinWindow], decided_ms: int) -> None:
        """Take up what a commit has counted; before `decided_ms` it is decided which rows have a counterpart."""
        for window in windows:
            known = self._windows.get(window.start_ms)
            self._windows[window.start_ms] = window if known is None else known + window
        newest_ms = max(self._windows, default=0)
        before = min(decided_ms, newest_ms) - 2 * MOST_BEFORE * self._window_ms
        self._windows = {start: window for start, window in self._windows.items() if start >= before}
        found = halving(self._windows.values(), decided_ms, self._window_ms)
        if found is not None and found.start_ms > self._since_ms:
            self._found = found

    def exchange(self, link: Link) -> None:
        """Ask the other half how its ids are written if both have seen their rates halve; both call it at once.

        Nothing crosses unless the ticket's `outputs.id_shapes` allows it, and after shapes were told nothing more.

        Raises
        ------
        ProtocolViolated
            The other half says something else than shapes.

        Notes
        -----
        Reveals: nothing unless the ticket's `outputs.id_shapes` says so. Then, whether this party's join rate has
        halved; and if both have, the shapes of its ids, see `fedtasks.data.id_shapes`.
        """
        if self._theirs is not None or not is_allowed(self._context):
            return
        messages.HALVED.send(link, {"halved": self._found is not None})
        if not messages.HALVED.receive(link)["halved"] or self._found is None:
            return
        messages.SHAPES.send(link, {"columns": to_plain([self._shapes.shares()])})
        told = messages.SHAPES.receive(link)
        try:
            (self._theirs,) = from_plain(told["columns"], 1)
        except ValueError as error:
            messages.SHAPES.refuse(told, str(error))

    def report(self, clock_offset_ms: float | None, *, is_last: bool = False) -> None:
        """Remark that the rate has halved, if it has, with the likely causes; safe to repeat.

        Parameters
        ----------
        clock_offset_ms
            See `Sides`.
        is_last
            Whether nothing more will be known: what is said of ids is said once, and waits for the peer's as long as
            these may come.
        """
        own: Shares = ()
        is_known = self._theirs is not None or is_last or not is_allowed(self._context)
        if self._found is not None and is_known and self._shapes.rows:
            self._own = own = self._own or self._shapes.shares()
        sides = Sides(self._context.party.name, self._context.config.peer, own, self._theirs, clock_offset_ms)
        report_remarks(self._context, remarks(self._stream, self._found, sides, self._within_ms))


class _Seen:
    """Shows ids to whoever watches, and changes nothing."""

    def __init__(self, source: Source, health: Health) -> None:
        self._source, self._health = source, health

    def look(self) -> Sequence[Piece]:
        return self._source.look()

    def read(
        self, piece: Piece, rejects: Rejects, first_row: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch, Integers]]:
        for first, batch, places in self._source.read(piece, rejects, first_row):
            self._health.look_at(batch.column(ID))
            yield first, batch, places


def facts(context: TaskContext) -> dict[str, str]:
    """Return what both halves must agree on before either says anything of its ids."""
    return {"id_shapes": _CLASSES} if is_allowed(context) else {}


def is_allowed(context: TaskContext) -> bool:
    """Whether the ticket lets both say how their ids are written."""
    return bool(context.config.bounds.get(_CLAUSE) == _CLASSES)
