"""Every parser that a peer's bytes reach, as a function of bytes, with good inputs to begin from."""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import yaml

from fedtasks import identity, tickets
from fedtasks.config import Peer, load_party
from fedtasks.errors import FedtasksError, ProtocolViolated
from fedtasks.exchange.files import FileMessage, announced
from fedtasks.exchange.message import ArrayMessage, ProtobufMessage, TableMessage
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.bounds import check_names, check_shape, head_of
from fedtasks.gateway.bounds import parse as read_envelope
from fedtasks.gateway.peer_service import PeerService
from fedtasks.gateway.relay import SessionKey
from fedtasks.gateway.server import Gateway
from fedtasks.kinds import kinds
from fedtasks.link import frames
from fedtasks.link.conversation import VERSION_MAX, VERSION_MIN, Conversation, StreamBroken
from fedtasks.link.link import Payload
from fedtasks.link.payload import decode, encode
from fedtasks.registry import declared
from fedtasks.tickets import asked_by
from fedtasks.wire.v1 import lookup_pb2, model_pb2, peer_pb2, run_pb2, session_pb2, ticket_pb2
from tests.support.gateways import PIPELINE, Member, grant_ticket, make_members, set_address, shared_config
from tests.support.runs import STEPS
from tests.support.tickets import GRANT, GRANTOR, HEADER, HOLDER, signed, unb64

Parse = Callable[[bytes], object]

TICKET_ID = "t-fuzzed"


@dataclass(frozen=True)
class Parser:
    """A parser to be fuzzed.

    Parameters
    ----------
    prepare
        Makes the function of one input.
    seeds
        Makes the inputs to begin from.
    """

    prepare: Callable[[], Parse]
    seeds: Callable[[], Iterator[bytes]]


# ---------------------------------------------------------------------------------------------------------- the link
def _payload() -> Parse:
    def parse(data: bytes) -> None:
        if data:
            decode(data[0], data[1:])

    return parse


def _payload_seeds() -> Iterator[bytes]:
    rows = pa.record_batch({"a": np.arange(3), "b": ["x", "y", None]})
    for each in (b"x", np.zeros((2, 3)), np.array(["a", "bc"]), np.array(["2026-11-29"], "M8[D]"), rows):
        kind, parts = encode(each)
        yield bytes([kind]) + b"".join(parts)


def _frames() -> Parse:
    def parse(data: bytes) -> None:
        conversation = Conversation("peer", {"a": "1"}, window=1 << 16)
        epoch = conversation.begin_stream()
        with suppress(StreamBroken):
            while data:
                length = int.from_bytes(data[:2], "little")
                conversation.feed(epoch, data[2 : 2 + length])
                data = data[2 + length :]
        if conversation.error is not None:
            raise conversation.error

    return parse


def _frame_seeds() -> Iterator[bytes]:
    hello = frames.hello(VERSION_MIN, VERSION_MAX, "x", 0, {"a": "1", "window": str(1 << 16)})
    body = [memoryview(b"body")]
    several = (
        hello,
        frames.data(1, "n", session_pb2.PAYLOAD_KIND_BYTES, True, body),
        frames.data(2, "n", session_pb2.PAYLOAD_KIND_BYTES, True, body),
        frames.ack(0, 0),
        frames.HEARTBEAT,
        frames.tunnel_offer(b"certificate"),
        frames.CLOSE,
    )
    for count in range(1, len(several) + 1):
        yield b"".join(struct.pack("<H", len(each)) + each for each in several[:count])


def _metadata() -> Parse:
    names = ("fedtasks-run", "fedtasks-task", "fedtasks-shard", "fedtasks-attempt")

    def parse(data: bytes) -> None:
        values = data.decode("latin-1").split("\n")
        SessionKey.of(list(zip(names, values, strict=False)))

    return parse


def _metadata_seeds() -> Iterator[bytes]:
    yield b"train.2026-11-21.bank.1\ntrain\n0\n1"


def _announcement() -> Parse:
    def parse(data: bytes) -> None:
        with suppress(ValueError, RecursionError):
            value = json.loads(data)
            announced(value, 4)

    return parse


def _announcement_seeds() -> Iterator[bytes]:
    yield json.dumps([[0, 3, "0" * 64], [2, 7, "f" * 64]]).encode()


