from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import (
    ConfigDiffers,
    DeadlinePassed,
    FedtasksError,
    LinkLost,
    PeerFailed,
    PeerRestarted,
    ProtocolViolated,
    RowOrderDiffers,
    VersionDiffers,
)
from fedtasks.link import conversation as module
from fedtasks.link import frames
from fedtasks.link.conversation import OVERHEAD, Conversation, StreamBroken
from fedtasks.link.payload import BYTES
from fedtasks.wire.v1 import session_pb2

WINDOW = 1000
WAIT_S = 10.0


class Peer:
    """Plays the other half by hand, over one stream at a time."""

    def __init__(self, half: Conversation) -> None:
        self.half = half
        self.facts = {"epochs": "8", "window": str(WINDOW)}
        self.incarnation = "theirs"
        self.sequence = 0
        self.epoch = 0
        self.connect()

    def connect(self) -> None:
        self.epoch = self.half.begin_stream()
        self.frames: queue.Queue[session_pb2.Frame] = queue.Queue()
        threading.Thread(target=self._collect, args=(self.epoch, self.frames), daemon=True).start()

    def _collect(self, epoch: int, into: queue.Queue[session_pb2.Frame]) -> None:
        for frame in self.half.outgoing(epoch):
            into.put(session_pb2.Frame.FromString(frame))

    def read(self, kind: str) -> session_pb2.Frame:
        """Return the next frame of this kind, passing over others."""
        while True:
            frame = self.frames.get(timeout=WAIT_S)
            if frame.WhichOneof("kind") == kind:
                return frame

    def feed(self, **kind: object) -> None:
        self.half.feed(self.epoch, session_pb2.Frame(**kind).SerializeToString())

    def hello(self, **changes: object) -> None:
        hello: dict[str, object] = {
            "version_min": 1,
            "version_max": 1,
            "incarnation": self.incarnation,
            "received": 0,
            "facts": self.facts,
        }
        self.feed(hello=session_pb2.Hello(**{**hello, **changes}))

    def data(self, name: str, chunk: bytes, last: bool = True, **changes: object) -> None:
        self.sequence += 1
        fields: dict[str, object] = {
            "sequence": self.sequence,
            "name": name,
            "chunk": chunk,
            "last": last,
            "payload_kind": BYTES,
        }
        self.feed(data=session_pb2.Data(**{**fields, **changes}))

    def ack(self, received: int, consumed_bytes: int) -> None:
        self.feed(ack=session_pb2.Ack(received=received, consumed_bytes=consumed_bytes))


@pytest.fixture
def half() -> Iterator[Conversation]:
    half = Conversation("shop", {"epochs": "8"}, window=WINDOW, stall_s=0.05)
    yield half
    half.hang_up()


@pytest.fixture
def peer(half: Conversation) -> Peer:
    return Peer(half)


@pytest.fixture
def met(peer: Peer) -> Peer:
    peer.hello()
    return peer


def send(half: Conversation, name: str, data: bytes) -> None:
    half.send(name, BYTES, [memoryview(data)])


def in_thread(work: Callable[[], None]) -> queue.Queue[BaseException | None]:
    """Run `work` in a thread; the queue gets what it raised, None when it ended well."""
    result: queue.Queue[BaseException | None] = queue.Queue()

    def run() -> None:
        try:
            work()
            result.put(None)
        except FedtasksError as error:
            result.put(error)

    threading.Thread(target=run, daemon=True).start()
    return result


# ------------------------------------------------------------------------------------------------------------ hello
def test_first_frame_is_a_hello_with_facts_and_versions(peer: Peer) -> None:
    hello = peer.frames.get(timeout=WAIT_S).hello

    assert (hello.version_min, hello.version_max, hello.received) == (1, 1, 0)
    assert dict(hello.facts) == peer.facts
    assert hello.incarnation


@pytest.mark.parametrize(("theirs", "fits"), [((1, 1), True), ((1, 9), True), ((2, 3), False), ((0, 0), False)])
def test_hello_of_other_versions_is_refused_with_both_ranges(
    half: Conversation, peer: Peer, theirs: tuple[int, int], fits: bool
) -> None:
    peer.hello(version_min=theirs[0], version_max=theirs[1])

    if fits:
        assert half.wait_met(WAIT_S)
    else:
        with pytest.raises(VersionDiffers) as caught:
            half.wait_met(WAIT_S)
        assert caught.value.fields == {"ours": "1-1", "theirs": f"{theirs[0]}-{theirs[1]}"}


