"""A topic as its brokers have it: the one module that imports the client of Kafka.

It reads by offsets alone: it belongs to no group and commits nothing, so the brokers know nothing of who has read what.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from fedtasks.config import Dataset, Kafka, read_secret
from fedtasks.config.topics import parts_of_topic
from fedtasks.data.pieces import Range
from fedtasks.data.topics import Message, Stand
from fedtasks.errors import DataMissing, FileForbidden, StorageUnavailable, StreamMessagesGone

_SILENCE_S, _POLL_MS, _ANSWER_MS = 30.0, 500, 30_000
_AT_ONCE, _FETCHED_BYTES = 10_000, 8 << 20

_REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
)


class KafkaTopic:
    """Reads a topic; see `fedtasks.data.topics.Topic`.

    Parameters
    ----------
    dataset
        Its `uri` names brokers and topic, its `kafka` how they are reached.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._brokers, self._topic = parts_of_topic(dataset.uri)
        with self._errors():
            self._consumer = KafkaConsumer(
                bootstrap_servers=self._brokers,
                client_id="fedtasks",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level="read_committed",
                max_poll_records=_AT_ONCE,
                max_partition_fetch_bytes=_FETCHED_BYTES,
                request_timeout_ms=_ANSWER_MS,
                **_connection(dataset.kafka or Kafka()),
            )
        if not self._consumer.bootstrap_connected():  # else the client would go on to ask without end
            self.close()
            text = "Kafka closed the connection: it does not let this party in, or expects another `security`"
            raise FileForbidden(text, where=dataset.uri)

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close(autocommit=False)

    def stands(self) -> dict[int, Stand]:
        """Return each partition's first and next offset."""
        with self._errors():
            places = self._partitions()
            first, end = self._consumer.beginning_offsets(places), self._consumer.end_offsets(places)
        return {place.partition: Stand(first[place], end[place]) for place in places}

    def offsets_at(self, time_ms: int) -> dict[int, tuple[int, int] | None]:
        """Return each partition's first message at or behind a time, as its offset and time; None without one."""
        with self._errors():
            found = self._consumer.offsets_for_times(dict.fromkeys(self._partitions(), time_ms))
        return {
            place.partition: None if each is None or each.offset < 0 else (each.offset, each.timestamp)
            for place, each in found.items()
        }

    def messages(self, wanted: Range) -> Iterator[Message]:
        """Yield the messages of a range, in their order."""
        place = TopicPartition(self._topic, wanted.partition)
        with self._errors():
            self._consumer.assign([place])
            self._consumer.seek(place, wanted.first)
            deadline = time.monotonic() + _SILENCE_S
            while (self._consumer.position(place, _POLL_MS) or 0) < wanted.end:
                found = self._consumer.poll(_POLL_MS).get(place, ())
                for each in found:
                    if each.offset < wanted.end:
                        yield Message(each.offset, each.timestamp, each.value)
                if found:
                    deadline = time.monotonic() + _SILENCE_S
                elif time.monotonic() > deadline:
                    raise StorageUnavailable(f"Kafka was silent for {_SILENCE_S:.0f} seconds", where=self._dataset.uri)

    def _partitions(self) -> list[Any]:
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise DataMissing(f"dataset `{self._dataset.name}`: there is no such topic", where=self._dataset.uri)
        return [TopicPartition(self._topic, number) for number in sorted(numbers)]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        uri = self._dataset.uri
        try:
            yield
        except _REFUSED:
            raise FileForbidden("Kafka does not let this party in, or not at this topic", where=uri) from None
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError):
            raise StreamMessagesGone("the topic does not hold some of the messages any more", where=uri) from None
        except (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.InvalidTopicError):
            raise DataMissing(f"dataset `{self._dataset.name}`: there is no such topic", where=uri) from None
        except (kafka_errors.KafkaError, OSError) as error:
            raise StorageUnavailable(f"Kafka does not serve: {type(error).__name__}", where=uri) from error


def _connection(declared: Kafka) -> dict[str, Any]:
    """Return what the client is told of how the brokers are reached."""
    found: dict[str, Any] = {"security_protocol": declared.security.value}
    if declared.security.has_login and declared.password_file is not None:
        found |= {
            "sasl_mechanism": declared.mechanism,
            "sasl_plain_username": declared.user,
            "sasl_plain_password": read_secret(declared.password_file),
        }
    if declared.security.has_tls:
        files = {
            "ssl_cafile": declared.authority,
            "ssl_certfile": declared.certificate,
            "ssl_keyfile": declared.private_key,
        }
        found |= {name: str(path) for name, path in files.items() if path is not None}
    return found
