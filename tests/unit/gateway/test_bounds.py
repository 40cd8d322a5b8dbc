"""Messages of peers, looked at before they are parsed; what is found agrees with what protobuf would read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import ConfigError, FedtasksError, MessageTooLarge, ProtocolViolated
from fedtasks.gateway.bounds import (
    MAX_CONTROL_BYTES,
    MAX_FIELDS,
    check_names,
    check_shape,
    facts_of,
    head_of,
    parse,
)
from fedtasks.text import plain_text
from fedtasks.wire.v1 import failure_pb2, lookup_pb2, model_pb2, peer_pb2, run_pb2, ticket_pb2


def wire(**body: Any) -> bytes:
    return bytes(peer_pb2.ControlRequest(envelope=peer_pb2.Envelope(**body)).SerializeToString())


HONEST = {
    "start_run": peer_pb2.StartRun(
        ticket_id="t-1",
        pipeline="train",
        dag_id="train",
        partition="2026-11-21",
        config_json='{"a": 1}',
        number=1,
        steps=[run_pb2.Step(name="psi", kind="psi", digest="0" * 64)],
    ),
    "run_update": peer_pb2.RunUpdate(
        run_id="train.2026-11-21.1",
        version=3,
        state=run_pb2.STATE_RUNNING,
        tasks=[run_pb2.Half(task="psi.send[3]", attempt=1, state=run_pb2.STATE_WAITING, since_ms=1_790_000_000_000)],
        failure=failure_pb2.Failure(code="X", at_ms=1),
        receipt="a.b-c.d_e",
    ),
    "ticket_update": peer_pb2.TicketUpdate(ticket_id="t-1", grant="a.b.c"),
    "lookup": lookup_pb2.Lookup(ticket_id="t", dataset="d", key_id="0" * 32, stream="ab", tags=bytes(16_000)),
    "preflight": peer_pb2.Preflight(),
    "ticket_request": ticket_pb2.TicketRequest(request_id="1", pipelines=["p"], role="leader"),
    "ticket_request_declined": ticket_pb2.TicketRequestDeclined(request_id="1", reason="<b>no</b>"),
    "landed": peer_pb2.Landed(dataset="loans", partition="2026-11-21"),
    "champion_change": model_pb2.ChampionChange(
        version=model_pb2.ModelVersion(model="m", version=1, run_id="train.2026-11-21.1", own_digest="0" * 64)
    ),
}


@pytest.mark.parametrize("kind", HONEST)
def test_message_that_gateways_send_passes_and_is_read_as_it_was_sent(kind: str) -> None:
    head = head_of(wire(id=7, reply_to=2, **{kind: HONEST[kind]}))
    assert (head.id, head.reply_to, head.kind) == (7, 2, kind)
    check_shape(head)
    envelope = parse(head)
    check_names(envelope)
    assert envelope == peer_pb2.Envelope(id=7, reply_to=2, **{kind: HONEST[kind]})


def test_update_of_a_run_with_as_many_shards_as_there_may_be_passes() -> None:
    outcome = '{"rows": 123456, "digest": "' + "0" * 64 + '"}'
    halves = [
        run_pb2.Half(task=f"psi.{stage}[{shard}]", attempt=1, state=run_pb2.STATE_SUCCEEDED, outcome_json=outcome)
        for stage in ("send", "answer")
        for shard in range(1024)
    ]
    receipt = "a" * (len(halves) * 200)
    update = peer_pb2.RunUpdate(run_id="r.x.1", version=1, state=run_pb2.STATE_RUNNING, tasks=halves, receipt=receipt)
    head = head_of(wire(run_update=update))
    check_shape(head)
    check_names(parse(head))


@pytest.mark.parametrize(
    "message",
    [
        peer_pb2.StartRun(pipeline="x" * MAX_CONTROL_BYTES),
        peer_pb2.StartRun(steps=[run_pb2.Step()] * (MAX_FIELDS["start_run"] + 1)),
        peer_pb2.TicketUpdate(grant="x" * MAX_CONTROL_BYTES),
        peer_pb2.RunUpdate(tasks=[run_pb2.Half()] * (MAX_FIELDS["run_update"] + 1)),
        peer_pb2.RunUpdate(receipt="x" * (3 << 20)),
        ticket_pb2.TicketRequest(pipelines=["p"] * 1000),
    ],
    ids=lambda message: f"{type(message).__name__}-{message.ByteSize()}",
)
def test_message_that_is_too_long_or_holds_too_much_is_refused_before_it_is_parsed(message: Any) -> None:
    kind = {"StartRun": "start_run", "TicketUpdate": "ticket_update", "RunUpdate": "run_update"}
    name = kind.get(type(message).__name__, "ticket_request")
    with pytest.raises(MessageTooLarge):
        check_shape(head_of(wire(**{name: message})))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"start_run": peer_pb2.StartRun(pipeline="a" * 201)}, "pipeline"),
        ({"start_run": peer_pb2.StartRun(partition="a/b")}, "partition"),
        ({"start_run": peer_pb2.StartRun(ticket_id="\x1b[2J")}, "ticket_id"),
        ({"start_run": peer_pb2.StartRun(number=2**32 - 1)}, "number"),
        ({"start_run": peer_pb2.StartRun(steps=[run_pb2.Step(kind="a b")])}, "steps.kind"),
        ({"run_update": peer_pb2.RunUpdate(run_id="a\0", state=1)}, "run_id"),
        ({"run_update": peer_pb2.RunUpdate(receipt="\0", state=1)}, "receipt"),
        ({"ticket_update": peer_pb2.TicketUpdate(revocation="é")}, "revocation"),
        ({"landed": peer_pb2.Landed(dataset="x" * 1000)}, "dataset"),
        ({"lookup": lookup_pb2.Lookup(stream="x" * 1000)}, "stream"),
        ({"preflight": peer_pb2.Preflight(pipeline="../..")}, "pipeline"),
        ({"champion_change": model_pb2.ChampionChange(version=model_pb2.ModelVersion(version=2**31))}, "version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_name_or_number_that_is_not_plain_is_refused_and_told_in_few_words(body: dict[str, Any], field: str) -> None:
    head = head_of(wire(**body))
    envelope = parse(head)
    with pytest.raises(ConfigError) as caught:
        check_names(envelope)
    assert caught.value.fields["field"] == field
    _, facts = facts_of(head, envelope)
    assert all(len(str(value)) <= 500 and str(value).isprintable() for value in facts.values())


def test_two_bodies_in_one_envelope_are_refused() -> None:
    two = peer_pb2.Envelope(preflight=peer_pb2.Preflight(pipeline="a")).SerializeToString()
    two += peer_pb2.Envelope(landed=peer_pb2.Landed(dataset="b")).SerializeToString()
    with pytest.raises(ProtocolViolated):
        head_of(bytes([10, len(two)]) + two)


@given(st.binary(max_size=200))
def test_bytes_from_a_peer_are_read_or_refused_and_never_fail_otherwise(raw: bytes) -> None:
    try:
        head = head_of(raw)
        check_shape(head)
        envelope = parse(head)
        check_names(envelope)
    except FedtasksError:
        return
    facts_of(head, envelope)
    assert peer_pb2.ControlRequest.FromString(raw).envelope.WhichOneof("body") == head.kind


def test_text_of_megabytes_costs_no_more_than_what_is_kept_of_it() -> None:
    text = "é" * (8 << 20)
    began = time.process_time()
    assert len(plain_text(text, 64)) <= 64
    assert time.process_time() - began < 0.05
