"""Live lookups between two parties: one streams tags of live ids, the other matches them and answers by its policy.

Both use tags that intersections have left and `load_tags` has put into the store; neither needs the signing key.

::

    asking side                                        answering side
    live id → normalised → tag  ──── tags ────►        tag → own id, by ticket and policy
    status, values              ◄── answers ──         matches, for itself
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import pyarrow as pa

from fedtasks.config import Dataset
from fedtasks.data.cells import Place
from fedtasks.data.tables import ids_of, parts_of_id
from fedtasks.errors import (
    ColumnType,
    FedtasksError,
    GatewayUnreachable,
    LookupsNotServed,
    PeerUnreachable,
    ProtocolViolated,
)
from fedtasks.link.client import GatewayClient
from fedtasks.link.patience import backoff
from fedtasks.names import TAG_BYTES
from fedtasks.online.declaration import ANSWERS
from fedtasks.store import TagBook
from fedtasks.untrusted import parse_object
from fedtasks.wire.v1 import lookup_pb2

log = logging.getLogger(__name__)

MAX_BATCH = 1000
"""The most tags that cross at once."""

_MAX_VALUES_CHARS = 100_000


# ------------------------------------------------------------------------------------------------------- asking side
@dataclass(frozen=True)
class LiveId:
    """One line of the stream: the id as it was given and as it is hashed, or what is wrong with it."""

    given: Any
    id: str = ""
    problem: str = ""


def parse_ids(dataset: Dataset, lines: Sequence[bytes], first: int) -> list[LiveId]:
    """Read live ids, one to a line: a JSON text or whole number, or an object with the id's columns.

    Parameters
    ----------
    first
        Number of the first line, for what is said of a wrong one.

    Notes
    -----
    A wrong line is no error: the stream goes on, and the line is answered with what is wrong with it.
    """
    found = [_parse(dataset, line) for line in lines]
    right = [index for index, (_, texts, _) in enumerate(found) if texts is not None]
    ids = dict(zip(right, _normalised(dataset, [found[index][1] or () for index in right], first), strict=True))
    return [
        LiveId(given, problem=problem) if texts is None else LiveId(given, *ids[index])
        for index, (given, texts, problem) in enumerate(found)
    ]


def _parse(dataset: Dataset, line: bytes) -> tuple[Any, tuple[str, ...] | None, str]:
    """Return the id as given, its columns' texts (None if it is wrong), and what is wrong."""
    try:
        given = json.loads(line)
    except ValueError:
        return None, None, "not JSON"
    columns = dataset.id_columns
    if isinstance(given, dict):
        given = {name: given[name] for name in columns if name in given}
    values = list(given.values()) if isinstance(given, dict) else [given]
    if len(values) != len(columns):
        return given, None, f"expected {'an id, or ' if len(columns) == 1 else ''}an object with {', '.join(columns)}"
    if not all(type(value) in (str, int) for value in values):
        return given, None, "an id is a text or a whole number"
    return given, tuple(str(value) for value in values), ""


def _normalised(dataset: Dataset, rows: Sequence[tuple[str, ...]], first: int) -> list[tuple[str, str]]:
    """Return id and problem of each row; only when a row is wrong are they looked at one by one."""
    columns = list(zip(*rows, strict=True)) or [()] * len(dataset.id_columns)
    arrays = [pa.array(column, pa.string()) for column in columns]
    try:
        batch = pa.RecordBatch.from_arrays(arrays, list(dataset.id_columns))
        ids = ids_of(dataset, batch, Place("the stream", first)).to_pylist()
    except ColumnType as error:
        if len(rows) == 1:
            return [("", error.detail)]
        return [_normalised(dataset, [row], first)[0] for row in rows]
    return [(text or "", "" if text else "there is no id") for text in ids]


