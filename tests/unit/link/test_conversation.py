from __future__ import annotations

import queue
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.errors import (
    ConfigDiffers,
    DeadlinePassed,
    FedtasksError,
    LinkLost,
    PeerFailed,
    PeerRestarted,
    PeerStalled,
    ProtocolViolated,
    RowOrderDiffers,
    VersionDiffers,
)
from fedtasks.link import conversation as module
from fedtasks.link import frames, inbox
from fedtasks.link.conversation import VERSION_MAX, VERSION_MIN, Conversation, StreamBroken
from fedtasks.link.frames import MAX_NAME, OVERHEAD
from fedtasks.link.inbox import Wish
from fedtasks.link.link import Default
from fedtasks.link.mark import Mark
from fedtasks.link.payload import ARRAY, BYTES
from fedtasks.wire.v1 import session_pb2

WINDOW = 16_000
CHUNK = 9_600
WAIT_S = 10.0


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CHUNK", CHUNK)


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
            "version_min": VERSION_MIN,
            "version_max": VERSION_MAX,
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
    half = Conversation("shop", {"epochs": "8"}, window=WINDOW, crowded_s=0.05)
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

    assert (hello.version_min, hello.version_max, hello.received) == (2, 2, 0)
    assert dict(hello.facts) == peer.facts
    assert hello.incarnation


@pytest.mark.parametrize(("theirs", "fits"), [((2, 2), True), ((1, 9), True), ((3, 4), False), ((1, 1), False)])
def test_hello_of_other_versions_is_refused_with_both_ranges(
    half: Conversation, peer: Peer, theirs: tuple[int, int], fits: bool
) -> None:
    peer.hello(version_min=theirs[0], version_max=theirs[1])

    if fits:
        assert half.wait_met(WAIT_S)
    else:
        with pytest.raises(VersionDiffers) as caught:
            half.wait_met(WAIT_S)
        assert "shop of an unnamed release with sessions" in caught.value.fields["releases"]
        assert caught.value.fields["upgrade"] == ("shop" if theirs[1] < 2 else "this party")


def test_default_that_one_half_does_not_know_is_no_difference_and_is_told_as_one() -> None:
    half = Conversation("shop", {"epochs": "8", "new": Default("0"), "set": Default("1")}, window=WINDOW)
    peer = Peer(half)
    hello = peer.read("hello").hello
    assert (dict(hello.facts), list(hello.default_facts)) == (
        {"epochs": "8", "new": "0", "set": "1", "window": str(WINDOW)},
        ["new", "set"],
    )
    peer.hello(facts={**peer.facts, "set": "1", "newer": "2"}, default_facts=["newer"])
    assert half.wait_met(WAIT_S)


@pytest.mark.parametrize(
    ("ours", "theirs", "defaults", "differing"),
    [
        ({"new": "5"}, {}, [], {"field": "new", "ours": "5", "theirs": "absent"}),
        ({}, {"newer": "5"}, ["other"], {"field": "newer", "ours": "absent", "theirs": "5"}),
        ({"new": Default("5")}, {"new": "6"}, ["new"], {"field": "new", "ours": "5", "theirs": "6"}),
    ],
    ids=["set here", "set there", "another default"],
)
def test_setting_that_one_half_does_not_know_differs_once_it_is_set(
    ours: dict[str, str], theirs: dict[str, str], defaults: list[str], differing: dict[str, str]
) -> None:
    half = Conversation("shop", {"epochs": "8", **ours}, window=WINDOW)
    peer = Peer(half)
    peer.hello(facts={**peer.facts, **theirs}, default_facts=defaults)
    with pytest.raises(ConfigDiffers) as caught:
        half.wait_met(WAIT_S)
    assert caught.value.fields == differing