# ------------------------------------------------------------------------------------------------------- signed texts
def _ticket() -> Parse:
    grantor, holder = GRANTOR.public_key(), HOLDER.public_key()
    good = tickets.issue(GRANT, GRANTOR)

    def parse(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for read in (
            lambda: tickets.read(text, grantor),
            lambda: tickets.peek(text),
            lambda: tickets.verify_acceptance(text, good, holder),
            lambda: tickets.verify_revocation(text, "t-1", grantor),
            lambda: tickets.read_receipt(text, grantor),
        ):
            with suppress(FedtasksError):
                read()

    return parse


def _ticket_seeds() -> Iterator[bytes]:
    token = tickets.issue(GRANT, GRANTOR)
    for text in (
        token,
        tickets.accept(token, HOLDER, "shop", 1500),
        tickets.revoke("t-1", GRANTOR, 1500, "why"),
        tickets.sign_receipt({"run_id": "x", "tasks": {}}, GRANTOR),
    ):
        yield text.encode()


def _claims() -> Parse:
    key = GRANTOR.public_key()

    def parse(data: bytes) -> None:
        tickets.read(signed(HEADER, data), key)

    return parse


def _claims_seeds() -> Iterator[bytes]:
    yield unb64(tickets.issue(GRANT, GRANTOR).split(".")[1])


# -------------------------------------------------------------------------------------------------------------- files
def _file_parser(read: Callable[[Path], object]) -> Callable[[], Parse]:
    def prepare() -> Parse:
        file = Path(tempfile.mkdtemp(prefix="fedtasks-fuzz-")) / "file.yaml"

        def parse(data: bytes) -> None:
            file.write_bytes(data)
            read(file)

        return parse

    return prepare


def _authority() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        identity.create_identity(Path(folder) / "keys", "shop")
        return (Path(folder) / "keys" / "authority.pem").read_bytes()


def _card_seeds() -> Iterator[bytes]:
    card = {"name": "shop", "address": "shop.example:1", "ticket_key": tickets.public_text(GRANTOR.public_key())}
    yield yaml.safe_dump({**card, "authority": _authority().decode()}).encode()
    yield b"a: &a [1, 2]\nb: *a\n"


def _party_seeds() -> Iterator[bytes]:
    yield b"""name: bank
gateway: {workers: "unix:workers", certificate: a, private_key: b, authority: c, ticket_key: d, worker_secret_file: e}
airflow: {url: "https://airflow.example", user: admin, password_file: f}
storage: storage
datasets: [{name: loans, uri: data.parquet, id: customer, features: {a: numeric}}]
"""


def _certificate() -> Parse:
    folder = Path(tempfile.mkdtemp(prefix="fedtasks-fuzz-"))
    identity.create_identity(folder / "keys", "shop")
    key = tickets.public_text(GRANTOR.public_key())
    peer = Peer(name="shop", authority=folder / "keys" / "authority.pem", ticket_key=key)
    return lambda data: identity.leaf_belongs_to(data, peer)


def _certificate_seeds() -> Iterator[bytes]:
    yield _authority()
    yield b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


# ----------------------------------------------------------------------------------------------------------- settings
def _settings() -> Parse:
    names = sorted(kinds())

    def parse(data: bytes) -> None:
        with suppress(ValueError, RecursionError):
            value = json.loads(data[1:])
            list(asked_by("step", names[data[0] % len(names)], value))

    return parse


def _settings_seeds() -> Iterator[bytes]:
    for number, name in enumerate(sorted(kinds())):
        plain = dict.fromkeys(kinds()[name].settings.__dataclass_fields__, 1)
        yield bytes([number]) + json.dumps(plain).encode()
        yield bytes([number]) + b"{}"


# --------------------------------------------------------------------------------------------------------- a half
class _Given:
    """A link on which exactly this payload arrives."""

    def __init__(self, kind: int, body: bytes) -> None:
        self._kind, self._body = kind, body

    def receive(self, name: str, *, kind: int | None = None, max_bytes: int = 1 << 20, **_: object) -> Payload:
        if kind not in (None, self._kind) or len(self._body) > max_bytes:
            raise ProtocolViolated(f"`{name}` is not what was asked for")
        return decode(cast("session_pb2.PayloadKind", self._kind), self._body)


def _messages() -> list[Any]:
    return [each for each in declared("MESSAGES").values() if not isinstance(each, FileMessage)]


def _shape(message: Any) -> list[int]:
    return [2 if size is None else size for size in getattr(message, "shape", ()) if size is not ...]


def _message() -> Parse:
    known = _messages()
    schema = pa.schema([("tag", pa.binary(16)), ("row", pa.int64())])

    def parse(data: bytes) -> None:
        if len(data) < 2:
            return
        message = known[data[0] % len(known)]
        expected = [schema] if isinstance(message, TableMessage) else _shape(message)
        message.receive(_Given(data[1] % 6, data[2:]), *expected)

    return parse


def _message_seeds() -> Iterator[bytes]:
    for number, message in enumerate(_messages()):
        kind, body = session_pb2.PAYLOAD_KIND_BYTES, b'{"files": [], "wanted": true, "n": 1, "tags": []}'
        if isinstance(message, ArrayMessage):
            kind, parts = encode(np.zeros(_shape(message), message.dtype))
            body = b"".join(parts)
        elif isinstance(message, ProtobufMessage):
            kind, body = session_pb2.PAYLOAD_KIND_PROTOBUF, message.of().SerializeToString()
        yield bytes([number, kind]) + body


# ----------------------------------------------------------------------------------------------------- a gateway
def _control() -> Parse:
    """All that a peer's gateway may ask, answered by the parts of a real one."""
    bank, shop, listen = make_members(Path(tempfile.mkdtemp(prefix="fedtasks-fuzz-")))
    set_address(shop, listen)
    grant_ticket(bank, shop, ticket_id=TICKET_ID)
    loop = asyncio.new_event_loop()
    service = loop.run_until_complete(_service(bank))

    def parse(data: bytes) -> None:
        head = head_of(data)
        check_shape(head)
        envelope = read_envelope(head)
        check_names(envelope)
        loop.run_until_complete(service._dispatch("shop", envelope))

    return parse


async def _service(member: Member) -> PeerService:
    airflow = await AirflowApi(member.party.airflow).__aenter__()
    return PeerService(Gateway(member.party)._assemble(member.store(), airflow))


def _control_seeds() -> Iterator[bytes]:
    version = model_pb2.ModelVersion(model="credit", version=1, run_id="r", partition="2026-11-21")
    asked = ticket_pb2.TicketRequest(request_id="r", pipelines=[PIPELINE], dataset="loans", role="leader", days=1)
    start = peer_pb2.StartRun(
        ticket_id=TICKET_ID,
        pipeline=PIPELINE,
        dag_id=PIPELINE,
        steps=STEPS,
        partition="2026-11-21",
        config_json=shared_config(),
        number=1,
    )
    half = run_pb2.Half(task="train", attempt=1, state=run_pb2.STATE_WAITING, outcome_json="{}")
    news = peer_pb2.RunUpdate(run_id=f"{PIPELINE}.2026-11-21.shop.1", version=1, state=run_pb2.STATE_RUNNING)
    news.tasks.append(half)
    offer = peer_pb2.TicketUpdate(ticket_id="t", grant=tickets.issue(GRANT, GRANTOR))
    for envelope in (
        peer_pb2.Envelope(id=1, start_run=start),
        peer_pb2.Envelope(id=2, run_update=news),
        peer_pb2.Envelope(id=3, ticket_update=offer),
        peer_pb2.Envelope(id=4, ticket_request=asked),
        peer_pb2.Envelope(id=5, landed=peer_pb2.Landed(dataset="customers", partition="2026-11-21")),
        peer_pb2.Envelope(id=6, champion_change=model_pb2.ChampionChange(version=version, reason="better")),
        peer_pb2.Envelope(id=7, preflight=peer_pb2.Preflight(pipeline=PIPELINE)),
        peer_pb2.Envelope(id=8, lookup=lookup_pb2.Lookup(ticket_id="t", dataset="loans", key_id="k", sequence=1)),
    ):
        yield peer_pb2.ControlRequest(envelope=envelope).SerializeToString()


PARSERS = {
    "payload": Parser(_payload, _payload_seeds),
    "frames": Parser(_frames, _frame_seeds),
    "metadata": Parser(_metadata, _metadata_seeds),
    "announcement": Parser(_announcement, _announcement_seeds),
    "ticket": Parser(_ticket, _ticket_seeds),
    "claims": Parser(_claims, _claims_seeds),
    "card": Parser(_file_parser(identity.read_card), _card_seeds),
    "party": Parser(_file_parser(load_party), _party_seeds),
    "certificate": Parser(_certificate, _certificate_seeds),
    "settings": Parser(_settings, _settings_seeds),
    "message": Parser(_message, _message_seeds),
    "control": Parser(_control, _control_seeds),
}
