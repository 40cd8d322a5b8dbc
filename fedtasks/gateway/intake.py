"""The one way in for what peers ask: bounded, paced, answered, and accounted for when it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fedtasks.clock import Clock
from fedtasks.errors import CallsExceeded, FedtasksError, GatewayFailed
from fedtasks.gateway.bounds import Head, check_names, check_shape, facts_of, parse
from fedtasks.gateway.bucket import Bucket
from fedtasks.gateway.fair_threads import CALLER
from fedtasks.gateway.ledger import Ledger
from fedtasks.wire.v1 import failure_pb2, peer_pb2

log = logging.getLogger(__name__)

MAX_CALLS = 256
"""So many calls of one peer may be open at once: its conversation, and a session for each pair of workers."""

MAX_STRANGERS = 64
"""So many calls of strangers, who have a certificate of a known authority, all of them together."""

STRANGER = "a stranger"
"""Under this name they are audited."""

SLOW_S = 0.25
"""How long a refusal waits that is too frequent to be written in full."""

_BURST, _PER_S = 500.0, 100.0
"""The tokens of a peer's bucket, and those that come back each second."""

_COSTS = {"lookup": 0.1, "session.open": 5.0, "peer.connect": 20.0, "probe": 20.0, "probe.open": 20.0}
"""What a request or a call costs that does not cost one token. Lookups are counted against a ticket besides."""

_PER_BYTE, _FIELDS_FREE, _PER_FIELD = 1 / 4096, 64, 0.6
"""What long requests cost besides: news of the largest run pass every twelve seconds, those of a small one at once."""

Dispatch = Callable[[str, peer_pb2.Envelope], Awaitable[peer_pb2.Envelope]]


class Intake:
    """Lets what peers ask pass, one request at a time or one call at a time.

    Parameters
    ----------
    ledger
        Accounts for refusals.
    dispatch
        Answers a request that is within its bounds.
    clock
        The gateway's clock.

    Notes
    -----
    Cost: a request is looked at before it is parsed and its names before anything is looked up. Each peer has a bucket
    of its own, so a peer that asks too often waits for itself alone.
    """

    def __init__(self, ledger: Ledger, dispatch: Dispatch, clock: Clock) -> None:
        self._ledger, self._dispatch, self._clock = ledger, dispatch, clock
        self._buckets: dict[str, Bucket] = {}
        self._calls: Counter[str] = Counter()

    async def answer(self, peer: str, head: Head) -> peer_pb2.Envelope:
        """Answer one request of a peer; a refusal is an answer too.

        Parameters
        ----------
        peer
            Who asks, by its certificate.
        head
            The request, not parsed yet.
        """
        CALLER.set(peer)
        envelope = None
        try:
            await self._pace(peer, _COSTS.get(head.kind, 1.0) + len(head.body) * _PER_BYTE)
            await self._pace(peer, max(0, check_shape(head) - _FIELDS_FREE) * _PER_FIELD)
            envelope = parse(head)
            check_names(envelope)
            return await self._dispatch(peer, envelope)
        except Exception as error:
            action, facts = facts_of(head, envelope)
            told = await self.refuse(peer, action, error, **facts)
            failure = failure_pb2.Failure(code=told.code, text=told.public, retry_at_ms=told.retry_at_ms)
            return peer_pb2.Envelope(failure=failure)

    @property
    def calls(self) -> Counter[str]:
        """How many calls each caller has open."""
        return self._calls.copy()

    @contextlib.asynccontextmanager
    async def call(self, caller: str, action: str) -> AsyncIterator[None]:
        """Count a call as open.

        Raises
        ------
        CallsExceeded
            The caller has too many.
        """
        CALLER.set(caller)
        most = MAX_STRANGERS if caller == STRANGER else MAX_CALLS
        if self._calls[caller] >= most:
            error = CallsExceeded(most=most)
            await asyncio.to_thread(self._ledger.refuse, caller, action, error, peer=caller)
            raise error
        self._calls[caller] += 1
        try:
            yield
        finally:
            self._calls[caller] -= 1

    @contextlib.asynccontextmanager
    async def opening(self, caller: str, action: str, **facts: Any) -> AsyncIterator[dict[str, Any]]:
        """Let a call begin at its caller's pace; a refusal is accounted for and raised as an error of the registry.

        Yields
        ------
        dict
            What is told of a refusal; more may be added.
        """
        try:
            await self._pace(caller, _COSTS[action])
            yield facts
        except Exception as error:
            raise await self.refuse(caller, action, error, **facts) from error

    async def refuse(self, caller: str, action: str, error: Exception, **facts: Any) -> FedtasksError:
        """Account for a refusal; returns, late if there are too many, what the caller is told."""
        told = error if isinstance(error, FedtasksError) else GatewayFailed()
        if told is not error:
            facts["error"] = type(error).__name__
        if await asyncio.to_thread(self._ledger.refuse, caller, action, told, peer=caller, **facts):
            log.warning("%s of %s is refused: %s", action, caller, told, exc_info=None if told is error else error)
        else:
            await asyncio.sleep(SLOW_S)
        return told

    async def _pace(self, caller: str, cost: float) -> None:
        wait_s = self._buckets.setdefault(caller, Bucket(_BURST, _PER_S, self._clock)).reserve(cost)
        if wait_s:
            await asyncio.sleep(wait_s)