@pytest.mark.parametrize(
    ("change", "leaf", "fields"),
    [
        ({"epochs": "10"}, ConfigDiffers, {"field": "epochs", "ours": "8", "theirs": "10"}),
        ({"more": "1"}, ConfigDiffers, {"field": "more", "ours": "absent", "theirs": "1"}),
        ({"row_order": "ab"}, RowOrderDiffers, {"field": "row_order", "ours": "absent", "theirs": "ab"}),
        ({"window": "9"}, ConfigDiffers, {"field": "window", "ours": "16000", "theirs": "9"}),
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
        half.receive(Wish("x"))


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
        half.receive(Wish("x"))


def test_duplicate_chunk_is_passed_over(half: Conversation, met: Peer) -> None:
    met.data("n", b"1")
    met.data("n", b"again", sequence=1)
    met.data("n", b"2", sequence=2)

    assert [half.receive(Wish("n"))[1] for _ in range(2)] == [b"1", b"2"]


def test_frames_of_an_old_stream_are_passed_over(half: Conversation, met: Peer) -> None:
    old = met.epoch
    met.connect()
    half.feed(old, frames.CLOSE)
    met.hello()
    met.data("n", b"1")

    assert half.receive(Wish("n")) == (BYTES, b"1")


def kinds(frames_: list[bytes]) -> list[str | None]:
    return [session_pb2.Frame.FromString(frame).WhichOneof("kind") for frame in frames_]


def test_acknowledgement_goes_along_with_data_once_it_is_half_as_old_as_one_that_goes_alone() -> None:
    now = 0.0
    half = Conversation("shop", {"epochs": "8"}, window=1 << 20, clock=lambda: now)
    peer = Peer.__new__(Peer)
    peer.half, peer.facts, peer.incarnation, peer.sequence = half, {"epochs": "8", "window": str(1 << 20)}, "theirs", 0
    peer.epoch = half.begin_stream()
    written = half.outgoing_together(peer.epoch, 1 << 16)
    assert kinds(next(written)) == ["hello"]
    peer.hello()
    now += module.ACK_DELAY_S
    assert kinds(next(written)) == ["ack"]  # each stream begins with one
    peer.data("x", b"1")
    now += 0.4 * module.ACK_DELAY_S
    send(half, "y", b"2")
    assert kinds(next(written)) == ["data"]
    now += 0.2 * module.ACK_DELAY_S
    for _ in range(2):
        send(half, "y", b"2")
    assert kinds(next(written)) == ["ack", "data", "data"]
    peer.data("x", b"1")
    now += module.ACK_DELAY_S
    assert kinds(next(written)) == ["ack"]
    half.hang_up()


def test_writer_is_woken_for_no_acknowledgement_while_both_halves_send_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ACK_DELAY_S", WAIT_S)
    half = Conversation("shop", {"epochs": "8"}, window=1 << 20)
    met = Peer(half)
    met.hello(facts={"epochs": "8", "window": str(1 << 20)})
    woken = []
    notify = half._writable.notify

    def count(n: int = 1) -> None:
        woken.append(n)
        notify(n)

    monkeypatch.setattr(half._writable, "notify", count)
    for _ in range(20):
        send(half, "y", b"2")
        met.read("data")
        met.data("x", b"1")
        half.receive(Wish("x"))
    assert len(woken) == 20  # for what it sends itself
    half.hang_up()


def test_acknowledgement_is_repeated_on_a_new_stream(half: Conversation, met: Peer) -> None:
    met.data("n", b"abc")
    half.receive(Wish("n"))
    met.connect()
    met.hello()

    assert met.read("hello").hello.received == 1
    ack = met.read("ack").ack
    assert (ack.received, ack.consumed_bytes) == (1, 3 + OVERHEAD)


# ----------------------------------------------------------------------------------------------------------- window
def test_send_blocks_when_the_window_is_full_until_bytes_are_consumed(half: Conversation, met: Peer) -> None:
    send(half, "a", bytes(WINDOW))  # two chunks
    blocked = in_thread(lambda: send(half, "b", b"1"))
    met.read("data")
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)

    met.read("data")
    met.ack(2, 0)  # received is not consumed
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)
    met.ack(2, WINDOW + 2 * OVERHEAD)

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


def test_chunks_of_a_message_that_somebody_waits_for_are_consumed_on_arrival(half: Conversation, met: Peer) -> None:
    waiting = in_thread(lambda: half.receive(Wish("big")))
    for number in range(1, 5):
        met.data("big", bytes(CHUNK), last=False)
        while met.read("ack").ack.consumed_bytes != number * (CHUNK + OVERHEAD):
            pass
    met.data("big", bytes(600))

    assert waiting.get(timeout=WAIT_S) is None
    while met.read("ack").ack.consumed_bytes != 4 * (CHUNK + OVERHEAD) + 600 + OVERHEAD:
        pass


