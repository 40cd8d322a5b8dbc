"""A peer with a valid certificate and a valid ticket sends control messages of every sort of wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fedtasks import tickets
from fedtasks.wire.v1 import failure_pb2, lookup_pb2, model_pb2, peer_pb2, run_pb2, ticket_pb2
from tests.support.gateways import PIPELINE, Member, grant_ticket, shared_config
from tests.support.hostile import TALLY, HostilePeer, Outcome, audited
from tests.support.tickets import b64, signed

HUGE = 10**4299
DEEP = "[" * 100_000
ESCAPES = "\x1b]0;owned\x07\x1b[2J"
BIDI = "a\u202eb"
BAD_NAMES = {
    "empty": "",
    "8-mb": "x" * (8 << 20),
    "64-kb": "x" * (64 << 10),
    "traversal": "../../etc/passwd",
    "escapes": ESCAPES,
    "bidi": BIDI,
    "unicode-digits": "２０２６-１１-２１",
    "newline": "a\nb",
    "nul": "a\0b",
    "markup": "<script>alert(1)</script>",
}


def start(**changes: Any) -> peer_pb2.Envelope:
    values: dict[str, Any] = {
        "ticket_id": "t",
        "pipeline": PIPELINE,
        "dag_id": PIPELINE,
        "steps": [
            run_pb2.Step(name="psi", digest="a", kind="psi"),
            run_pb2.Step(name="train", digest="b", kind="split_nn"),
        ],
        "partition": "2026-11-21",
        "config_json": shared_config(),
        "number": 1,
        **changes,
    }
    return peer_pb2.Envelope(start_run=peer_pb2.StartRun(**values))


def config(**changes: Any) -> str:
    return json.dumps({**json.loads(shared_config()), **changes})


def starts(ticket_id: str) -> Iterator[tuple[str, peer_pb2.Envelope]]:
    for name, text in BAD_NAMES.items():
        for field in ("ticket_id", "pipeline", "dag_id", "partition"):
            yield f"start {field} {name}", start(**{"ticket_id": ticket_id, field: text})
    configs = {
        "empty": "",
        "not-json": "{",
        "deep": DEEP,
        "deep-object": '{"a":' * 50_000,
        "list": "[]",
        "number": "1",
        "nan": '{"leader": NaN}',
        "huge-int": f'{{"steps": {{"train": {{"epochs": {HUGE}}}}}}}',
        "huge-float": '{"steps": {"train": {"epochs": 1e999}}}',
        "surrogate": config(leader="\ud800"),
        "escapes": config(leader=ESCAPES),
        "leader-list": config(leader=[]),
        "datasets-list": config(datasets=[]),
        "datasets-number": config(datasets={"bank": 1}),
        "other-dataset": config(datasets={"bank": "people", "shop": "customers"}),
        "steps-list": config(steps=[]),
        "step-list": config(steps={"train": []}),
        "step-null": config(steps={"train": None}),
        "unknown-setting": config(steps={"train": {"surprise": 1}}),
        "wrong-type": config(steps={"train": {"epochs": "many"}}),
        "truth-for-number": config(steps={"train": {"epochs": True}}),
        "epochs-zero": config(steps={"train": {"epochs": 0}}),
        "epochs-2-63": config(steps={"train": {"epochs": 2**63}}),
        "twice": '{"leader": "bank", "leader": "shop"}',
        "many-keys": json.dumps({f"k{number}": 1 for number in range(100_000)}),
        "4-mb": config(leader="x" * (4 << 20)),
        "bom": "\ufeff{}",
    }
    for name, text in configs.items():
        yield f"start config {name}", start(ticket_id=ticket_id, config_json=text)
    step = run_pb2.Step(name="train", digest="b", kind="split_nn")
    steps = {
        "none": [],
        "twice": [step, step],
        "10000": [run_pb2.Step(name=f"s{number}", digest="x", kind="psi") for number in range(10_000)],
        "traversal": [run_pb2.Step(name="../x", digest="x", kind="psi")],
        "escapes": [run_pb2.Step(name=ESCAPES, digest=ESCAPES, kind=ESCAPES)],
        "long": [run_pb2.Step(name="x" * 100_000)],
    }
    for name, found in steps.items():
        yield f"start steps {name}", start(ticket_id=ticket_id, steps=found)
    yield "start number 2^32-1", start(ticket_id=ticket_id, number=2**32 - 1)
    yield "start reason 1-mb", start(ticket_id=ticket_id, reason="x" * (1 << 20))
    yield "start of another ticket", start(ticket_id="t-of-nobody")


def updates(run_id: str) -> Iterator[tuple[str, peer_pb2.Envelope]]:
    def update(**values: Any) -> peer_pb2.Envelope:
        return peer_pb2.Envelope(run_update=peer_pb2.RunUpdate(**{"run_id": run_id, "version": 9, **values}))

    for name, text in BAD_NAMES.items():
        yield f"update run {name}", update(run_id=text)
        yield f"update task {name}", update(tasks=[run_pb2.Half(task=text, attempt=1, state=run_pb2.STATE_WAITING)])
    yield "update of no run", update(run_id="train_split_nn.2026-11-21.7")
    yield (
        "update 1500 tasks",
        update(tasks=[run_pb2.Half(task=f"train[{number}]", attempt=1, state=2) for number in range(1500)]),
    )
    yield "update state 99", update(state=99)
    yield "update half state 99", update(tasks=[run_pb2.Half(task="train", attempt=1, state=99)])
    yield "update attempt 2^32-1", update(tasks=[run_pb2.Half(task="train", attempt=2**32 - 1, state=1)])
    yield "update version 2^64-1", update(version=2**64 - 1, receipt="x")
    for name, text in {"deep": DEEP, "list": "[]", "nan": '{"a": NaN}', "surrogate": '{"a": "\\ud800"}'}.items():
        half = run_pb2.Half(task="train", attempt=1, state=run_pb2.STATE_SUCCEEDED, outcome_json=text)
        yield f"update outcome {name}", update(tasks=[half])
        half = run_pb2.Half(task="train", attempt=1, state=run_pb2.STATE_RUNNING, progress_json=text)
        yield f"update progress {name}", update(tasks=[half])
    yield "update receipt garbage", update(receipt="a.b.c")
    yield "update receipt deep", update(receipt=signed({"alg": "EdDSA", "typ": "fedtasks-receipt"}, DEEP.encode()))
    failure = failure_pb2.Failure(code=ESCAPES, text=ESCAPES * 1000, party=ESCAPES, task=ESCAPES, at_ms=-(2**63))
    yield "update failure escapes", update(run_id="no", failure=failure)


def offers(member: Member) -> Iterator[tuple[str, peer_pb2.Envelope]]:
    key = tickets.load_ticket_key(member.folder / "keys" / "ticket.key")

    def offer(name: str, **changes: Any) -> peer_pb2.Envelope:
        claims: dict[str, Any] = {
            "jti": name,
            "iss": "shop",
            "sub": "bank",
            "datasets": [{"name": "customers", "schema_digest": "0" * 64, "columns": ["a"]}],
            "pipelines": [PIPELINE],
            "roles": ["leader"],
            "nbf": 1,
            "exp": 2_000_000_000,
            "approval": "automatic",
            "limits": {"runs": 1},
            "floor": {},
            "outputs": {},
            **changes,
        }
        text = signed({"alg": "EdDSA", "typ": "fedtasks-ticket"}, json.dumps(claims).encode(), key)
        return peer_pb2.Envelope(ticket_update=peer_pb2.TicketUpdate(ticket_id=name, grant=text))

    columns = "columns"
    scope = {"name": "customers", "schema_digest": "0" * 64, columns: ["a"]}
    yield "offer exp 10^4299", offer("o-1", exp=HUGE)
    yield "offer exp 10^13", offer("o-2", exp=10**13)
    yield "offer exp float", offer("o-3", exp=1e300)
    yield "offer exp negative", offer("o-4", exp=-1)
    yield "offer exp text", offer("o-5", exp="never")
    yield "offer nbf after exp", offer("o-6", nbf=3_000_000_000)
    yield "offer column surrogate", offer("o-7", datasets=[{**scope, columns: ["\ud800"]}])
    yield "offer column escapes", offer("o-8", datasets=[{**scope, columns: [ESCAPES]}])
    yield "offer column bidi", offer("o-9", datasets=[{**scope, columns: [BIDI]}])
    yield "offer 20000 columns", offer("o-10", datasets=[{**scope, columns: [f"c{n}" for n in range(20_000)]}])
    yield "offer long column", offer("o-11", datasets=[{**scope, columns: ["c" * 129]}])
    yield "offer column twice", offer("o-12", datasets=[{**scope, columns: ["a", "a"]}])
    yield "offer no datasets", offer("o-13", datasets=[])
    yield "offer 100000 pipelines", offer("o-14", pipelines=[f"p{n}" for n in range(100_000)])
    yield "offer runs huge", offer("o-15", limits={"runs": HUGE})
    yield "offer runs negative", offer("o-16", limits={"runs": -1})
    yield "offer unknown clause", offer("o-17", limits={"surprise": 1})
    yield "offer unknown claim", offer("o-18", surprise=1)
    yield "offer for others", offer("o-19", sub="mint")
    yield "offer id escapes", offer(ESCAPES)
    yield "offer id long", offer("o" * 100)
    for name, payload in {"deep": DEEP, "list": "[]", "number": "1", "empty": "", "nan": '{"exp": NaN}'}.items():
        text = signed({"alg": "EdDSA", "typ": "fedtasks-ticket"}, payload.encode(), key)
        yield f"offer payload {name}", peer_pb2.Envelope(ticket_update=peer_pb2.TicketUpdate(ticket_id="o", grant=text))
    for name, header in {
        "none": {"alg": "none", "typ": "fedtasks-ticket"},
        "hs256": {"alg": "HS256", "typ": "fedtasks-ticket"},
        "crit": {"alg": "EdDSA", "typ": "fedtasks-ticket", "crit": ["x"]},
        "jwk": {"alg": "EdDSA", "typ": "fedtasks-ticket", "jwk": {}},
        "typ": {"alg": "EdDSA", "typ": "fedtasks-receipt"},
    }.items():
        text = signed(header, b"{}", key)
        yield f"offer header {name}", peer_pb2.Envelope(ticket_update=peer_pb2.TicketUpdate(ticket_id="o", grant=text))
    for name, text in {"garbage": "garbage", "dots": "...", "b64": f"{b64(b'{}')}.{b64(b'{}')}.x", "empty": ""}.items():
        yield f"offer text {name}", peer_pb2.Envelope(ticket_update=peer_pb2.TicketUpdate(ticket_id="o", grant=text))


def others() -> Iterator[tuple[str, peer_pb2.Envelope]]:
    for name, text in BAD_NAMES.items():
        yield f"landed dataset {name}", peer_pb2.Envelope(landed=peer_pb2.Landed(dataset=text, partition="2026-11-21"))
        yield f"landed partition {name}", peer_pb2.Envelope(landed=peer_pb2.Landed(dataset="loans", partition=text))
        version = model_pb2.ModelVersion(model=text, version=1)
        yield f"champion model {name}", peer_pb2.Envelope(champion_change=model_pb2.ChampionChange(version=version))
        asked = ticket_pb2.TicketRequest(request_id=text, pipelines=[PIPELINE], dataset="loans", role="leader", days=1)
        yield f"request id {name}", peer_pb2.Envelope(ticket_request=asked)
        asked = ticket_pb2.TicketRequest(request_id="r", pipelines=[text], dataset="loans", role="leader", days=1)
        yield f"request pipeline {name}", peer_pb2.Envelope(ticket_request=asked)
        lookup = lookup_pb2.Lookup(ticket_id=text, dataset=text or "x", key_id=text, stream=text, sequence=1)
        yield f"lookup {name}", peer_pb2.Envelope(lookup=lookup)
    yield (
        "request days 2^32-1",
        peer_pb2.Envelope(
            ticket_request=ticket_pb2.TicketRequest(
                request_id="r", pipelines=["p"], dataset="d", role="leader", days=2**32 - 1
            )
        ),
    )
    yield (
        "champion 2^32-1",
        peer_pb2.Envelope(
            champion_change=model_pb2.ChampionChange(version=model_pb2.ModelVersion(model="m", version=2**32 - 1))
        ),
    )
    yield "lookup odd bytes", peer_pb2.Envelope(lookup=lookup_pb2.Lookup(ticket_id="t", dataset="d", tags=b"x" * 17))
    yield "lookup 4 mb", peer_pb2.Envelope(lookup=lookup_pb2.Lookup(ticket_id="t", dataset="d", tags=b"x" * (4 << 20)))
    yield "greeting as request", peer_pb2.Envelope(greeting=peer_pb2.Greeting(party="shop"))
    yield "answer as request", peer_pb2.Envelope(run_started=peer_pb2.RunStarted(run_id="x"))
    yield "failure as request", peer_pb2.Envelope(failure=failure_pb2.Failure(code="X"))
    yield "nothing", peer_pb2.Envelope()


@pytest.fixture(scope="module")
def ticket_id(bank: tuple[Member, Member, str]) -> str:
    victim, attacker, _ = bank
    return grant_ticket(victim, attacker)


def attack(hostile: HostilePeer, victim: Member, inputs: Iterator[tuple[str, peer_pb2.Envelope | bytes]]) -> None:
    """Send every input; the gateway refuses each by a code of the registry, accounts for it, and goes on answering."""
    wrong: list[str] = []
    with audited(victim) as seen:
        for name, envelope in inputs:
            began = time.monotonic()
            outcome, code = hostile.ask(envelope)
            TALLY.add(outcome)
            # gRPC itself ends a stream beyond its own bound, and nothing of that reaches the gateway.
            seen[outcome.value] += not code.startswith("RESOURCE_EXHAUSTED")
            if outcome is not Outcome.REFUSED:
                wrong.append(f"{name}: {outcome.value} {code}, {time.monotonic() - began:.1f} s")
    assert not wrong
    assert hostile.ask(peer_pb2.Envelope(preflight=peer_pb2.Preflight()))[0] is Outcome.TAKEN


def test_run_that_is_asked_for_with_garbage_is_refused(
    hostile: HostilePeer, bank: tuple[Member, Member, str], ticket_id: str
) -> None:
    attack(hostile, bank[0], starts(ticket_id))
    assert bank[0].airflow.triggered == []


def test_news_of_a_run_that_is_garbage_is_refused(
    hostile: HostilePeer, bank: tuple[Member, Member, str], ticket_id: str
) -> None:
    victim = bank[0]
    with victim.store() as store:
        run_id = hostile_run(hostile, ticket_id, victim)
        before = store.halves.list(run_id)
    attack(hostile, victim, updates(run_id))
    with victim.store() as store:
        assert store.halves.list(run_id) == before


def hostile_run(hostile: HostilePeer, ticket_id: str, victim: Member) -> str:
    """Open an honest run, which the news will be about."""
    assert hostile.ask(start(ticket_id=ticket_id))[0] is Outcome.TAKEN
    return victim.airflow.triggered[-1]


def test_ticket_offer_that_is_garbage_is_refused(hostile: HostilePeer, bank: tuple[Member, Member, str]) -> None:
    victim, attacker, _ = bank
    attack(hostile, victim, offers(attacker))
    with victim.store() as store:
        assert store.tickets.list(peer="shop", granted=False) == []


def test_other_messages_that_are_garbage_are_refused(hostile: HostilePeer, bank: tuple[Member, Member, str]) -> None:
    attack(hostile, bank[0], others())


def test_bytes_that_are_no_message_end_their_own_conversation_only(
    hostile: HostilePeer, bank: tuple[Member, Member, str]
) -> None:
    garbage = [bytes([number]) * length for number in (0, 1, 10, 127, 255) for length in (1, 3, 1000)]
    attack(hostile, bank[0], ((f"bytes {piece[:4]!r}", piece) for piece in garbage))


def test_session_with_garbage_for_metadata_is_refused(hostile: HostilePeer, bank: tuple[Member, Member, str]) -> None:
    good = {"fedtasks-run": "x.2026-11-21.1", "fedtasks-task": "train", "fedtasks-shard": "0", "fedtasks-attempt": "1"}
    wrong: list[str] = []
    with audited(bank[0]) as seen:
        for field in good:
            for value in ("", "-1", "9" * 5000, "1e3", "x" * 7000, "../..", "None"):
                outcome, code = hostile.open_session({**good, field: value})
                TALLY.add(outcome)
                seen[outcome.value] += 1
                if outcome is not Outcome.REFUSED:
                    wrong.append(f"{field} {value[:20]!r}: {outcome.value} {code}")
    assert not wrong