class Asker:
    """Asks a peer about live ids.

    Parameters
    ----------
    dataset
        Whose ids they are: says how they are normalised.
    key_id
        Under which key the tags were made.
    tags
        Where they are.
    client
        This party's gateway.
    peer, ticket_id, peer_dataset
        Who is asked, under which ticket, about which of its datasets; the last two may be empty where the tickets leave
        no choice.
    patience_s
        How long a batch is asked again while the peer does not answer.
    """

    def __init__(
        self,
        dataset: Dataset,
        key_id: str,
        tags: TagBook,
        client: GatewayClient,
        *,
        peer: str,
        ticket_id: str = "",
        peer_dataset: str = "",
        patience_s: float = 300.0,
    ) -> None:
        self._dataset = dataset
        self._key_id = key_id
        self._tags = tags
        self._client = client
        self._peer = peer
        self._ticket_id, self._peer_dataset = ticket_id, peer_dataset
        self._patience_s = patience_s
        self._stream = secrets.token_hex(8)
        self._sequence = 0
        self.counts = {"lines": 0, "invalid": 0, "untagged": 0, "asked": 0, "matched": 0}

    def answer(self, lines: Sequence[bytes], first: int) -> Iterator[dict[str, Any]]:
        """Yield, line by line, the id as given and its ``status``.

        ``matched`` (with ``values`` if the peer lets them out), ``unmatched``, ``sent`` (the peer answers nothing),
        ``untagged`` (no intersection has given the id a tag yet: nothing was sent) or ``invalid`` (with ``problem``).

        Raises
        ------
        TicketError, LookupsNotServed, PeerUnreachable
            The batch was not answered; asking again with the same lines charges it anew only if it was never charged.

        Notes
        -----
        Reveals: to the peer, which of its people are in these lines, and how many others have a tag here.
        """
        live = parse_ids(self._dataset, lines, first)
        tags = self._tags.tags_of(self._dataset.name, self._key_id, list({each.id for each in live if each.id}))
        answers: dict[bytes, dict[str, Any]] = {}
        wanted = list(tags.values())
        for start in range(0, len(wanted), MAX_BATCH):
            answers |= self._ask(wanted[start : start + MAX_BATCH])
        for each in live:
            shown: dict[str, Any] = {"id": each.given}
            if each.problem:
                shown |= {"status": "invalid", "problem": each.problem}
            else:
                tag = tags.get(each.id)
                shown |= answers[tag] if tag is not None else {"status": "untagged"}
            self._count(shown["status"])
            yield shown

    def _count(self, status: str) -> None:
        self.counts["lines"] += 1
        if status in self.counts:
            self.counts[status] += 1

    def _ask(self, tags: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        self._sequence += 1
        lookup = lookup_pb2.Lookup(
            ticket_id=self._ticket_id,
            dataset=self._peer_dataset,
            key_id=self._key_id,
            stream=self._stream,
            sequence=self._sequence,
            tags=b"".join(tags),
        )
        response = self._patiently(lambda: self._client.look_up(self._peer, lookup))
        self._ticket_id, self._peer_dataset = response.ticket_id, response.dataset
        self.counts["asked"] += len(tags)
        return dict(zip(tags, read_answers(response.answers, len(tags)), strict=True))

    def _patiently(self, work: Callable[[], Any]) -> Any:
        until, delays = time.monotonic() + self._patience_s, backoff(0.5, 5.0)
        while True:
            try:
                return work()
            except (LookupsNotServed, PeerUnreachable, GatewayUnreachable) as error:
                delay = next(delays)
                if time.monotonic() + delay > until:
                    raise
                log.warning("%s; asking again", error)
                time.sleep(delay)


def read_answers(answers: lookup_pb2.Answers, n: int) -> list[dict[str, Any]]:
    """Return the status, and the values if there are any, of each of `n` tags.

    Raises
    ------
    ProtocolViolated
        They are not answers to `n` tags.
    """
    policy, matched, values = answers.policy, answers.matched, answers.values
    n_values = n if policy == ANSWERS[2] else 0
    n_matched = 0 if policy == ANSWERS[0] else n
    if policy not in ANSWERS or len(matched) != n_matched or len(values) != n_values or set(matched) - {0, 1}:
        raise ProtocolViolated(f"the peer's answers do not fit {n} tags")
    if policy == ANSWERS[0]:
        return [{"status": "sent"} for _ in range(n)]
    found: list[dict[str, Any]] = [{"status": "matched" if bit else "unmatched"} for bit in matched]
    for status, text in zip(found, values, strict=bool(values)):
        if status["status"] == "matched":
            status["values"] = _values(text)
    return found


def _values(text: str) -> dict[str, Any]:
    try:
        return parse_object(text, max_chars=_MAX_VALUES_CHARS)
    except ValueError as error:
        raise ProtocolViolated("a peer's values are not a JSON object") from error


# ---------------------------------------------------------------------------------------------------- answering side
class Answerer:
    """Matches a peer's tags with this party's.

    Parameters
    ----------
    dataset, key_id, tags
        Whose tags, under which key, and where they are.
    policy
        What is let out, of `fedtasks.online.declaration.ANSWERS`.
    peer
        Who asks.
    matches
        Where each match is written for this side itself: a JSON line of id, peer and time.
    """

    def __init__(
        self, dataset: Dataset, key_id: str, tags: TagBook, policy: str, peer: str, matches: IO[str] | None = None
    ) -> None:
        self._dataset = dataset
        self._key_id = key_id
        self._tags = tags
        self._policy = policy
        self._peer = peer
        self._matches = matches
        self.counts = {"asked": 0, "matched": 0}

    def answer(self, raw: bytes) -> lookup_pb2.Answers:
        """Answer a batch of tags, 16 bytes each.

        Notes
        -----
        Reveals: what the policy says, to the peer; for ``nothing``, not even how many matched.
        """
        tags = [raw[start : start + TAG_BYTES] for start in range(0, len(raw), TAG_BYTES)]
        found = self._tags.matches_of(self._dataset.name, self._key_id, tags)
        self.counts["asked"] += len(tags)
        self.counts["matched"] += sum(tag in found for tag in tags)
        self._note(found)
        answers = lookup_pb2.Answers(policy=self._policy)
        if self._policy != ANSWERS[0]:
            answers.matched = bytes(tag in found for tag in tags)
        if self._policy == ANSWERS[2]:
            answers.values.extend((found[tag][1] or "{}") if tag in found else "" for tag in tags)
        return answers

    def _note(self, found: Mapping[bytes, tuple[str, str | None]]) -> None:
        if self._matches is None or not found:
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        for text, _ in found.values():
            parts = parts_of_id(self._dataset, text)
            shown = text if len(parts) == 1 else parts
            self._matches.write(json.dumps({"id": shown, "peer": self._peer, "at": at}, ensure_ascii=False) + "\n")
        self._matches.flush()


class Refresher:
    """Calls a function again and again in a thread of its own until the block ends; an error is logged."""

    def __init__(self, work: Callable[[], object], every_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._work()
            except FedtasksError as error:
                log.warning("%s; trying again in %g s", error, self._every_s)
            except Exception as error:  # a storage or a store that is away for a while must not end the thread
                log.warning("%s; trying again in %g s", type(error).__name__, self._every_s)
