"""A topic as a stream: its messages are cut into pieces by their time, each of which can be read again by its offsets.

A piece holds, of all partitions, the messages up to one time: partitions that hold more messages are not read more
slowly than others, or rows of the slow ones would seem to come too late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset
from fedtasks.data.cells import Place
from fedtasks.data.events import EVENT_TIME, Places, Rejects, events_of
from fedtasks.data.growing import Stream
from fedtasks.data.json_lines import JsonTable
from fedtasks.data.pieces import Piece, Range
from fedtasks.errors import ConfigError, StreamMessagesGone

PIECE_MESSAGES = 50_000
"""How many messages a piece holds at most."""

_FIRST_STEP_MS, _LEAST_STEP_MS, _MOST_STEP_MS = 60_000, 100, 86_400_000
_AHEAD_MS, _CHUNK_BYTES = 60_000, 1 << 21

_LOOKED_AT = 64
"""The newest event is looked for in so many pieces at the end of a topic."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What a partition of a topic holds: messages from an offset to before another."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a partition."""

    offset: int
    time_ms: int
    value: bytes | None


class Topic(Protocol):
    """A topic as its brokers have it.

    Raises
    ------
    StorageUnavailable
        No broker answers.
    FileForbidden
        The brokers do not let this party in.
    DataMissing
        There is no such topic.
    StreamMessagesGone
        Messages that are asked for are not held any more.
    """

    def stands(self) -> Mapping[int, Stand]:
        """Return what each partition holds."""

    def offsets_at(self, time_ms: int) -> Mapping[int, tuple[int, int] | None]:
        """Return each partition's first message at or behind a time, as its offset and time; None without one."""

    def messages(self, wanted: Range) -> Iterator[Message]:
        """Yield the messages of a range, in their order."""

    def close(self) -> None:
        """Let go of the connections."""


def connected(dataset: Dataset) -> Topic:
    """Connect to a topic; raises as `Topic`, and `ConfigError` where there is no client."""
    try:
        from fedtasks.data.kafka_client import KafkaTopic
    except ModuleNotFoundError as error:
        text = f"dataset `{dataset.name}`: a topic needs the client of Kafka: `pip install 'fedtasks[kafka]'`"
        raise ConfigError(text, field="uri") from error
    return KafkaTopic(dataset)