@pytest.mark.parametrize(
    ("change", "leaf", "fields"),
    [
        ({"epochs": "10"}, ConfigDiffers, {"field": "epochs", "ours": "8", "theirs": "10"}),
        ({"more": "1"}, ConfigDiffers, {"field": "more", "ours": "absent", "theirs": "1"}),
        ({"row_order": "ab"}, RowOrderDiffers, {"field": "row_order", "ours": "absent", "theirs": "ab"}),
        ({"window": "9"}, ConfigDiffers, {"field": "window", "ours": "1000", "theirs": "9"}),
    ],
)
def test_hello_with_another_fact_names_the_field_and_still_shows_the_own_hello(
    half: Conversation, peer: Peer, change: dict[str, str], leaf: type[FedtasksError], fields: dict[str, str]
) -> None:
    peer.hello(facts={**peer.facts, **change})

    with pytest.raises(leaf) as caught:
        half.wait_met(WAIT_S)
    assert caught.value.fields == fields
    assert peer.read("hello")


def test_hello_of_another_process_after_a_cut_is_a_restart(half: Conversation, met: Peer) -> None:
    met.connect()
    met.hello(incarnation="another")

    with pytest.raises(PeerRestarted):
        half.receive("x")


def test_hello_that_remembers_more_than_was_sent_is_a_restart(half: Conversation, peer: Peer) -> None:
    peer.hello(received=7)

    with pytest.raises(PeerRestarted):
        half.wait_met(WAIT_S)


def test_nobody_comes_and_the_wait_ends(half: Conversation, peer: Peer) -> None:
    assert not half.wait_met(0.01)


def test_frame_out_of_place_breaks_the_stream_only(half: Conversation, peer: Peer) -> None:
    with pytest.raises(StreamBroken):
        peer.ack(0, 0)
    peer.hello()
    with pytest.raises(StreamBroken):
        peer.hello()
    assert half.error is None


# ---------------------------------------------------------------------------------------------------- order, resume
def test_unacknowledged_chunks_are_sent_again_from_where_the_peer_had_received(half: Conversation, met: Peer) -> None:
    for number in range(3):
        send(half, "n", bytes([number]))
    assert [met.read("data").data.sequence for _ in range(3)] == [1, 2, 3]

    met.connect()
    met.hello(received=2)

    again = met.read("data").data
    assert (again.sequence, again.chunk) == (3, b"\x02")


def test_acknowledged_chunks_are_forgotten(half: Conversation, met: Peer) -> None:
    send(half, "n", b"1")
    met.read("data")
    met.ack(1, 0)
    met.connect()
    met.hello(received=0)

    with pytest.raises(PeerRestarted):
        half.receive("x")


def test_duplicate_chunk_is_passed_over(half: Conversation, met: Peer) -> None:
    met.data("n", b"1")
    met.data("n", b"again", sequence=1)
    met.data("n", b"2", sequence=2)

    assert [half.receive("n")[1] for _ in range(2)] == [b"1", b"2"]


def test_frames_of_an_old_stream_are_passed_over(half: Conversation, met: Peer) -> None:
    old = met.epoch
    met.connect()
    half.feed(old, frames.CLOSE)
    met.hello()
    met.data("n", b"1")

    assert half.receive("n") == (BYTES, b"1")


def test_acknowledgement_is_repeated_on_a_new_stream(half: Conversation, met: Peer) -> None:
    met.data("n", b"abc")
    half.receive("n")
    met.connect()
    met.hello()

    assert met.read("hello").hello.received == 1
    ack = met.read("ack").ack
    assert (ack.received, ack.consumed_bytes) == (1, 3 + OVERHEAD)


# ----------------------------------------------------------------------------------------------------------- window
def test_send_blocks_when_the_window_is_full_until_bytes_are_consumed(half: Conversation, met: Peer) -> None:
    send(half, "a", bytes(WINDOW))
    blocked = in_thread(lambda: send(half, "b", b"1"))
    met.read("data")
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)

    met.ack(1, 0)  # received is not consumed
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)
    met.ack(1, WINDOW + OVERHEAD)

    assert blocked.get(timeout=WAIT_S) is None
    assert met.read("data").data.name == "b"