@pytest.mark.parametrize("before", [None, b"1"], ids=["nothing", "a message that nobody took"])
def test_message_nobody_waits_for_fills_no_more_than_the_window(
    half: Conversation, met: Peer, before: bytes | None
) -> None:
    if before is not None:
        met.data("before", before)
    met.data("big", bytes(CHUNK), last=False)
    met.data("big", bytes(CHUNK), last=False)
    assert half.error is None
    met.data("big", bytes(CHUNK), last=False)

    assert isinstance(half.error, ProtocolViolated)
    assert "more than the window" in half.error.detail


def test_second_message_of_a_name_gets_no_credit_from_who_waits_for_the_first(half: Conversation, met: Peer) -> None:
    with half.wanting(Wish("n")):
        met.data("n", b"1")
        for _ in range(3):
            met.data("n", bytes(CHUNK), last=False)

    assert isinstance(half.error, ProtocolViolated)


def test_message_larger_than_the_window_goes_on_when_somebody_asks_for_it(half: Conversation, met: Peer) -> None:
    for _ in range(2):
        met.data("big", bytes(CHUNK), last=False)
    with pytest.raises(ProtocolViolated, match=r"`other` cannot come.*`big` \(1\)"):
        half.receive(Wish("other"))

    waiting = in_thread(lambda: half.receive(Wish("big")))
    while met.read("ack").ack.consumed_bytes != 2 * (CHUNK + OVERHEAD):
        pass
    met.data("big", bytes(CHUNK))
    assert waiting.get(timeout=WAIT_S) is None


def test_full_window_of_other_names_is_reported_with_some_of_their_names(half: Conversation, met: Peer) -> None:
    for name in "gfedcba":
        met.data(name, bytes(1500))

    with pytest.raises(ProtocolViolated, match=r"`wanted` cannot come.*`a` \(1\), `b` \(1\), .*`e` \(1\) and 2 more"):
        half.receive(Wish("wanted"))


def test_full_window_of_empty_messages_of_different_names_takes_little_memory() -> None:
    window = 2 << 20
    half = Conversation("shop", {"epochs": "8"}, window=window)
    peer = Peer(half)
    peer.hello(facts={"epochs": "8", "window": str(window)})
    tracemalloc.start()
    while half.error is None:
        peer.data(f"{peer.sequence:x}".rjust(MAX_NAME, "\N{GRINNING FACE}"), b"")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    half.hang_up()

    assert peer.sequence == window // OVERHEAD + 1
    assert peak < 2.5 * window


def test_full_window_that_another_thread_empties_is_no_failure(half: Conversation, met: Peer) -> None:
    half._crowded_s = 60.0
    for _ in range(2):
        met.data("a", bytes(CHUNK))
    waiting = in_thread(lambda: half.receive(Wish("wanted")))
    for _ in range(2):
        half.receive(Wish("a"))
    met.data("wanted", b"")

    assert waiting.get(timeout=WAIT_S) is None


def test_peer_that_ignores_the_window_is_a_protocol_violation(half: Conversation, met: Peer) -> None:
    for _ in range(2):
        met.data("a", bytes(CHUNK))
    met.data("a", b"more")

    assert isinstance(half.error, ProtocolViolated)


