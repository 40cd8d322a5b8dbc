"""Every parser that a peer's bytes reach, as a function of bytes, with good inputs to begin from."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from fedtasks import identity, tickets
from fedtasks.config import Peer, load_party
from fedtasks.errors import FedtasksError
from fedtasks.exchange.files import announced
from fedtasks.gateway.relay import SessionKey
from fedtasks.kinds import kinds
from fedtasks.link import frames
from fedtasks.link.conversation import VERSION_MAX, VERSION_MIN, Conversation, StreamBroken
from fedtasks.link.payload import decode, encode
from fedtasks.tickets import asked_by
from fedtasks.wire.v1 import session_pb2
from tests.support.tickets import GRANT, GRANTOR, HEADER, HOLDER, signed, unb64

Parse = Callable[[bytes], object]


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
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(rows)
    yield bytes([session_pb2.PAYLOAD_KIND_RECORD_BATCH]) + bytes(sink.getvalue())


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
}
