"""What is asked over a stream to learn how the way between two gateways is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import grpc

from fedtasks.wire.v1 import peer_pb2, worker_pb2

if TYPE_CHECKING:
    from fedtasks.gateway.probes import Stream

LARGEST = 1 << 20
"""The longest padding of a message, which is that of a session's frame."""

LONGEST_IDLE_S = 600.0
"""How long a stream may be silent to see whether that lasts."""

ANSWER_S = 30.0
"""How long an answer may take: a megabyte at 300 kbit/s."""

ROUNDS = 20
"""So many small messages are answered one after the other."""

PACED, PACE_S = 40, 0.05
"""So many small messages are sent at this pace, whether the one before is answered or not."""

SIZES = (64 << 10, 256 << 10, LARGEST)
"""Messages that are tried, in both directions."""

BULK, BULK_S = 12, 3.0
"""So many of the largest are sent after each other, as long as this has not passed."""

IN_FLIGHT = 4
"""So many of them are not answered yet."""


class Crossing(NamedTuple):
    """One message and its answer, in microseconds; that of the other side from an instant of its own."""

    sent_us: int
    at_us: int
    back_us: int


class _Broken(Exception):
    """The stream has ended, or an answer does not come."""


class _Driver:
    """Asks over a stream; answers come in the order of what was asked."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._noise = os.urandom(LARGEST)

    async def send(self, padding: int = 0, answer: int = 0) -> int:
        """Send a message and return when."""
        frame = peer_pb2.ProbeFrame(answer_bytes=answer, padding=self._noise[:padding])
        sent_us = _now_us()
        with self._translated():
            async with asyncio.timeout(ANSWER_S):
                await self._stream.write(frame.SerializeToString())
        return sent_us

    async def take(self) -> tuple[int, int]:
        """Return when the next answer's question had come there, and when it came here."""
        with self._translated():
            async with asyncio.timeout(ANSWER_S):
                raw = await self._stream.read()
            if raw is grpc.aio.EOF:
                raise _Broken
            back_us = _now_us()
            return peer_pb2.ProbeFrame.FromString(raw).at_us, back_us

    async def ask(self, padding: int = 0, answer: int = 0) -> Crossing:
        """Send a message and wait for its answer."""
        sent_us = await self.send(padding, answer)
        return Crossing(sent_us, *await self.take())

    async def stay_silent(self, idle_s: float) -> float:
        """Say nothing for so long and then ask once more; return how long nothing was said before it broke, else 0."""
        begun_s = time.monotonic()
        reading = asyncio.ensure_future(self.take_late())
        await asyncio.wait({reading}, timeout=idle_s)
        if not reading.done():
            try:
                await self.send()
                await asyncio.wait({reading}, timeout=ANSWER_S)
            except _Broken:
                pass
            if reading.done() and reading.exception() is None:
                return 0.0
        if not reading.done():
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return time.monotonic() - begun_s

    async def take_late(self) -> None:
        """Wait for an answer, however long it takes."""
        with self._translated():
            if await self._stream.read() is grpc.aio.EOF:
                raise _Broken

    @staticmethod
    @contextlib.contextmanager
    def _translated() -> Iterator[None]:
        try:
            yield
        except Exception as error:  # gRPC's internals raise errors of their own when a stream dies
            raise _Broken from error


async def drive(stream: Stream, idle_s: float) -> worker_pb2.ProbeNetworkResponse:
    """Measure the way to the other end of a stream and back, until it breaks or all is known.

    Parameters
    ----------
    stream
        Its other end answers.
    idle_s
        How long it is to be silent.
    """
    driver, found = _Driver(stream), worker_pb2.ProbeNetworkResponse()
    phases = {
        "round trips": _measure_rounds,
        "many small messages": _measure_pace,
        "large messages": _measure_sizes,
        "bulk": _measure_bulk,
    }
    for name, measure in phases.items():
        try:
            await measure(driver, found)
        except _Broken:
            found.broken_at = name
            return found
    if idle_s:
        cut_s = await driver.stay_silent(idle_s)
        found.idle_s, found.cut = cut_s or idle_s, cut_s > 0
    return found


async def _measure_rounds(driver: _Driver, found: worker_pb2.ProbeNetworkResponse) -> None:
    rounds = [await driver.ask() for _ in range(ROUNDS)]
    times_ms = [(each.back_us - each.sent_us) / 1000 for each in rounds]
    found.rtt_ms, found.worst_rtt_ms = median(times_ms), max(times_ms)


async def _measure_pace(driver: _Driver, found: worker_pb2.ProbeNetworkResponse) -> None:
    """See whether small messages that are sent apart come apart: what buffers lets them come together."""
    taking = asyncio.ensure_future(_take_all(driver, PACED))
    try:
        sent = []
        for _ in range(PACED):
            sent.append(await driver.send())
            await asyncio.sleep(PACE_S)
        crossings = [Crossing(sent_us, *times) for sent_us, times in zip(sent, await taking, strict=True)]
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    out = [each.at_us - each.sent_us for each in crossings]
    back = [each.back_us - each.at_us for each in crossings]
    found.held_out_ms, found.held_back_ms = ((max(each) - min(each)) / 1000 for each in (out, back))


async def _measure_sizes(driver: _Driver, found: worker_pb2.ProbeNetworkResponse) -> None:
    for size in SIZES:
        await driver.ask(padding=size)
        found.largest_out = size
    for size in SIZES:
        await driver.ask(answer=size)
        found.largest_back = size


async def _measure_bulk(driver: _Driver, found: worker_pb2.ProbeNetworkResponse) -> None:
    found.out_per_s = await _rate(driver, padding=LARGEST)
    found.back_per_s = await _rate(driver, answer=LARGEST)


async def _rate(driver: _Driver, *, padding: int = 0, answer: int = 0) -> float:
    """Return how many bytes cross each second while some of the largest messages are on their way."""
    begun_s, n_sent, n_taken = time.monotonic(), 0, 0
    while n_sent == 0 or (n_sent < BULK and time.monotonic() - begun_s < BULK_S):
        await driver.send(padding, answer)
        n_sent += 1
        if n_sent - n_taken == IN_FLIGHT:
            await driver.take()
            n_taken += 1
    for _ in range(n_sent - n_taken):
        await driver.take()
    return n_sent * (padding + answer) / (time.monotonic() - begun_s)


async def _take_all(driver: _Driver, count: int) -> list[tuple[int, int]]:
    return [await driver.take() for _ in range(count)]


def _now_us() -> int:
    return time.monotonic_ns() // 1000