def test_message_beyond_the_limit_of_all_is_a_protocol_violation(
    half: Conversation, met: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_MESSAGE", CHUNK)
    met.data("a", bytes(CHUNK), last=False)
    met.data("a", b"1")

    assert isinstance(half.error, ProtocolViolated)


# --------------------------------------------------------------------------------------------------- kind and limit
def test_message_that_passes_the_limit_of_who_waits_is_refused_with_the_chunk_that_does(
    half: Conversation, met: Peer
) -> None:
    waiting = in_thread(lambda: half.receive(Wish("n", max_bytes=2 * CHUNK)))
    while "n" not in half._inbox._wishes:
        pass
    for _ in range(2):
        met.data("n", bytes(CHUNK), last=False)
    assert half.error is None
    met.data("n", b"1", last=True)

    found = waiting.get(timeout=WAIT_S)
    assert isinstance(found, ProtocolViolated)
    assert f"`n` has more than the {2 * CHUNK} bytes" in found.detail
    assert "`max_bytes`" in found.detail


def test_message_that_follows_another_of_its_name_is_not_measured_by_the_limit_of_that(
    half: Conversation, met: Peer
) -> None:
    met.data("n", b"1")
    met.data("n", bytes(CHUNK), last=False, payload_kind=ARRAY)

    assert half.receive(Wish("n", BYTES, max_bytes=1)) == (BYTES, b"1")
    met.data("n", bytes(10), payload_kind=ARRAY)
    assert len(half.receive(Wish("n", ARRAY, max_bytes=CHUNK + 10))[1]) == CHUNK + 10


@pytest.mark.parametrize("last", [True, False])
def test_message_that_has_arrived_is_refused_if_it_passes_the_limit(half: Conversation, met: Peer, last: bool) -> None:
    met.data("n", bytes(CHUNK), last=last)

    with pytest.raises(ProtocolViolated, match="`n` has more than the 99 bytes"):
        half.receive(Wish("n", max_bytes=99))


@pytest.mark.parametrize("first", [True, False], ids=["that has arrived", "that arrives"])
def test_message_of_another_kind_is_refused_with_its_first_chunk(half: Conversation, met: Peer, first: bool) -> None:
    def arrive() -> None:
        met.data("n", bytes(CHUNK), last=False, payload_kind=ARRAY)

    if first:
        arrive()
    waiting = in_thread(lambda: half.receive(Wish("n", BYTES)))
    if not first:
        while "n" not in half._inbox._wishes:
            pass
        arrive()

    assert "message `n` is not bytes: found an array" in str(waiting.get(timeout=WAIT_S))


# ------------------------------------------------------------------------------------------------------------ stall
class Stalling:
    """A half whose time is told by hand, and another half that does nothing but what a test makes it do."""

    def __init__(self) -> None:
        self.now = 100.0
        self.half = Conversation("shop", {"epochs": "8"}, window=WINDOW, stall_s=60.0, clock=lambda: self.now)
        self.peer = Peer(self.half)
        self.peer.hello()

    def passes(self, seconds: float) -> None:
        """Let time pass while heartbeats come, and let whoever waits look at the clock."""
        for _ in range(4):
            self.now += seconds / 4
            self.peer.feed(heartbeat=session_pb2.Heartbeat())
        with self.half._lock:
            self.half._wake()


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    found = Stalling()
    yield found
    found.half.hang_up()


def test_receive_with_heartbeats_and_nothing_else_gives_up(stalling: Stalling) -> None:
    waiting = in_thread(lambda: stalling.half.receive(Wish("n")))
    while "n" not in stalling.half._inbox._wishes:
        pass
    stalling.passes(59.0)
    with pytest.raises(queue.Empty):
        waiting.get(timeout=0.05)
    stalling.passes(1.0)

    found = waiting.get(timeout=WAIT_S)
    assert isinstance(found, PeerStalled)
    assert found.retryable
    assert "shop has not moved for 60 s while this half waits for `n`" in found.detail


def test_receive_counts_chunks_of_what_is_waited_for_and_no_others_as_progress(stalling: Stalling) -> None:
    waiting = in_thread(lambda: stalling.half.receive(Wish("n")))
    while "n" not in stalling.half._inbox._wishes:
        pass
    for _ in range(3):
        stalling.passes(50.0)
        stalling.peer.data("n", bytes(CHUNK), last=False)
    with pytest.raises(queue.Empty):
        waiting.get(timeout=0.05)
    stalling.passes(50.0)
    stalling.peer.sequence -= 1
    stalling.peer.data("n", bytes(CHUNK), last=False)  # once more what had come is no progress
    stalling.passes(10.0)

    assert isinstance(waiting.get(timeout=WAIT_S), PeerStalled)


def test_receive_counts_messages_of_other_names_as_no_progress(stalling: Stalling) -> None:
    waiting = in_thread(lambda: stalling.half.receive(Wish("n")))
    while "n" not in stalling.half._inbox._wishes:
        pass
    stalling.passes(50.0)
    stalling.peer.data("other", b"")
    stalling.passes(10.0)

    assert isinstance(waiting.get(timeout=WAIT_S), PeerStalled)


def test_send_on_a_full_window_gives_up_unless_messages_are_taken(stalling: Stalling) -> None:
    send(stalling.half, "a", bytes(WINDOW))
    blocked = in_thread(lambda: send(stalling.half, "b", bytes(2 * CHUNK)))
    for _ in range(2):
        stalling.peer.read("data")
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)
    stalling.passes(50.0)
    stalling.peer.ack(2, CHUNK + OVERHEAD)
    stalling.passes(50.0)
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.05)
    stalling.passes(60.0)

    found = blocked.get(timeout=WAIT_S)
    assert isinstance(found, PeerStalled)
    assert "while this half waits for it to take `b`" in found.detail


