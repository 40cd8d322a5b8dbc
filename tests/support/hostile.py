"""A peer with valid keys and tickets that sends whatever it likes, and a tally of what became of it."""

from __future__ import annotations

import enum
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from fedtasks.clock import now_ms
from fedtasks.errors import leaves
from fedtasks.gateway.control_stream import PROTOCOL_MIN
from fedtasks.link.status import CODE
from fedtasks.wire.v1 import peer_pb2
from tests.support.gateways import Member

ANSWER_S = 20.0
"""How long the other side may take to answer before it counts as hung."""
SUMMARY_S = 75.0
"""How long after a flood the row may come that sums its refusals up."""
NOT_OF_THE_REGISTRY = {"", "PEER_FAILED", "GATEWAY_FAILED", "INTERNAL", "PROCESS_FAILED"}
"""Codes by which a gateway says no more than that something went wrong."""


class Outcome(enum.Enum):
    """What became of a hostile input."""

    REFUSED = "refused"
    TAKEN = "taken"
    CRASHED = "crashed"
    HUNG = "hung"


class Tally:
    """What became of all hostile inputs of a session."""

    def __init__(self) -> None:
        self._outcomes: Counter[Outcome] = Counter()
        self.unaudited = 0
        self.executions = 0

    def add(self, outcome: Outcome) -> Outcome:
        """Count one input; returns its outcome."""
        self._outcomes[outcome] += 1
        return outcome

    @property
    def inputs(self) -> int:
        """How many inputs there were."""
        return self._outcomes.total()

    def report(self) -> str:
        """Return the one JSON object that says it all."""
        counts = {each.value: self._outcomes[each] for each in Outcome}
        facts = {"inputs": self.inputs, **counts, "unaudited": self.unaudited, "executions": self.executions}
        return json.dumps(facts)


TALLY = Tally()


class HostilePeer:
    """Speaks to a gateway's peer port with the certificate of `member`, without a gateway of its own.

    Parameters
    ----------
    member
        Whose keys it has.
    victim, address
        The party that listens, and where.
    """

    def __init__(self, member: Member, victim: Member, address: str) -> None:
        keys = member.folder / "keys"
        credentials = grpc.ssl_channel_credentials(
            root_certificates=(victim.folder / "keys" / "authority.pem").read_bytes(),
            private_key=(keys / "gateway.key").read_bytes(),
            certificate_chain=(keys / "gateway.pem").read_bytes(),
        )
        options = (
            ("grpc.ssl_target_name_override", f"{victim.name}.fedtasks"),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        )
        self._member = member
        self._channel = grpc.secure_channel(address, credentials, options=options)
        self._outgoing: queue.Queue[bytes | None] = queue.Queue()
        self._answers: dict[int, peer_pb2.Envelope] = {}
        self._changed = threading.Condition()
        self._ended: grpc.RpcError | None = None
        self._live = False
        self._ids = 0

    def close(self) -> None:
        """Hang up."""
        self._outgoing.put(None)
        self._channel.close()

    # ------------------------------------------------------------------------------------------------------ control
    def ask(self, envelope: peer_pb2.Envelope | bytes) -> tuple[Outcome, str]:
        """Send one control message; returns what became of it, and the code of the answer."""
        self._converse()
        self._ids += 1
        if isinstance(envelope, bytes):
            self._outgoing.put(envelope)
        else:
            envelope.id = self._ids
            self._outgoing.put(peer_pb2.ControlRequest(envelope=envelope).SerializeToString())
        with self._changed:
            if not self._changed.wait_for(lambda: self._ids in self._answers or not self._live, ANSWER_S):
                return Outcome.HUNG, ""
            answer = self._answers.pop(self._ids, None)
        if answer is None:
            return outcome_of_status(self._ended)
        if answer.WhichOneof("body") != "failure":
            return Outcome.TAKEN, ""
        return _judged(answer.failure.code), answer.failure.code

    def _converse(self) -> None:
        if self._live:
            return
        self._outgoing = queue.Queue()
        method = self._channel.stream_stream(
            "/fedtasks.v1.PeerGateway/Control",
            request_serializer=None,
            response_deserializer=peer_pb2.ControlResponse.FromString,
        )
        call = method(iter(self._outgoing.get, None))
        greeting = peer_pb2.Greeting(
            party=self._member.name, protocol_min=PROTOCOL_MIN, protocol_max=PROTOCOL_MIN, clock_ms=now_ms()
        )
        self._outgoing.put(peer_pb2.ControlRequest(envelope=peer_pb2.Envelope(greeting=greeting)).SerializeToString())
        next(call)  # its greeting
        self._live, self._ended = True, None
        threading.Thread(target=self._listen, args=(call,), daemon=True).start()

    def _listen(self, call: Any) -> None:
        ended: grpc.RpcError | None = None
        try:
            for response in call:
                envelope = response.envelope
                with self._changed:
                    if envelope.reply_to:
                        self._answers[envelope.reply_to] = envelope
                    self._changed.notify_all()
                if not envelope.reply_to and envelope.id:  # what the other side asks is well received
                    done = peer_pb2.Envelope(reply_to=envelope.id, done=peer_pb2.Done())
                    self._outgoing.put(peer_pb2.ControlRequest(envelope=done).SerializeToString())
        except grpc.RpcError as error:
            ended = error
        with self._changed:
            self._live, self._ended = False, ended
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------------------------ sessions
    def open_session(self, metadata: Mapping[str, str | bytes], *frames: bytes) -> tuple[Outcome, str]:
        """Open the stream of a session; returns what became of it."""
        method = self._channel.stream_stream(
            "/fedtasks.v1.PeerGateway/Session", request_serializer=None, response_deserializer=None
        )
        call = method(iter(frames), metadata=tuple(metadata.items()), timeout=ANSWER_S)
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            return outcome_of_status(error)
        return Outcome.TAKEN, ""


def outcome_of_status(error: grpc.RpcError | None) -> tuple[Outcome, str]:
    """Return what the status stands for with which a call ended, and its code."""
    if error is None:
        return Outcome.REFUSED, "ended"
    code = str(dict(error.trailing_metadata() or ()).get(CODE, ""))
    if code:
        return _judged(code), code
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Outcome.HUNG, ""
    said = error.details() or ""
    crashed = error.code() is grpc.StatusCode.UNKNOWN or "internal error" in said
    return (Outcome.CRASHED if crashed else Outcome.REFUSED), f"{error.code().name}: {said}"


def _judged(code: str) -> Outcome:
    known = {leaf.code for leaf in leaves()} - NOT_OF_THE_REGISTRY
    return Outcome.REFUSED if code in known else Outcome.CRASHED


@contextmanager
def audited(victim: Member) -> Iterator[Counter[str]]:
    """Compare the refusals that are counted within with those that the victim's audit accounts for, then or soon after.

    Yields
    ------
    Counter
        Outcome → how many inputs; to be counted by the caller.
    """
    before = refusals(victim)
    seen: Counter[str] = Counter()
    yield seen
    until = time.monotonic() + SUMMARY_S
    while (missing := seen[Outcome.REFUSED.value] - (refusals(victim) - before)) > 0 and time.monotonic() < until:
        time.sleep(0.5)
    TALLY.unaudited += max(0, missing)
    assert missing <= 0, f"{missing} refusals are not in the audit"


def refusals(victim: Member) -> int:
    """Return how many refusals the audit of a party accounts for; one row may stand for many."""
    with victim.store() as store:
        rows = [row for row in store.audit.list(limit=None) if row.decision == "refused"]
    return sum(int(row.detail.get("count", 1)) for row in rows)