class TopicStream(Stream):
    """A topic of JSON objects; see `fedtasks.data.growing.Stream`.

    Parameters
    ----------
    dataset, uri, clock
        As of a `Stream`.
    connect
        How the topic is reached.

    Notes
    -----
    Cost: a piece is in memory while it is read.
    """

    def __init__(
        self,
        dataset: Dataset,
        uri: str,
        clock: Callable[[], float] = time.time,
        connect: Callable[[Dataset], Topic] = connected,
    ) -> None:
        super().__init__(dataset, uri, clock)
        self._connect = connect
        self._open: Topic | None = None

    def close(self) -> None:
        """Let go of the connections."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def _topic(self) -> Topic:
        if self._open is None:
            self._open = self._connect(self._dataset)
        return self._open

    # -------------------------------------------------------------------------------------------------------- looking
    def look(self) -> list[Piece]:
        """Return all pieces by number, with what has come by now, all but the last `settle_s`.

        Raises
        ------
        StreamMessagesGone
            Messages have gone that no piece holds, or the topic was made anew.
        StorageUnavailable, FileForbidden, DataMissing
            As `Topic`.

        Notes
        -----
        Cost: some requests for each new piece; no message is read.
        """
        until_ms = int((self._clock() - self._dataset.settle_s) * 1000)
        self._catalogue.refresh()
        step_ms = _FIRST_STEP_MS
        while True:
            last = self._catalogue.pieces[-1] if self._catalogue.pieces else None
            known = {each.partition: each.end for each in last.ranges} if last else {}
            stands = self._topic.stands()
            self._check_kept(known, stands)
            begins = {partition: known.get(partition, stand.first) for partition, stand in stands.items()}
            cut = self._next_cut(begins, stands, until_ms, step_ms)
            if cut is None or self._is_soon(cut, last):
                return list(self._catalogue.pieces)
            step_ms = cut.step_ms
            self._add(last, cut, begins)

    def _add(self, last: Piece | None, cut: _Cut, begins: Mapping[int, int]) -> None:
        ranges = [[partition, begins[partition], end] for partition, end in sorted(cut.ends.items())]
        number = last.number + 1 if last else 0
        name = f"{number} until {datetime.fromtimestamp(cut.until_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
        row = [name, 0, cut.until_ms, ranges]
        # Another process may have cut meanwhile: then its piece counts, and what is next is looked for anew.
        self._catalogue.add(lambda: [row] if len(self._catalogue.pieces) == number else [])

    def _is_soon(self, cut: _Cut, last: Piece | None) -> bool:
        """Whether a piece would be a small one, so soon after the last."""
        if last is None or cut.count >= PIECE_MESSAGES // 4 or not cut.is_newest:
            return False
        return cut.until_ms - last.modified_ms < self._dataset.settle_s * 1000

    def _next_cut(
        self, begins: Mapping[int, int], stands: Mapping[int, Stand], until_ms: int, step_ms: int
    ) -> _Cut | None:
        """Return where the next piece ends; None if no message has settled."""
        if all(begins[partition] >= stand.end for partition, stand in stands.items()):
            return None
        first_ms = self._first_ms(begins)
        if first_ms is None or first_ms >= until_ms:
            return _few(begins, self._ends_at(until_ms, begins, stands), until_ms, step_ms)
        while True:
            cut_ms = min(first_ms + step_ms, until_ms)
            ends = self._ends_at(cut_ms, begins, stands)
            count = _count(begins, ends)
            if count > PIECE_MESSAGES and step_ms > _LEAST_STEP_MS:
                step_ms = max(_LEAST_STEP_MS, step_ms // 2)
            elif not count and cut_ms < until_ms:
                step_ms *= 2
            else:
                more_ms = min(_MOST_STEP_MS, step_ms * 2) if count < PIECE_MESSAGES // 4 else step_ms
                return _few(begins, ends, cut_ms, more_ms, is_newest=cut_ms == until_ms)

    def _first_ms(self, begins: Mapping[int, int]) -> int | None:
        """Return the time of the oldest message behind the last piece; None if the brokers know none by its time."""
        found = self._topic.offsets_at(self._catalogue.pieces[-1].modified_ms if self._catalogue.pieces else 0)
        return min((each[1] for place, each in found.items() if each and each[0] >= begins.get(place, 0)), default=None)

    def _ends_at(self, time_ms: int, begins: Mapping[int, int], stands: Mapping[int, Stand]) -> dict[int, int]:
        """Return before which offset of each partition messages are older than a time.

        A message from the future keeps none behind it waiting.
        """
        found, future_ms = self._topic.offsets_at(time_ms), self._clock() * 1000 + _AHEAD_MS
        ends = {}
        for partition, stand in stands.items():
            each = found.get(partition)
            end = stand.end if each is None or each[1] > future_ms else min(each[0], stand.end)
            ends[partition] = max(end, begins[partition])
        return ends

    def _check_kept(self, known: Mapping[int, int], stands: Mapping[int, Stand]) -> None:
        for partition, end in known.items():
            stand = stands.get(partition)
            if stand is None or stand.end < end:
                text = f"partition {partition} was read up to {end:,} and ends before: the topic was made anew"
            elif stand.first > end:
                text = f"partition {partition} holds messages from {stand.first:,} on, and was read up to {end:,} alone"
            else:
                continue
            raise StreamMessagesGone(f"dataset `{self._dataset.name}`: {text}", where=self._dataset.uri)

    # -------------------------------------------------------------------------------------------------------- reading
    def read(self, piece: Piece, rejects: Rejects, first_row: int = 0) -> Iterator[tuple[int, pa.RecordBatch, Places]]:
        """Yield the events of a piece, in the order of the messages' times, then partitions and offsets.

        Raises
        ------
        StreamMessagesGone
            The topic does not hold the piece any more.
        FileInvalid
            A message is no JSON object; names partition and offset.
        """
        table = _MessageTable(self._dataset, self._messages_of(piece))
        yield from events_of(self._dataset, table, rejects, first_row, table.place)

    def _messages_of(self, piece: Piece) -> _Messages:
        found = _Messages(self._dataset.uri)
        stands = self._topic.stands()
        for wanted in piece.ranges:
            if wanted.first >= wanted.end:
                continue
            stand = stands.get(wanted.partition)
            if stand is None or wanted.first < stand.first or wanted.end > stand.end:
                text = f"partition {wanted.partition} does not hold messages {wanted.first:,} to {wanted.end:,}"
                raise StreamMessagesGone(f"dataset `{self._dataset.name}`: {text}", where=self._dataset.uri)
            for message in self._topic.messages(wanted):
                found.add(wanted.partition, message)
        found.sort()
        return found

    def _newest_of(self, piece: Piece) -> int | None:
        if piece.number < len(self._catalogue.pieces) - _LOOKED_AT:
            return None  # its messages are older than those of pieces that follow: that many are not read for this
        try:
            ends = [pc.max(batch.column(EVENT_TIME)).as_py() for _, batch, _ in self.read(piece, Rejects())]
        except StreamMessagesGone:
            return None
        return max((end for end in ends if end is not None), default=None)


@dataclass(frozen=True)
class _Cut:
    """Where a piece ends."""

    ends: Mapping[int, int]
    until_ms: int
    count: int
    step_ms: int
    is_newest: bool = True


def _count(begins: Mapping[int, int], ends: Mapping[int, int]) -> int:
    return sum(end - begins[partition] for partition, end in ends.items())


def _few(
    begins: Mapping[int, int], ends: Mapping[int, int], until_ms: int, step_ms: int, *, is_newest: bool = True
) -> _Cut | None:
    """Return a cut of not too many messages, of each partition the same share; None of none."""
    count = _count(begins, ends)
    if not count:
        return None
    parts = -(-count // PIECE_MESSAGES)
    ends = {partition: begins[partition] - (begins[partition] - end) // parts for partition, end in ends.items()}
    return _Cut(ends, until_ms, _count(begins, ends), step_ms, is_newest=is_newest and parts == 1)


# ------------------------------------------------------------------------------------------------------------ messages
@dataclass
class _Messages:
    """The messages of a piece."""

    uri: str
    values: list[bytes] = field(default_factory=list)
    keys: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, partition: int, message: Message) -> None:
        # Within JSON, a line end is nothing but white space. A message without a value is a row without an id.
        value = (message.value or b"").replace(b"\n", b" ")
        self.values.append(value if value.strip() else b"{}")
        self.keys.append((message.time_ms, partition, message.offset))

    def sort(self) -> None:
        """Bring them into the order of their times, partitions and offsets."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        self.values = [self.values[place] for place in order]
        self.keys = [self.keys[place] for place in order]