def test_close_gives_up_on_a_half_that_takes_nothing(stalling: Stalling) -> None:
    send(stalling.half, "a", b"1")
    closing = in_thread(lambda: stalling.half.close(1000.0))
    while not stalling.half._closing:
        pass
    stalling.passes(60.0)

    assert isinstance(closing.get(timeout=WAIT_S), PeerStalled)


def test_half_that_computes_for_long_does_not_count_that_as_the_peers(stalling: Stalling) -> None:
    stalling.passes(500.0)
    waiting = in_thread(lambda: stalling.half.receive(Wish("n")))
    while "n" not in stalling.half._inbox._wishes:
        pass
    stalling.peer.data("n", b"1")

    assert waiting.get(timeout=WAIT_S) is None


def test_halves_that_wait_for_each_other_in_send_say_so_and_what_helps(
    half: Conversation, met: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    for _ in range(2):
        met.data("theirs", bytes(CHUNK))
    send(half, "ours", bytes(WINDOW))
    blocked = in_thread(lambda: send(half, "more", b""))
    while not met.read("heartbeat").heartbeat.is_blocked:
        pass
    with pytest.raises(queue.Empty):
        blocked.get(timeout=0.2)  # the other half may compute, and receive then
    met.feed(heartbeat=session_pb2.Heartbeat(is_blocked=True))

    found = blocked.get(timeout=WAIT_S)
    assert isinstance(found, ProtocolViolated)
    assert "before either receives: `more` here, `theirs` (2) there; let one receive first" in found.detail


def test_half_that_exchanges_is_not_blocked(half: Conversation, met: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    send(half, "ours", bytes(WINDOW))
    with half.wanting(Wish("theirs")):
        blocked = in_thread(lambda: send(half, "more", b""))
        while not half._is_blocked:
            pass
        met.read("heartbeat")
        assert not met.read("heartbeat").heartbeat.is_blocked
    half.hang_up()
    blocked.get(timeout=WAIT_S)


# ---------------------------------------------------------------------------------------------------------- hostile
@pytest.mark.parametrize(
    "frame",
    [
        session_pb2.Frame(data=session_pb2.Data(sequence=2, name="a", last=True)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="", last=True)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a" * 201, last=True)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a", chunk=bytes(frames.CHUNK + 1))),
        session_pb2.Frame(ack=session_pb2.Ack(received=1)),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a", chunk=b"1")),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a")),
        session_pb2.Frame(data=session_pb2.Data(sequence=1, name="a\n", last=True)),
        session_pb2.Frame(ack=session_pb2.Ack(consumed_bytes=OVERHEAD)),
        session_pb2.Frame(),
        session_pb2.Frame(hello=session_pb2.Hello(incarnation="a" * (2 << 20))),
    ],
    ids=[
        *(
            "gap",
            "no name",
            "long name",
            "large chunk",
            "ack ahead",
            "small chunk",
            "empty chunk",
            "name with a newline",
        ),
        *("consumed ahead", "empty", "large frame"),
    ],
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


def test_acknowledgement_of_what_is_taken_but_has_not_arrived_is_a_protocol_violation(
    half: Conversation, met: Peer
) -> None:
    send(half, "a", b"1")
    met.read("data")
    met.ack(0, 1 + OVERHEAD)

    assert isinstance(half.error, ProtocolViolated)


@pytest.mark.parametrize("consumed", [1, OVERHEAD - 1])
def test_acknowledgement_of_less_than_a_chunk_is_a_protocol_violation(
    half: Conversation, met: Peer, consumed: int
) -> None:
    send(half, "a", b"1")
    met.read("data")
    met.ack(1, consumed)

    assert isinstance(half.error, ProtocolViolated)


