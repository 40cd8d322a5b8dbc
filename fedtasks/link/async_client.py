"""This party's gateway as triggers watch it, many in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import grpc

from fedtasks.config import Party
from fedtasks.errors import FedtasksError, GatewayUnreachable
from fedtasks.link.doorway import Doorway, WorkerSide
from fedtasks.link.patience import Patience, with_address
from fedtasks.link.status import SECRET, from_rpc_error
from fedtasks.wire.v1 import run_pb2, worker_pb2, worker_pb2_grpc

OPENING_TIMEOUT_S = 60.0
"""How long a gateway may take to say whether it is worth asking again; it answers within a third of that."""


class AsyncGatewayClient:
    """Watches tasks without a thread, for a trigger; one for each event loop.

    Parameters
    ----------
    side
        As for `GatewayClient`.
    patience_s, store_patience_s
        How long a watch tries to reach a gateway that does not answer, and one whose store is away.
    """

    def __init__(self, side: WorkerSide, *, patience_s: float = 600.0, store_patience_s: float | None = None) -> None:
        self.address = side.address
        self._metadata = ((SECRET, side.secret),)
        self._patience_s, self._store_patience_s = patience_s, store_patience_s
        self._doorway = Doorway(side, grpc.aio)

    @classmethod
    def of(cls, party: Party, *, patience_s: float = 600.0) -> Self:
        """Make the client of a party's own gateway; raise `ConfigError` when the secret cannot be read."""
        store_patience_s = max(patience_s, party.store.patience_s)
        return cls(WorkerSide.of(party), patience_s=patience_s, store_patience_s=store_patience_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self._doorway.aclose()

    async def watch(self, run_id: str, task: str) -> AsyncIterator[run_pb2.Meeting]:
        """Yield the meeting now and at every change, for ever; goes on over restarts of gateway and store.

        Raises
        ------
        RunUnknown, SecretRejected
            The gateway refuses the watch.
        GatewayUnreachable, StoreUnavailable
            The gateway did not answer within `patience_s`, or its store was away for `store_patience_s`.
        """
        request = worker_pb2.WatchTaskRequest(run_id=run_id, task=task)
        patience = Patience(self._patience_s, self._store_patience_s)
        while True:
            try:
                channel = self._doorway.channel()
            except GatewayUnreachable as unreachable:
                await asyncio.sleep(patience.next_delay(unreachable))
                continue
            call = worker_pb2_grpc.WorkerGatewayStub(channel).WatchTask(request, metadata=self._metadata)
            try:
                async for response in call:
                    patience.renew()
                    yield response.meeting
                failure: FedtasksError = GatewayUnreachable("the gateway ended the watch", where=self.address)
            except grpc.aio.AioRpcError as error:
                failure = with_address(from_rpc_error(error), self.address)
            finally:
                call.cancel()
            await asyncio.sleep(patience.next_delay(failure))

    async def await_opening(self, **place: str) -> bool:
        """Return whether it is worth asking again for a run, at once or after a while; waits for the gateway too.

        Parameters
        ----------
        **place
            ``dag_id``, ``dag_run_id`` and ``pipeline``.

        Raises
        ------
        SecretRejected, VersionDiffers
            The gateway refuses the call, or does not know it.
        GatewayUnreachable
            The gateway did not answer within `patience_s`.
        """
        request = worker_pb2.AwaitOpeningRequest(**place)
        patience = Patience(self._patience_s)
        while True:
            try:
                stub = worker_pb2_grpc.WorkerGatewayStub(self._doorway.channel())
                response = await stub.AwaitOpening(request, metadata=self._metadata, timeout=OPENING_TIMEOUT_S)
                return bool(response.is_due)
            except GatewayUnreachable as unreachable:
                failure: FedtasksError = unreachable
            except grpc.aio.AioRpcError as error:
                failure = with_address(from_rpc_error(error), self.address)
            await asyncio.sleep(patience.next_delay(failure))