def test_empty_messages_fill_the_window_too(half: Conversation, met: Peer) -> None:
    n_fit = -(-WINDOW // OVERHEAD)
    for _ in range(n_fit):
        send(half, "a", b"")

    blocked = in_thread(lambda: send(half, "a", b""))
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)
    half.fail(PeerFailed())
    assert isinstance(blocked.get(timeout=WAIT_S), PeerFailed)


def test_chunks_before_the_last_are_consumed_on_arrival_and_the_last_when_taken(half: Conversation, met: Peer) -> None:
    met.data("big", bytes(600), last=False)
    met.data("big", bytes(600), last=False)
    assert met.read("ack").ack.consumed_bytes == 2 * (600 + OVERHEAD)
    met.data("big", bytes(600))

    half.receive("big")

    while met.read("ack").ack.consumed_bytes != 3 * (600 + OVERHEAD):
        pass


def test_second_message_larger_than_the_window_waits_until_the_first_is_taken(half: Conversation, met: Peer) -> None:
    for last in (False, False, True):
        met.data("first", bytes(900), last=last)
    met.data("second", bytes(900), last=False)
    with pytest.raises(ProtocolViolated, match="`third` cannot come"):
        half.receive("third")

    half.receive("first")
    met.data("second", bytes(900))

    assert len(half.receive("second")[1]) == 1800


def test_full_window_of_other_names_is_reported_with_their_names(half: Conversation, met: Peer) -> None:
    met.data("b", bytes(500))
    met.data("a", bytes(500))

    with pytest.raises(ProtocolViolated, match=r"`wanted` cannot come.*`a` \(1\), `b` \(1\)"):
        half.receive("wanted")


def test_full_window_that_another_thread_empties_is_no_failure(half: Conversation, met: Peer) -> None:
    half._stall_s = 60.0
    met.data("a", bytes(WINDOW))
    waiting = in_thread(lambda: half.receive("wanted"))
    half.receive("a")
    met.data("wanted", b"")

    assert waiting.get(timeout=WAIT_S) is None


def test_peer_that_ignores_the_window_is_a_protocol_violation(half: Conversation, met: Peer) -> None:
    met.data("a", bytes(WINDOW))
    met.data("a", b"more")

    assert isinstance(half.error, ProtocolViolated)


def test_message_beyond_the_limit_is_a_protocol_violation(
    half: Conversation, met: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGE", 1000)
    met.data("a", bytes(600), last=False)
    met.data("a", bytes(600), last=False)

    assert isinstance(half.error, ProtocolViolated)


# ---------------------------------------------------------------------------------------------------------- hostile
@pytest.mark.parametrize(
    "frame",
    [
        session_pb2.Frame(data=session_pb2.Data(sequence=2, name="a", last=True)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="", last=True)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a" * 201, last=True)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a", chunk=bytes(frames.CHUNK + 1))),
        session_pb2.Frame(ack=session_pb2.Ack(received=1)),
        session_pb2.Frame(ack=session_pb2.Ack(consumed_bytes=1)),
        session_pb2.Frame(),
    ],
    ids=["gap", "no name", "long name", "large chunk", "ack ahead", "consumed ahead", "empty"],
)
def test_frame_that_makes_no_sense_ends_the_conversation(
    half: Conversation, met: Peer, frame: session_pb2.Frame
) -> None:
    half.feed(met.epoch, frame.SerializeToString())

    assert isinstance(half.error, ProtocolViolated)


def test_other_message_inside_a_message_is_a_protocol_violation(half: Conversation, met: Peer) -> None:
    met.data("a", b"1", last=False)
    met.data("b", b"2")

    assert isinstance(half.error, ProtocolViolated)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_random_frames_never_raise_anything_else(garbage: list[bytes]) -> None:
    half = Conversation("shop", {}, window=WINDOW)
    epoch = half.begin_stream()
    for frame in garbage:
        try:
            half.feed(epoch, frame)
        except StreamBroken:
            break
    half.hang_up()


# ------------------------------------------------------------------------------------------------- receive, failure
def test_receive_within_a_time_gives_up_naming_the_message(half: Conversation, met: Peer) -> None:
    with pytest.raises(DeadlinePassed, match="nothing called `n` came from shop"):
        half.receive("n", 0.01)