def test_facts_of_the_peer_are_cut_and_made_printable(half: Conversation, peer: Peer) -> None:
    peer.hello(facts={**peer.facts, "more\n\x1b[31m": "x\n" * 5000})

    with pytest.raises(ConfigDiffers) as caught:
        half.wait_met(WAIT_S)
    assert all(value.isprintable() and len(value) <= 500 for value in caught.value.fields.values())


@pytest.mark.parametrize(
    "changes",
    [{"facts": {str(number): "" for number in range(1001)}}, {"incarnation": "a" * 101}, {"incarnation": ""}],
    ids=["facts", "long incarnation", "no incarnation"],
)
def test_hello_out_of_bounds_is_a_protocol_violation(
    half: Conversation, peer: Peer, changes: dict[str, object]
) -> None:
    peer.hello(**changes)

    assert isinstance(half.error, ProtocolViolated)


NUMBERS = st.integers(0, 3) | st.sampled_from([OVERHEAD, WINDOW, 2**32, 2**64 - 1])
NAMES = st.sampled_from(["a", "b", "", "a" * 201, "\x1b"])
FRAMES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda sequence, name, size, last, kind: session_pb2.Frame(
            data=session_pb2.Data(sequence=sequence, name=name, chunk=bytes(size), last=last, payload_kind=kind)
        ).SerializeToString(),
        NUMBERS,
        NAMES,
        st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1]),
        st.booleans(),
        st.integers(0, 5),
    ),
    st.builds(
        lambda received, consumed: session_pb2.Frame(
            ack=session_pb2.Ack(received=received, consumed_bytes=consumed)
        ).SerializeToString(),
        NUMBERS,
        NUMBERS,
    ),
    st.builds(
        lambda incarnation, received, facts: session_pb2.Frame(
            hello=session_pb2.Hello(
                version_min=2, version_max=2, incarnation=incarnation, received=received, facts=facts
            )
        ).SerializeToString(),
        st.sampled_from(["theirs", "", "another"]),
        NUMBERS,
        st.just({"window": str(WINDOW)}) | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    ),
    st.just(frames.CLOSE),
    st.just(frames.HEARTBEAT),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=12), st.booleans())
def test_hostile_frames_end_the_conversation_or_stay_within_its_bounds(hostile: list[bytes], meets: bool) -> None:
    half = Conversation("shop", {}, window=WINDOW)
    epoch = half.begin_stream()
    greeting = session_pb2.Hello(version_min=2, version_max=2, incarnation="theirs", facts={"window": str(WINDOW)})
    with half.wanting(Wish("a", BYTES, max_bytes=2 * CHUNK)):
        for frame in [session_pb2.Frame(hello=greeting).SerializeToString()] * meets + hostile:
            try:
                half.feed(epoch, frame)
            except StreamBroken:
                break
            waiting = [message for queued in half._inbox._queues.values() for message in queued]
            partial = [half._inbox._partial] if half._inbox._partial else []
            assert sum(len(message.body) for message in waiting + partial) <= WINDOW + 3 * CHUNK
            assert len(half._inbox._queues) <= WINDOW // OVERHEAD + 1
            assert half.error is None or isinstance(half.error, FedtasksError)
    half.hang_up()


# ------------------------------------------------------------------------------------------------- receive, failure
def test_receive_within_a_time_gives_up_naming_the_message(half: Conversation, met: Peer) -> None:
    with pytest.raises(DeadlinePassed, match="nothing called `n` came from shop"):
        half.receive(Wish("n"), 0.01)


def test_failure_reaches_who_waits_and_leaves_what_has_arrived(half: Conversation, met: Peer) -> None:
    met.data("here", b"1")
    waiting = in_thread(lambda: half.receive(Wish("n")))
    half.fail(PeerFailed("why"))

    assert str(waiting.get(timeout=WAIT_S)).startswith("PEER_FAILED: why")
    assert half.receive(Wish("here"))[1] == b"1"
    with pytest.raises(PeerFailed):
        send(half, "n", b"")


def test_hang_up_ends_who_waits(half: Conversation, met: Peer) -> None:
    waiting = in_thread(lambda: half.receive(Wish("n")))
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
    waiting = in_thread(lambda: half.receive(Wish("n")))
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


