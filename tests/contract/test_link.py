"""What every `Link` promises, whatever carries it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.errors import (
    ConfigDiffers,
    DataCorrupt,
    DataMissing,
    DeadlinePassed,
    FedtasksError,
    PeerFailed,
    PeerStalled,
    ProtocolViolated,
    RowOrderDiffers,
)
from fedtasks.link import conversation, session
from fedtasks.link.link import Link
from fedtasks.link.memory import memory_pair
from fedtasks.link.payload import BYTES, RECORD_BATCH
from fedtasks.wire.v1 import run_pb2
from tests.support.links import both, relayed_pair
from tests.support.relay import Relay

MIB = 1 << 20


class OpenPair(Protocol):
    def __call__(self, **options: Any) -> contextlib.AbstractContextManager[tuple[Link, Link, Callable[[], None]]]:
        """Two links and what cuts them."""


@contextlib.contextmanager
def open_memory(**options: Any) -> Iterator[tuple[Link, Link, Callable[[], None]]]:
    a, b = memory_pair(**options)
    try:
        yield a, b, a.cut
    finally:
        a.abort()
        b.abort()


@contextlib.contextmanager
def open_relayed(cuts: Any = (), **options: Any) -> Iterator[tuple[Link, Link, Callable[[], None]]]:
    with Relay(cuts) as relay, relayed_pair(relay, **options) as (a, b):
        yield a, b, relay.cut


@contextlib.contextmanager
def open_tunnelled(cuts: Any = (), **options: Any) -> Iterator[tuple[Link, Link, Callable[[], None]]]:
    """Two links that go over to a tunnel at once."""
    with pytest.MonkeyPatch.context() as patch, Relay(cuts, has_tunnels=True) as relay:
        patch.setattr(session, "BUSY_BYTES", 0)
        with relayed_pair(relay, **options) as (a, b):
            yield a, b, relay.cut


@pytest.fixture(params=[open_memory, open_relayed, open_tunnelled], ids=["memory", "grpc", "tunnel"])
def open_pair(request: pytest.FixtureRequest) -> OpenPair:
    opener: OpenPair = request.param
    return opener


def test_half_that_took_everything_and_then_failed_has_not_closed() -> None:
    a, b = memory_pair()
    ends: list[Exception] = []

    def send_and_close() -> None:
        try:
            with a:
                a.send("last", b"x")
        except FedtasksError as error:
            ends.append(error)

    sender = threading.Thread(target=send_and_close)
    sender.start()
    assert b.receive("last") == b"x"
    while not a._conversation.is_settled:
        time.sleep(0.001)
    b.abort()
    sender.join(10)
    assert [type(end) for end in ends] == [PeerFailed]


# --------------------------------------------------------------------------------------------------------- messages
def test_messages_of_one_name_arrive_in_order_and_names_are_independent(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, _):
        for number in range(100):
            a.send(f"n{number % 3}", str(number).encode())

        for residue in (2, 0, 1):
            wanted = [str(number).encode() for number in range(residue, 100, 3)]
            assert [b.receive(f"n{residue}") for _ in wanted] == wanted


def test_every_kind_of_payload_arrives_equal(open_pair: OpenPair) -> None:
    array = np.random.default_rng(1).normal(size=(300, 1000)).astype(">f4")
    batch = pa.record_batch({"id": ["a", "b"], "score": [1.0, None]})
    message = run_pb2.Metric(task="train", name="loss", value=0.25)
    with open_pair() as (a, b, _):
        for payload in (b"", b"bytes", array, np.array(3.0), batch, message):
            a.send("x", payload)

        assert [b.receive("x"), b.receive("x")] == [b"", b"bytes"]
        back = b.receive("x")
        assert isinstance(back, np.ndarray)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
        assert b.receive("x") == np.array(3.0)
        assert b.receive("x").equals(batch)  # type: ignore[union-attr]
        assert b.receive("x") == message.SerializeToString()


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1])
def test_message_around_the_size_of_a_chunk_arrives_equal(open_pair: OpenPair, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    with open_pair() as (a, b, _):
        a.send("x", data)

        assert b.receive("x") == data


def test_sent_array_may_change_at_once(open_pair: OpenPair) -> None:
    array = np.zeros(500_000)
    with open_pair() as (a, b, _):
        a.send("x", array)
        array += 1.0

        assert not np.any(b.receive("x"))


@pytest.mark.parametrize("size", [MIB, 6 * MIB], ids=["within a window", "beyond the window"])
def test_two_halves_exchange_messages_of_any_size(open_pair: OpenPair, size: int) -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.integers(0, 256, size=size, dtype=np.uint8) for _ in range(2)]

    def half(link: Link, own: np.ndarray) -> Any:
        with link:
            return link.exchange("x", own)

    with open_pair(window=2 * MIB) as (a, b, _):
        got_a, got_b = both(lambda: half(a, arrays[0]), lambda: half(b, arrays[1]))

    np.testing.assert_array_equal(got_a, arrays[1])
    np.testing.assert_array_equal(got_b, arrays[0])


# ----------------------------------------------------------------------------------------------------------- window
def test_32_mb_array_passes_a_4_mib_window(open_pair: OpenPair) -> None:
    array = np.random.default_rng(4).normal(size=4_000_000)

    with open_pair(window=4 * MIB) as (a, b, _):
        _, back = both(lambda: a.send("x", array), lambda: b.receive("x"))

    np.testing.assert_array_equal(back, array)


def test_100_mb_of_messages_need_no_more_memory_than_windows(open_pair: OpenPair) -> None:
    chunk = bytes(range(256)) * 4096

    def send(link: Link) -> None:
        for _ in range(100):
            link.send("x", chunk)

    def receive(link: Link) -> None:
        for _ in range(100):
            assert link.receive("x") == chunk

    with open_pair(window=4 * MIB) as (a, b, _):
        tracemalloc.start()
        both(lambda: send(a), lambda: receive(b))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 32 * MIB


def test_send_blocks_until_the_other_half_takes(open_pair: OpenPair) -> None:
    with open_pair(window=2 * MIB) as (a, b, _):
        n_sent = 0
        has_sent = threading.Semaphore(0)

        def send() -> None:
            nonlocal n_sent
            for _ in range(6):
                a.send("x", bytes(MIB))
                n_sent += 1
                has_sent.release()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        for _ in range(2):
            assert has_sent.acquire(timeout=10)
        assert not has_sent.acquire(timeout=0.2)
        assert n_sent == 2
        for _ in range(6):
            b.receive("x")
        thread.join(10)
        assert n_sent == 6


def test_message_nobody_asks_for_stays_within_the_window_and_arrives_when_somebody_does(open_pair: OpenPair) -> None:
    message = bytes(8 * MIB)
    with open_pair(window=2 * MIB) as (a, b, _):
        has_sent = threading.Event()

        def send() -> None:
            a.send("x", message)
            has_sent.set()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        assert not has_sent.wait(0.3)
        assert 2 * MIB <= b.bytes_received < 3 * MIB  # type: ignore[attr-defined]

        assert b.receive("x") == message
        assert has_sent.wait(10)
        thread.join(10)


def test_halves_that_both_send_beyond_the_window_before_either_receives_are_told(
    open_pair: OpenPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "HEARTBEAT_S", 0.05)

    errors: list[FedtasksError] = []
    with open_pair(window=MIB, crowded_s=0.3) as (a, b, _):

        def half(link: Link) -> None:
            try:
                link.send("x", bytes(4 * MIB))
            except FedtasksError as error:
                errors.append(error)
            for each in (a, b):
                each.abort()  # type: ignore[attr-defined]

        both(lambda: half(a), lambda: half(b))
    assert isinstance(errors[0], ProtocolViolated)
    assert "both halves send more than the window" in errors[0].detail
    assert "`exchange`" in errors[0].detail


# ----------------------------------------------------------------------------------------------------- kind and limit
def test_message_larger_than_its_receiver_allows_is_refused_as_it_arrives(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, _):

        def send() -> None:
            with contextlib.suppress(FedtasksError):
                a.send("x", bytes(64 * MIB))

        def receive() -> None:
            with pytest.raises(ProtocolViolated, match=rf"`x` has more than the {2 * MIB} bytes .* `max_bytes`"):
                b.receive("x", max_bytes=2 * MIB)
            assert b.bytes_received < 36 * MIB  # type: ignore[attr-defined]
            b.abort()  # type: ignore[attr-defined]
            a.abort()  # type: ignore[attr-defined]

        both(send, receive)


def test_message_of_the_size_that_its_receiver_allows_is_taken(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, _):
        a.send("x", bytes(2 * MIB))
        assert len(b.receive("x", max_bytes=2 * MIB)) == 2 * MIB  # type: ignore[arg-type]


def test_payload_of_another_kind_is_refused(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, _):
        a.send("x", np.zeros(3))
        with pytest.raises(ProtocolViolated, match="`x` is not bytes: found an array"):
            b.receive("x", kind=BYTES)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_message_that_would_decompress_to_more_is_refused_without_doing_so(open_pair: OpenPair, codec: str) -> None:
    # Sent as the record batch that Arrow itself would write of it.
    zeros = pa.Array.from_buffers(pa.uint8(), 128 * MIB, [None, pa.py_buffer(bytes(128 * MIB))])
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([zeros], ["n"])
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_batch(batch)
    bomb = sink.getvalue()
    assert bomb.size < MIB
    with open_pair() as (a, b, _):
        pool, default = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
        tracemalloc.start()
        pa.set_memory_pool(pool)
        try:
            a._conversation.send("x", RECORD_BATCH, [memoryview(bomb)])  # type: ignore[attr-defined]
            with pytest.raises(ProtocolViolated, match="a record batch that cannot be read"):
                b.receive("x")
        finally:
            pa.set_memory_pool(default)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert peak + (pool.max_memory() or 0) < 16 * MIB


# -------------------------------------------------------------------------------------------------------------- stall
def test_half_that_sends_nothing_but_heartbeats_is_given_up(open_pair: OpenPair) -> None:
    with open_pair(stall_s=0.3) as (a, _, _), pytest.raises(PeerStalled, match="while this half waits for `x`"):
        a.receive("x")


def test_half_that_takes_nothing_is_given_up_by_who_sends(open_pair: OpenPair) -> None:
    with open_pair(stall_s=0.3, window=MIB) as (a, _, _), pytest.raises(PeerStalled, match="to take `x`"):
        a.send("x", bytes(4 * MIB))


# -------------------------------------------------------------------------------------------------------------- cuts
def converse(a: Link, b: Link, n_messages: int, size: int) -> None:
    """Send numbered messages both ways and check that each arrives once and in order."""

    def half(link: Link, own: int, other: int) -> None:
        with link:
            for number in range(n_messages):
                link.send("x", bytes([own]) + number.to_bytes(4, "big") + bytes(size * (number % 3)))
                got = link.receive("x")
                assert isinstance(got, bytes)
                assert (got[0], int.from_bytes(got[1:5], "big"), len(got)) == (other, number, 5 + size * (number % 3))

    both(lambda: half(a, 1, 2), lambda: half(b, 2, 1))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(2, 40), min_size=1, max_size=8))
def test_cuts_at_any_frame_lose_nothing_and_repeat_nothing(open_pair: OpenPair, cuts: list[int]) -> None:
    # A few cuts cost the real transport a back-off each, so it gets the first two of each draw.
    with open_pair(cuts=cuts if open_pair is open_memory else cuts[:2]) as (a, b, _):
        converse(a, b, n_messages=30, size=1000)


def test_50_cuts_in_one_transfer_of_many_chunks_lose_nothing(open_pair: OpenPair) -> None:
    rng = np.random.default_rng(5)
    n_cuts = 50 if open_pair is open_memory else 10
    array = rng.integers(0, 256, size=40 * MIB, dtype=np.uint8)
    with open_pair(cuts=[int(n) for n in rng.integers(4, 12, size=n_cuts)], window=4 * MIB) as (a, b, _):
        _, back = both(lambda: a.send("x", array), lambda: b.receive("x"))

    np.testing.assert_array_equal(back, array)


def test_cut_between_messages_is_not_noticed(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, cut):
        for number in range(3):
            a.send("x", bytes([number]))
            cut()
            assert b.receive("x", timeout_s=30) == bytes([number])


# ------------------------------------------------------------------------------------------------------------- facts
@pytest.mark.parametrize(
    ("name", "leaf"), [("settings", ConfigDiffers), ("id_type", ConfigDiffers), ("row_order", RowOrderDiffers)]
)
def test_fact_that_differs_is_named(open_pair: OpenPair, name: str, leaf: type[FedtasksError]) -> None:
    with (
        pytest.raises(leaf) as caught,
        open_pair(facts_a={name: "1", "same": "x"}, facts_b={name: "2", "same": "x"}),
    ):
        pass
    assert caught.value.fields["field"] == name
    assert {caught.value.fields["ours"], caught.value.fields["theirs"]} == {"1", "2"}


# ----------------------------------------------------------------------------------------------------- receive, close
def test_receive_gives_up_after_its_time(open_pair: OpenPair) -> None:
    with open_pair() as (a, _, _), pytest.raises(DeadlinePassed, match="nothing called `x`"):
        a.receive("x", timeout_s=0.05)


def test_full_window_of_other_names_is_an_error_and_no_deadlock(open_pair: OpenPair) -> None:
    with open_pair(window=MIB) as (a, b, _):
        b._conversation._crowded_s = 0.2  # type: ignore[attr-defined]
        a.send("other", bytes(MIB))
        with pytest.raises(ProtocolViolated, match=r"`wanted` cannot come.*`other`"):
            b.receive("wanted")


def test_close_waits_for_the_other_half_and_twice_is_once(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, _):
        a.send("x", b"1")
        has_closed = threading.Event()

        def close() -> None:
            a.close()
            has_closed.set()

        def take() -> None:
            assert not has_closed.wait(0.2)
            assert b.receive("x") == b"1"
            assert not has_closed.wait(0.2)
            b.close()

        both(close, take)
        a.close()
        assert has_closed.is_set()


def test_half_that_closes_early_fails_a_receive(open_pair: OpenPair) -> None:
    with open_pair() as (a, b, _):

        def receive() -> None:
            with pytest.raises(ProtocolViolated, match="closed the link without sending `x`"):
                b.receive("x")
            b.close()

        both(a.close, receive)


def test_half_that_leaves_by_an_exception_hangs_up_at_once(open_pair: OpenPair) -> None:
    with open_pair() as (a, _, _):
        with pytest.raises(ValueError, match="own"), a:
            raise ValueError("own failure")
        with pytest.raises(FedtasksError, match="closed"):
            a.send("x", b"")


def test_links_leave_no_thread_behind(open_pair: OpenPair) -> None:
    before = threading.active_count()
    with open_pair() as (a, b, cut):
        cut()
        converse(a, b, n_messages=3, size=10)
    for thread in threading.enumerate():
        if thread.name.startswith(("link-", "memory-")):
            thread.join(10)
            assert not thread.is_alive()
    assert threading.active_count() <= before + 2  # gRPC keeps pollers of its own


# ------------------------------------------------------------------------------------------------------------- files
def pass_file(open_pair: OpenPair, source: Path, target: Path, **options: Any) -> int:
    """Send a file through a new pair of links; returns how many bytes the sender wrote."""
    with open_pair(**options) as (a, b, _):
        both(lambda: a.send_file("model", source), lambda: b.receive_file("model", target))
        return int(a.bytes_sent)  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB + 7])
def test_file_of_any_size_arrives_equal(open_pair: OpenPair, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(np.random.default_rng(6).bytes(size))

    pass_file(open_pair, source, target)

    assert target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_file_is_continued_where_an_earlier_attempt_stopped(open_pair: OpenPair, tmp_path: Path) -> None:
    content = np.random.default_rng(7).bytes(10 * MIB)
    source, target, partial = tmp_path / "source", tmp_path / "target", tmp_path / "target.partial"
    source.write_bytes(content)
    partial.write_bytes(content[: 5 * MIB])

    n_bytes = pass_file(open_pair, source, target, window=MIB)

    assert target.read_bytes() == content
    # A link that goes on in a tunnel sends again what flew just then.
    assert 5 * MIB < n_bytes < 8 * MIB


@pytest.mark.parametrize(
    "partial", [b"other content", b"x" * (4 * MIB)], ids=["another prefix", "longer than the file"]
)
def test_partial_file_that_does_not_fit_is_replaced(open_pair: OpenPair, tmp_path: Path, partial: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"y" * (3 * MIB))
    (tmp_path / "target.partial").write_bytes(partial)

    pass_file(open_pair, source, target)

    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()


def test_file_is_continued_after_a_half_died_in_the_middle(open_pair: OpenPair, tmp_path: Path) -> None:
    content = np.random.default_rng(8).bytes(12 * MIB)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    with open_pair(window=MIB) as (a, b, _):

        def send() -> None:
            with contextlib.suppress(FedtasksError):
                a.send_file("model", source)

        sender = threading.Thread(target=send, daemon=True)
        original = b.receive
        n_chunks = 0

        def receive(name: str, **options: Any) -> Any:
            nonlocal n_chunks
            n_chunks += name.endswith("/chunk")
            if n_chunks > 6:
                raise KeyboardInterrupt
            return original(name, **options)

        b.receive = receive  # type: ignore[method-assign]
        sender.start()
        with pytest.raises(KeyboardInterrupt), b:
            b.receive_file("model", target)
        a.abort()  # type: ignore[attr-defined]
        sender.join(10)
    assert not target.exists()
    assert (tmp_path / "target.partial").stat().st_size == 6 * MIB

    n_bytes = pass_file(open_pair, source, target, window=MIB)

    assert target.read_bytes() == content
    # A link that goes on in a tunnel sends again what flew just then.
    assert 6 * MIB < n_bytes < 9 * MIB


def test_file_that_arrives_altered_is_refused_and_removed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    a, b = memory_pair()

    def send() -> None:
        a.receive("model/held")
        a.send("model/start", b'{"offset": 0}')
        a.send("model/chunk", b"altered")
        a.send("model/chunk", b"")
        a.send("model/end", b'{"size": 7, "sha256": "00"}')

    with pytest.raises(DataCorrupt, match="target"):
        both(send, lambda: b.receive_file("model", target))
    assert not list(tmp_path.iterdir())
    a.abort()


@pytest.mark.parametrize(
    "announced",
    [{"n_bytes": MIB}, {"n_bytes": 3 * MIB}, {"sha256": "0" * 64}, {"n_bytes": 2 * MIB, "sha256": "0" * 64}],
    ids=["less", "more", "another digest", "another digest of its size"],
)
@pytest.mark.parametrize("held", [0, MIB, 2 * MIB, 5 * MIB])
def test_file_that_is_not_what_was_announced_gets_no_name(
    open_pair: OpenPair, tmp_path: Path, announced: dict[str, Any], held: int
) -> None:
    content = np.random.default_rng(10).bytes(2 * MIB)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    (tmp_path / "target.partial").write_bytes((content * 3)[:held])
    with open_pair() as (a, b, _):

        def receive() -> None:
            with pytest.raises(ProtocolViolated, match="announced"):
                b.receive_file("model", target, **announced)

        both(lambda: a.send_file("model", source), receive)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_file_that_is_what_was_announced_gets_its_name(open_pair: OpenPair, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"y" * MIB)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with open_pair() as (a, b, _):
        both(
            lambda: a.send_file("model", source),
            lambda: b.receive_file("model", target, n_bytes=MIB, sha256=digest),
        )
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "start", [b"{}", b"[]", b"x", b"[" * 1000, b'{"offset": 3}', b'{"offset": -1}', b'{"offset": "0"}']
)
def test_file_offered_with_garbage_is_a_protocol_violation(tmp_path: Path, start: bytes) -> None:
    a, b = memory_pair()
    a.send("model/start", start)

    with pytest.raises(ProtocolViolated):
        b.receive_file("model", tmp_path / "target")
    a.abort()


def test_file_that_does_not_exist_is_named(open_pair: OpenPair, tmp_path: Path) -> None:
    with open_pair() as (a, _, _), pytest.raises(DataMissing, match="absent"):
        a.send_file("model", tmp_path / "absent")


def test_file_survives_cuts(open_pair: OpenPair, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(np.random.default_rng(9).bytes(20 * MIB))

    pass_file(open_pair, source, target, cuts=[3, 9, 9], window=4 * MIB)

    assert target.read_bytes() == source.read_bytes()