def test_failure_reaches_who_waits_and_leaves_what_has_arrived(half: Conversation, met: Peer) -> None:
    met.data("here", b"1")
    waiting = in_thread(lambda: half.receive("n"))
    half.fail(PeerFailed("why"))

    assert str(waiting.get(timeout=WAIT_S)).startswith("PEER_FAILED: why")
    assert half.receive("here")[1] == b"1"
    with pytest.raises(PeerFailed):
        send(half, "n", b"")


def test_hang_up_ends_who_waits(half: Conversation, met: Peer) -> None:
    waiting = in_thread(lambda: half.receive("n"))
    half.hang_up()

    assert isinstance(waiting.get(timeout=WAIT_S), LinkLost)


# ------------------------------------------------------------------------------------------------------- heartbeats
def test_idle_half_sends_heartbeats(half: Conversation, met: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    met.connect()
    met.hello()

    assert met.read("heartbeat")
    assert met.read("heartbeat")


def test_silent_stream_is_given_up_and_a_heard_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    half = Conversation("shop", {"epochs": "8"}, window=WINDOW, clock=lambda: now[0])
    peer = Peer(half)
    now[0] += 1000.0
    assert not half.wait_stream(peer.epoch, 0.0)  # the other half may take its time to come
    peer.hello()
    now[0] += 14.0
    peer.feed(heartbeat=session_pb2.Heartbeat())
    now[0] += 14.0
    assert not half.wait_stream(peer.epoch, 0.0)
    now[0] += 2.0
    assert half.wait_stream(peer.epoch, 0.0)
    half.hang_up()


# ------------------------------------------------------------------------------------------------------------ close
def test_close_waits_until_everything_is_taken_and_the_peer_closes(half: Conversation, met: Peer) -> None:
    send(half, "n", b"1")
    closing = in_thread(lambda: half.close(WAIT_S))
    met.read("data")
    met.ack(1, 0)
    with pytest.raises(queue.Empty):
        closing.get(timeout=0.05)
    met.ack(1, 1 + OVERHEAD)
    met.read("close")
    with pytest.raises(queue.Empty):
        closing.get(timeout=0.05)
    met.feed(close=session_pb2.Close())
    met.read("close")  # says that theirs was heard
    met.feed(close=session_pb2.Close())

    assert closing.get(timeout=WAIT_S) is None


def test_close_ends_when_the_stream_ends_after_both_said_so(half: Conversation, met: Peer) -> None:
    closing = in_thread(lambda: half.close(WAIT_S))
    met.feed(close=session_pb2.Close())
    met.read("close")
    half.end_stream(met.epoch)

    assert closing.get(timeout=WAIT_S) is None
    assert half.is_over


def test_close_says_close_again_on_a_new_stream(half: Conversation, met: Peer) -> None:
    closing = in_thread(lambda: half.close(WAIT_S))
    met.read("close")
    assert half.is_settled
    met.connect()
    met.hello()
    met.read("close")
    met.feed(close=session_pb2.Close())
    met.feed(close=session_pb2.Close())

    assert closing.get(timeout=WAIT_S) is None


def test_close_of_the_peer_ends_a_receive_that_waits(half: Conversation, met: Peer) -> None:
    waiting = in_thread(lambda: half.receive("n"))
    met.feed(close=session_pb2.Close())

    assert "closed the link without sending `n`" in str(waiting.get(timeout=WAIT_S))
    with pytest.raises(ProtocolViolated, match="will not take"):
        send(half, "n", b"")


def test_close_of_the_peer_with_messages_under_way_is_a_protocol_violation(half: Conversation, met: Peer) -> None:
    send(half, "n", b"1")
    met.feed(close=session_pb2.Close())

    with pytest.raises(ProtocolViolated, match="without taking everything"):
        half.close(WAIT_S)


def test_close_with_messages_nobody_took_names_them(half: Conversation, met: Peer) -> None:
    met.data("left", b"1")

    with pytest.raises(ProtocolViolated, match="left"):
        half.close(WAIT_S)


def test_close_that_the_peer_never_answers_ends_at_its_bound(half: Conversation, met: Peer) -> None:
    with pytest.raises(DeadlinePassed, match="shop did not close"):
        half.close(0.05)