# ---------------------------------------------------------------------------------------------------------- tunnels
def test_busy_halves_exchange_certificates_and_go_on_in_another_stream(half: Conversation, peer: Peer) -> None:
    peer.hello(takes_tunnels=True)
    offered: list[bytes] = []
    first = peer.epoch

    def make() -> None:
        assert half.wait_busy(first, 5_000)
        offered.append(half.offer_tunnel(first, b"ours", WAIT_S))

    making = threading.Thread(target=make)
    making.start()
    peer.data("x", b"1" * 6_000)
    assert peer.read("tunnel_offer").tunnel_offer.certificate == b"ours"
    peer.feed(tunnel_offer=session_pb2.TunnelOffer(certificate=b"theirs"))
    making.join(WAIT_S)
    second = half.replace_stream(first)
    assert offered == [b"theirs"]
    assert second is not None
    received = half.bytes_received
    peer.data("x", b"late, in the stream that was replaced")
    assert half.bytes_received == received
    assert half.replace_stream(first) is None


def test_offer_of_the_other_half_is_answered_though_nothing_has_crossed(half: Conversation, peer: Peer) -> None:
    peer.hello(takes_tunnels=True)
    peer.feed(tunnel_offer=session_pb2.TunnelOffer(certificate=b"theirs"))

    assert half.wait_busy(peer.epoch, 1 << 60)
    assert half.offer_tunnel(peer.epoch, b"ours", WAIT_S) == b"theirs"


def test_half_of_an_earlier_release_is_offered_no_tunnel(half: Conversation, met: Peer) -> None:
    assert not half.wait_busy(met.epoch, 0)


def test_offer_that_nobody_answers_is_given_up(half: Conversation, peer: Peer) -> None:
    peer.hello(takes_tunnels=True)

    assert half.offer_tunnel(peer.epoch, b"ours", 0.01) == b""


def test_cut_ends_the_waiting_for_a_tunnel(half: Conversation, peer: Peer) -> None:
    peer.hello(takes_tunnels=True)
    ends: list[object] = []
    waiting = threading.Thread(target=lambda: ends.append(half.wait_busy(peer.epoch, 1 << 60)))
    waiting.start()
    half.end_stream(peer.epoch)
    waiting.join(WAIT_S)
    assert ends == [False]


@pytest.mark.parametrize("size", [0, module.MAX_CERTIFICATE + 1])
def test_offer_out_of_bounds_is_refused(half: Conversation, met: Peer, size: int) -> None:
    met.feed(tunnel_offer=session_pb2.TunnelOffer(certificate=bytes(size)))

    assert isinstance(half.error, ProtocolViolated)


# ------------------------------------------------------------------------------------------------------------- mark
class Recorded(Mark):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.has_waited = threading.Event()

    def move(self) -> None:
        self.said.append("moves")

    def wait(self) -> None:
        self.said.append("waits")
        self.has_waited.set()


def test_half_that_hangs_behind_a_healthy_link_does_not_move() -> None:
    mark = Recorded()
    half = Conversation("shop", {"epochs": "8"}, window=WINDOW, mark=mark)
    peer = Peer(half)
    peer.hello()
    for _ in range(10):
        peer.feed(heartbeat=session_pb2.Heartbeat())
    peer.data("n", b"1")  # arrives, and nobody takes it
    assert mark.said == []
    half.hang_up()


def test_sending_and_taking_move_and_waiting_waits() -> None:
    mark = Recorded()
    half = Conversation("shop", {"epochs": "8"}, window=WINDOW, mark=mark)
    peer = Peer(half)
    peer.hello()
    send(half, "a", b"1")
    assert mark.said == ["moves"]
    taken = in_thread(lambda: half.receive(Wish("n")))
    assert mark.has_waited.wait(10)
    assert mark.said == ["moves", "waits"]
    peer.data("n", b"1")
    taken.get(timeout=10)
    assert mark.said[-1] == "moves"
    half.hang_up()


def test_half_that_waits_for_the_hello_of_the_other_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS_EVERY_S", 0.01)
    mark = Recorded()
    half = Conversation("shop", {"epochs": "8"}, window=WINDOW, mark=mark)
    began = time.monotonic()
    assert not half.wait_met(0.1)
    assert time.monotonic() - began < 5
    assert mark.said.count("waits") > 2
    half.hang_up()
