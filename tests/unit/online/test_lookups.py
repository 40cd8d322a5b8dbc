"""Live ids read, asked, matched and answered; the store and the gateways are not here."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from fedtasks.config import Dataset, FeatureType, IdType
from fedtasks.errors import LookupsNotServed, ProtocolViolated, TicketExhausted
from fedtasks.online import lookups
from fedtasks.online.lookups import Answerer, Asker, parse_ids, read_answers
from fedtasks.wire.v1 import lookup_pb2, worker_pb2


def dataset(**declared: Any) -> Dataset:
    fields = {"name": "people", "uri": "file:///p", "id": "id", "features": {"x": FeatureType.NUMERIC}}
    return Dataset(**(fields | declared))


def tag_of(text: str) -> bytes:
    return text.encode().rjust(16, b"\0")


class Tags:
    """Tag tables that know these ids."""

    def __init__(self, *ids: str, answer: str | None = None) -> None:
        self._tags = {text: tag_of(text) for text in ids}
        self._answer = answer

    def tags_of(self, name: str, key_id: str, ids: Sequence[str]) -> dict[str, bytes]:
        assert (name, key_id) == ("people", "k")
        return {text: self._tags[text] for text in ids if text in self._tags}

    def matches_of(self, name: str, key_id: str, tags: Sequence[bytes]) -> dict[bytes, tuple[str, str | None]]:
        return {tag: (text, self._answer) for text, tag in self._tags.items() if tag in tags}


def parse(lines: list[str], **declared: Any) -> list[tuple[str, str]]:
    return [(each.id, each.problem) for each in parse_ids(dataset(**declared), [line.encode() for line in lines], 1)]


def test_parse_ids_keeps_zeros_and_joins_unicode_forms() -> None:
    lines = ['"007"', "7", '{"id": " Zoe\\u0308 ", "more": 1}', '"Zo\\u00eb"']
    assert parse(lines) == [("007", ""), ("7", ""), ("Zoë", ""), ("Zoë", "")]


def test_parse_ids_says_what_is_wrong_with_a_line_and_reads_the_others() -> None:
    found = parse(["nonsense", '"a"', "null", "1.5", "true", '{"other": 1}', '""', '" "', "[1]", '"b"'])
    assert [text for text, _ in found] == ["", "a", "", "", "", "", "", "", "", "b"]
    assert [problem for _, problem in found if problem] == [
        "not JSON",
        *["an id is a text or a whole number"] * 3,
        "expected an id, or an object with id",
        *["there is no id"] * 2,
        "an id is a text or a whole number",
    ]


def test_parse_ids_of_whole_numbers_in_their_canonical_form() -> None:
    found = parse(['"+007"', "7", '"seven"', '"-0"'], id_type=IdType.INTEGER)
    assert [text for text, _ in found] == ["7", "7", "", "0"]
    assert "not a whole number" in found[2][1]


def test_parse_ids_of_several_columns() -> None:
    found = parse(['{"town": "x", "id": "a"}', '"a"', '{"id": "a"}', '{"id": "a\\u001fc", "town": "b"}'], id="id,town")
    assert found[0] == ("a\x1fx", "")
    assert [bool(problem) for _, problem in found] == [False, True, True, True]


class Client:
    """A gateway whose peer knows these tags."""

    def __init__(self, *known: str, policy: str = "matched", failures: Sequence[Exception] = ()) -> None:
        self._known = {tag_of(text) for text in known}
        self._policy = policy
        self._failures = list(failures)
        self.asked: list[lookup_pb2.Lookup] = []

    def look_up(self, peer: str, lookup: lookup_pb2.Lookup) -> worker_pb2.LookUpResponse:
        copy = lookup_pb2.Lookup()
        copy.CopyFrom(lookup)
        self.asked.append(copy)
        if self._failures:
            raise self._failures.pop(0)
        tags = [lookup.tags[start : start + 16] for start in range(0, len(lookup.tags), 16)]
        answers = lookup_pb2.Answers(policy=self._policy)
        if self._policy != "nothing":
            answers.matched = bytes(tag in self._known for tag in tags)
        if self._policy == "columns":
            answers.values.extend('{"x": 1.5}' if tag in self._known else "" for tag in tags)
        return worker_pb2.LookUpResponse(answers=answers, ticket_id="t", dataset="loans")


def asker(client: Client, *ids: str) -> Asker:
    return Asker(dataset(), "k", Tags(*ids), client, peer="bank")  # type: ignore[arg-type]


def answers(made: Asker, *lines: str) -> list[dict[str, Any]]:
    return list(made.answer([line.encode() for line in lines], 1))


def test_asker_answers_each_line_and_sends_each_tag_once() -> None:
    client = Client("a")
    made = asker(client, "a", "b")

    found = answers(made, '"a"', '{"id": "b"}', '" a "', '"new"', "nonsense")

    assert found == [
        {"id": "a", "status": "matched"},
        {"id": {"id": "b"}, "status": "unmatched"},
        {"id": " a ", "status": "matched"},
        {"id": "new", "status": "untagged"},
        {"id": None, "status": "invalid", "problem": "not JSON"},
    ]
    (asked,) = client.asked
    assert sorted((asked.tags[:16], asked.tags[16:])) == [tag_of("a"), tag_of("b")]
    assert made.counts == {"lines": 5, "invalid": 1, "untagged": 1, "asked": 2, "matched": 2}


def test_asker_numbers_batches_and_names_what_was_chosen() -> None:
    client = Client("a")
    made = asker(client, "a")
    for _ in range(2):
        answers(made, '"a"')
    assert [(one.sequence, one.ticket_id, one.dataset) for one in client.asked] == [(1, "", ""), (2, "t", "loans")]
    assert client.asked[0].stream == client.asked[1].stream
    assert len(answers(made, '"unknown"')) == 1
    assert len(client.asked) == 2, "nothing to ask"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("nothing", {"status": "sent"}), ("columns", {"status": "matched", "values": {"x": 1.5}})],
)
def test_asker_shows_what_the_policy_lets_out(policy: str, expected: dict[str, Any]) -> None:
    assert answers(asker(Client("a", policy=policy), "a"), '"a"') == [{"id": "a", **expected}]


def test_asker_asks_again_with_the_same_number_while_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(lookups.time, "sleep", slept.append)
    client = Client("a", failures=[LookupsNotServed(), LookupsNotServed()])

    assert answers(asker(client, "a"), '"a"') == [{"id": "a", "status": "matched"}]

    assert [one.sequence for one in client.asked] == [1, 1, 1]
    assert len(slept) == 2
    with pytest.raises(TicketExhausted):
        answers(asker(Client("a", failures=[TicketExhausted()]), "a"), '"a"')


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "everything"},
        {"policy": "matched", "matched": b"\1"},
        {"policy": "matched", "matched": b"\1\2"},
        {"policy": "nothing", "matched": b"\1\1"},
        {"policy": "columns", "matched": b"\1\1", "values": ["{}"]},
        {"policy": "columns", "matched": b"\1\1", "values": ["{}", "[1]"]},
        {"policy": "columns", "matched": b"\1\1", "values": ["{}", "{"]},
    ],
)
def test_answers_that_do_not_fit_the_question_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolated):
        read_answers(lookup_pb2.Answers(**wrong), 2)


def test_answerer_matches_counts_and_keeps_matches_for_itself() -> None:
    kept = io.StringIO()
    made = Answerer(dataset(), "k", Tags("a", "b"), "nothing", "shop", kept)  # type: ignore[arg-type]

    found = made.answer(tag_of("a") + tag_of("z"))

    assert found == lookup_pb2.Answers(policy="nothing")
    assert made.counts == {"asked": 2, "matched": 1}
    (line,) = [json.loads(line) for line in kept.getvalue().splitlines()]
    assert (line["id"], line["peer"]) == ("a", "shop")


def test_answerer_shows_ids_of_several_columns_by_column() -> None:
    kept = io.StringIO()
    composite = dataset(id="id,town")
    Answerer(composite, "k", Tags("a\x1fx"), "nothing", "shop", kept).answer(tag_of("a\x1fx"))  # type: ignore[arg-type]
    assert json.loads(kept.getvalue())["id"] == {"id": "a", "town": "x"}


def test_answerer_lets_out_the_named_columns_of_matches_alone() -> None:
    made = Answerer(dataset(), "k", Tags("a", answer='{"x": 1}'), "columns", "shop")  # type: ignore[arg-type]
    found = made.answer(tag_of("z") + tag_of("a"))
    assert (found.matched, list(found.values)) == (b"\0\1", ["", '{"x": 1}'])


@pytest.mark.parametrize(
    "text", ["[" * 3_000, '{"a":' * 500 + "1" + "}" * 500, '{"a": NaN}', '{"a": "\\ud800"}', "[]", ""]
)
def test_values_of_a_peer_that_are_no_plain_object_are_refused(text: str) -> None:
    with pytest.raises(ProtocolViolated, match="not a JSON object"):
        lookups._values(text)