@dataclass(frozen=True)
class _PlaceOfMessage(Place):
    """Where a message stands."""

    keys: Sequence[tuple[int, int, int]] = ()

    def __str__(self) -> str:
        _, partition, offset = self.keys[self.row - 1]
        return f"offset {offset} of partition {partition} of {self.file}"

    def after(self, rows: int) -> Place:
        return _PlaceOfMessage(self.file, self.row + rows, self.keys)


class _MessageTable(JsonTable):
    """Messages as a table."""

    def __init__(self, dataset: Dataset, messages: _Messages) -> None:
        # Of a piece that is small by chance, no message may have an id or a time: such rows are left out and counted.
        super().__init__(dataset.uri, dataset.all_columns, dataset.all_columns)
        self._messages = messages

    def place(self, row: int) -> Place:
        """Say where a row stands, counted from 1."""
        return _PlaceOfMessage(self._messages.uri, row, self._messages.keys)

    _place = place

    def _chunks(self) -> Iterator[bytes]:
        lines, n_bytes = list[bytes](), 0
        for value in self._messages.values:
            lines.append(value)
            n_bytes += len(value)
            if n_bytes >= _CHUNK_BYTES:
                yield b"\n".join([*lines, b""])
                lines, n_bytes = [], 0
        if lines:
            yield b"\n".join([*lines, b""])

    def _is_whole(self, chunk: bytes, batch: pa.RecordBatch) -> bool:
        return bool(batch.num_rows == chunk.count(b"\n"))
