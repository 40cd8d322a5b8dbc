from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.config import Dataset, EventTime, FeatureType, Format, TimeUnit
from fedtasks.data import topics
from fedtasks.data.growing import Piece, Rejects, open_stream
from fedtasks.data.pieces import Range
from fedtasks.data.tables import list_parts
from fedtasks.data.topics import Message, Stand, TopicStream
from fedtasks.errors import ConfigError, EventTimeImplausible, FileInvalid, StreamMessagesGone

NOW_MS = 1_795_262_400_000
START_MS = NOW_MS - 3_600_000
DATASET = Dataset(
    "clicks",
    "kafka://127.0.0.1:9092/clicks",
    "id",
    {"x": FeatureType.NUMERIC},
    format=Format.JSON_LINES,
    event_time=EventTime("t", TimeUnit.MILLISECONDS),
    settle_s=2.0,
)


class FakeTopic:
    """A topic in memory."""

    def __init__(self, partitions: int) -> None:
        self.partitions: dict[int, list[Message]] = {number: [] for number in range(partitions)}
        self.first = dict.fromkeys(self.partitions, 0)
        self.asked = 0

    def put(self, partition: int, time_ms: int, value: bytes | None = None) -> None:
        held = self.partitions[partition]
        text = json.dumps({"id": f"{partition}-{len(held)}", "t": max(time_ms, NOW_MS - 10**9), "x": 1.0}).encode()
        held.append(Message(len(held), time_ms, text if value is None else value))

    def stands(self) -> dict[int, Stand]:
        return {number: Stand(self.first[number], len(held)) for number, held in self.partitions.items()}

    def offsets_at(self, time_ms: int) -> dict[int, tuple[int, int] | None]:
        self.asked += 1
        return {
            number: next(
                ((each.offset, each.time_ms) for each in held[self.first[number] :] if each.time_ms >= time_ms), None
            )
            for number, held in self.partitions.items()
        }

    def messages(self, wanted: Range) -> Iterator[Message]:
        yield from self.partitions[wanted.partition][wanted.first : wanted.end]

    def close(self) -> None:
        self.partitions = {}


class World:
    """A topic, a clock, and streams of it."""

    def __init__(self, root: Path, partitions: int = 2) -> None:
        self.topic, self.now_ms, self._uri = FakeTopic(partitions), NOW_MS, f"file://{root}/catalogue"

    def stream(self, **fields: Any) -> TopicStream:
        return TopicStream(DATASET, self._uri, lambda: self.now_ms / 1000, lambda _: self.topic)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ids(stream: TopicStream, piece: Piece) -> list[str]:
    return [text for _, batch, _ in stream.read(piece, Rejects()) for text in batch.column(0).to_pylist()]


def all_ids(stream: TopicStream) -> list[str]:
    return [text for piece in stream.look() for text in ids(stream, piece)]


