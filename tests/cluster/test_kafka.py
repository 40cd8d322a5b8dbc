"""Topics of a real Kafka as streams."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from fedtasks.config import Dataset, EventTime, FeatureType, Format, Kafka, Security, TimeUnit
from fedtasks.data import topics
from fedtasks.data.growing import Piece, Rejects
from fedtasks.data.topics import TopicStream, connected
from fedtasks.errors import DataMissing, FedtasksError, FileForbidden, StorageUnavailable, StreamMessagesGone
from fedtasks.join.settings import JoinSettings, Late
from fedtasks.runtime.context import Outcome
from tests.support.join_case import JoinCase
from tests.support.join_logs import Shape, expect, generate, table_of
from tests.support.kafka import PASSWORD, USER, KafkaBroker

pytestmark = pytest.mark.cluster

NOW_MS = int(time.time() * 1000)
START_MS = NOW_MS - 3_600_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as found:
        yield found


class Clicks:
    """A topic of clicks."""

    def __init__(self, broker: KafkaBroker, name: str, root: Path, partitions: int = 2) -> None:
        self._broker, self._name, self._uri = broker, name, f"file://{root}/catalogue"
        with closing(broker.admin()) as admin:
            admin.create_topics([NewTopic(name, partitions, 1)])

    def dataset(self, address: str = "", **fields: Any) -> Dataset:
        return Dataset(
            "clicks",
            f"kafka://{address or self._broker.address}/{self._name}",
            "id",
            {"x": FeatureType.NUMERIC},
            format=Format.JSON_LINES,
            event_time=EventTime("t", TimeUnit.MILLISECONDS),
            settle_s=0.0,
            **fields,
        )

    def stream(self, **fields: Any) -> TopicStream:
        return TopicStream(self.dataset(**fields), self._uri)

    def put(self, rows: list[tuple[int, int, str]], **producer: Any) -> None:
        """Produce events, each with partition, time and id."""
        with closing(KafkaProducer(bootstrap_servers=self._broker.address, linger_ms=50, **producer)) as made:
            for partition, at, text in rows:
                value = json.dumps({"id": text, "t": at, "x": 1.5}).encode()
                made.send(self._name, value, partition=partition, timestamp_ms=at)
            made.flush()

    def forget(self, partition: int, before: int) -> None:
        """Let go of messages, as retention does."""
        with closing(self._broker.admin()) as admin:
            admin.delete_records({TopicPartition(self._name, partition): before})


def ids(stream: TopicStream, piece: Piece) -> list[str]:
    return [text for _, batch, _ in stream.read(piece, Rejects()) for text in batch.column(0).to_pylist()]


def test_topic_is_read_in_the_order_of_time_and_read_again_by_offsets(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "PIECE_MESSAGES", 500)
    clicks = Clicks(broker, "ordered", tmp_path)
    rows = [(0 if number % 10 else 1, START_MS + 100 * number, f"e{number}") for number in range(5000)]
    clicks.put(rows, compression_type="gzip")
    expected = [text for *_, text in rows]
    with closing(clicks.stream()) as stream:
        pieces = stream.look()
        found = [ids(stream, piece) for piece in pieces]
        assert [text for each in found for text in each] == expected
        assert 10 <= len(pieces) < 60
        assert stream.newest_ms() == START_MS + 100 * 4999
        clicks.put([(1, NOW_MS, "more")])
        assert ids(stream, stream.look()[-1]) == ["more"]
    with closing(clicks.stream()) as again:
        assert [ids(again, piece) for piece in again.look()] == [*found, ["more"]]


def test_messages_that_were_rolled_back_are_not_read(broker: KafkaBroker, tmp_path: Path) -> None:
    clicks = Clicks(broker, "transactions", tmp_path, 1)
    with closing(KafkaProducer(bootstrap_servers=broker.address, transactional_id="tests")) as made:
        made.init_transactions()
        for name, is_kept in (("kept", True), ("dropped", False), ("last", True)):
            made.begin_transaction()
            made.send("transactions", json.dumps({"id": name, "t": START_MS}).encode(), timestamp_ms=START_MS)
            if is_kept:
                made.commit_transaction()
            else:
                made.flush()
                made.abort_transaction()
    with closing(clicks.stream()) as stream:
        assert [text for piece in stream.look() for text in ids(stream, piece)] == ["kept", "last"]


def test_topic_that_has_forgotten_what_was_not_read_is_refused(broker: KafkaBroker, tmp_path: Path) -> None:
    clicks = Clicks(broker, "forgetful", tmp_path, 1)
    clicks.put([(0, START_MS + number, f"e{number}") for number in range(10)])
    with closing(clicks.stream()) as stream:
        (piece,) = stream.look()
        clicks.put([(0, START_MS + 1000, "gone"), (0, START_MS + 1001, "kept")])
        clicks.forget(0, 11)
        with pytest.raises(StreamMessagesGone, match="holds messages from 11 on, and was read up to 10 alone"):
            stream.look()
        with pytest.raises(StreamMessagesGone, match="does not hold messages 0 to 10"):
            ids(stream, piece)


def test_topic_behind_a_password_is_read_with_it_alone(broker: KafkaBroker, tmp_path: Path) -> None:
    clicks, secret = Clicks(broker, "closed", tmp_path, 1), tmp_path / "password"
    clicks.put([(0, START_MS, "a")])
    secret.touch(mode=0o600)
    secret.write_text(PASSWORD)
    login = Kafka(Security.SASL_PLAINTEXT, "PLAIN", USER, secret)
    sealed = replace(login, security=Security.SASL_SSL, authority=broker.authority)
    with closing(clicks.stream(address=broker.tls_address, kafka=sealed)) as stream:
        assert [text for piece in stream.look() for text in ids(stream, piece)] == ["a"]
    with closing(clicks.stream(address=broker.closed_address, kafka=login)) as stream:
        assert [text for piece in stream.look() for text in ids(stream, piece)] == ["a"]
    with pytest.raises((FileForbidden, StorageUnavailable)):  # of an authority that nobody here knows
        connected(clicks.dataset(broker.tls_address, kafka=replace(sealed, authority=None)))
    secret.write_text("not the right one")
    with pytest.raises(FileForbidden, match="does not let this party in") as caught:
        connected(clicks.dataset(broker.closed_address, kafka=login))
    assert "not the right one" not in str(caught.value)


def test_topic_that_is_not_there_and_brokers_that_are_not_are_told_apart(broker: KafkaBroker, tmp_path: Path) -> None:
    clicks = Clicks(broker, "here", tmp_path, 1)
    there = clicks.dataset()
    with closing(connected(there)) as topic:
        assert len(topic.stands()) == 1
    elsewhere = Dataset(**{**vars(there), "uri": f"kafka://{broker.address}/nowhere"})
    with closing(connected(elsewhere)) as topic, pytest.raises(DataMissing, match="there is no such topic"):
        topic.stands()
    with pytest.raises(StorageUnavailable) as caught:
        connected(Dataset(**{**vars(there), "uri": "kafka://127.0.0.1:1/clicks"}))
    assert isinstance(caught.value, FedtasksError)
    assert caught.value.retryable


def test_join_of_a_topic_and_of_files_equals_a_join_of_both_whole_logs(broker: KafkaBroker, tmp_path: Path) -> None:
    faults = {"losses": 0.05, "duplicates": 0.05, "ties": 0.2, "broken": 0.02, "late": 0.05}
    logs = generate(Shape(2000, rate=5, disorder_s=20, late_s=200, apart_s=4, seed=5, **faults))
    join = JoinSettings("joined", within_s=4, lateness_s=20, late=Late.CORRECT, correct_within_s=120)
    uri = f"kafka://{broker.address}/joined"
    case = JoinCase(tmp_path, {"leader": {"uri": uri, "format": Format.JSON_LINES}})
    with closing(broker.admin()) as admin:
        admin.create_topics([NewTopic("joined", 2, 1)])
    ends = [0, 700, 1500, len(logs[0])]
    for first, end in pairwise(ends):
        rows = table_of(logs[0].part(first, end), is_leader=True).to_pylist()
        with closing(KafkaProducer(bootstrap_servers=broker.address, linger_ms=50)) as made:
            for number, row in enumerate(rows, first):
                made.send("joined", json.dumps(row).encode(), partition=number % 2, timestamp_ms=START_MS + number)
            made.flush()
        case.append("follower", logs[1].part(first, end if end < ends[-1] else len(logs[1])), 300)
        for outcome in case.run(replace(join, final=end == ends[-1])):
            assert all(isinstance(each, Outcome) for each in outcome), outcome
    expected = expect(*logs, join)
    assert len(expected.pairs) > 500
    assert case.joined(join).as_expected == expected.pairs
    assert case.counts("leader", "joined")["rejected"] == len(expected.leader.rejected)