def test_pieces_hold_every_message_once_and_in_the_order_of_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions of very different rates: none is read ahead of another."""
    monkeypatch.setattr(topics, "PIECE_MESSAGES", 100)
    expected = []
    for number in range(3000):
        at = START_MS + number * 1000
        for partition in (0, 0, 1) if number % 10 == 0 else (0,):
            world.topic.put(partition, at)
            expected.append(f"{partition}-{len(world.topic.partitions[partition]) - 1}")
    stream = world.stream()
    pieces = stream.look()
    found = [ids(stream, piece) for piece in pieces]
    assert [text for each in found for text in each] == expected
    assert max(map(len, found)) <= 100
    assert len(pieces) < 3 * len(expected) / 100
    assert world.stream().look() == pieces
    assert stream.look() == pieces


def test_what_has_come_just_now_waits_until_it_has_settled(world: World) -> None:
    world.topic.put(0, NOW_MS - 5000)
    world.topic.put(1, NOW_MS - 1000)
    stream = world.stream()
    assert all_ids(stream) == ["0-0"]
    world.now_ms += 1000
    assert all_ids(stream) == ["0-0"]  # not a piece for each look
    world.now_ms += 2000
    assert all_ids(stream) == ["0-0", "1-0"]


def test_message_with_an_older_time_than_the_last_piece_is_read_all_the_same(world: World) -> None:
    world.topic.put(0, NOW_MS - 5000)
    stream = world.stream()
    stream.look()
    world.topic.put(0, NOW_MS - 3_000_000)
    world.now_ms += 5000
    assert all_ids(stream) == ["0-0", "0-1"]


@pytest.mark.parametrize("strange_ms", [-1, NOW_MS * 2])
def test_message_without_a_time_or_from_the_future_keeps_none_waiting(world: World, strange_ms: int) -> None:
    world.topic.put(0, NOW_MS - 60_000)
    world.topic.put(0, strange_ms)
    world.topic.put(0, NOW_MS - 50_000)
    world.topic.put(1, NOW_MS - 40_000)
    assert sorted(all_ids(world.stream())) == ["0-0", "0-1", "0-2", "1-0"]


def test_messages_of_one_instant_are_cut_into_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "PIECE_MESSAGES", 100)
    for number in range(1234):
        world.topic.put(number % 2, START_MS)
    stream = world.stream()
    found = [ids(stream, piece) for piece in stream.look()]
    assert sorted(text for each in found for text in each) == sorted(f"{n % 2}-{n // 2}" for n in range(1234))
    assert max(map(len, found)) <= 102


def test_quiet_month_costs_few_requests(world: World) -> None:
    world.topic.put(0, NOW_MS - 30 * 86_400_000)
    world.topic.put(0, NOW_MS - 10_000)
    assert all_ids(world.stream()) == ["0-0", "0-1"]
    assert world.topic.asked < 40


def test_partition_that_is_new_is_read_from_its_beginning(world: World) -> None:
    world.topic.put(0, NOW_MS - 10_000)
    stream = world.stream()
    stream.look()
    world.topic.partitions[2], world.topic.first[2] = [], 0
    world.topic.put(2, NOW_MS - 9000)
    world.now_ms += 5000
    assert all_ids(stream) == ["0-0", "2-0"]


def test_piece_read_again_is_the_same_and_from_a_row_on(world: World) -> None:
    for number in range(10):
        world.topic.put(number % 2, START_MS + number, b"" if number == 4 else None)
    stream, rejects = world.stream(), Rejects()
    (piece,) = stream.look()
    first = ids(stream, piece)
    assert first == ids(world.stream(), piece)
    behind = list(stream.read(piece, rejects, 4))
    assert [text for _, batch, _ in behind for text in batch.column(0).to_pylist()] == first[4:]
    assert [place for *_, places in behind for place in places.tolist()] == [5, 6, 7, 8, 9]
    assert rejects == Rejects(no_id=1)
    assert stream.newest_ms() == START_MS + 9


def test_topic_that_has_forgotten_unread_messages_is_refused(world: World) -> None:
    for number in range(5):
        world.topic.put(0, START_MS + number)
    stream = world.stream()
    (piece,) = stream.look()
    for number in range(5):
        world.topic.put(0, NOW_MS - 10_000 + number)
    world.topic.first[0] = 7
    with pytest.raises(StreamMessagesGone, match="holds messages from 7 on, and was read up to 5 alone"):
        stream.look()
    with pytest.raises(StreamMessagesGone, match="partition 0 does not hold messages 0 to 5"):
        ids(stream, piece)


def test_newest_time_of_a_topic_is_looked_for_at_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "PIECE_MESSAGES", 10)
    for number in range(2000):
        world.topic.put(0, START_MS + number)
    stream = world.stream()
    assert len(stream.look()) > 100
    world.topic.first[0] = 1000
    assert stream.newest_ms() == START_MS + 1999


def test_topic_that_was_made_anew_is_refused(world: World) -> None:
    world.topic.put(0, START_MS)
    world.topic.put(0, START_MS)
    stream = world.stream()
    stream.look()
    world.topic.partitions[0] = []
    world.topic.put(0, NOW_MS - 10_000)
    with pytest.raises(StreamMessagesGone, match="was read up to 2 and ends before: the topic was made anew"):
        stream.look()


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (b'{"id": "secret"', FileInvalid, "not JSON"),
        (b'{"id": "a", "t": 1}{"id": "b"}', FileInvalid, "not JSON"),
        (b"7", FileInvalid, "not a JSON object"),
        (b'{"id": "a", "t": 5, "x": 1}', EventTimeImplausible, "1970-01-01"),
        (
            b'{"id": "a", "t": 1795262400000, "x": "secret"}',
            FileInvalid,
            "found a text where rows before have a number",
        ),
    ],
)
def test_message_that_is_wrong_is_named_by_partition_and_offset(
    world: World, value: bytes, error: type[Exception], said: str
) -> None:
    world.topic.put(0, START_MS)
    world.topic.put(1, START_MS + 1)
    world.topic.put(1, START_MS + 2, value)
    stream = world.stream()
    (piece,) = stream.look()
    with pytest.raises(error, match=said) as caught:
        ids(stream, piece)
    assert caught.value.where == "offset 1 of partition 1 of kafka://127.0.0.1:9092/clicks"  # type: ignore[attr-defined]
    assert "secret" not in str(caught.value)


def test_objects_on_several_lines_are_read_and_such_without_id_or_time_are_counted(world: World) -> None:
    world.topic.put(0, START_MS, b'{\n "id": "a",\n "t": 1795262400000\n}\n')
    stream, rejects = world.stream(), Rejects()
    assert all_ids(stream) == ["a"]
    world.topic.put(0, NOW_MS - 10_000, b'{"t": 1795262400000}')
    world.topic.put(0, NOW_MS - 10_000, b'{"id": "b"}')
    world.now_ms += 5000
    assert [batch.num_rows for _, batch, _ in stream.read(stream.look()[1], rejects)] == [0]
    assert rejects == Rejects(no_id=1, no_time=1)


def test_topic_is_opened_as_a_stream_and_read_by_nothing_else(tmp_path: Path) -> None:
    stream = open_stream(DATASET, f"file://{tmp_path}")
    assert isinstance(stream, TopicStream)
    stream.close()
    with pytest.raises(ConfigError, match="which only a join reads"):
        list_parts(DATASET)
