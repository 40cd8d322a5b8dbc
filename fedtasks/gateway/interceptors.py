"""What every call of a service passes first: the worker's secret is checked, and errors become gRPC statuses."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from fedtasks.config.workers import SHARED
from fedtasks.errors import FedtasksError, GatewayFailed
from fedtasks.link.status import SECRET, to_abort
from fedtasks.store import ACTING

log = logging.getLogger(__name__)

BEGIN_S = 20.0
"""How long the end of a call waits for a caller to take the first answer."""

Context: TypeAlias = grpc.aio.ServicerContext
Method = Callable[[Any, Context], Any]

_KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., grpc.RpcMethodHandler]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""(request streams, response streams) → the name of a handler's method, and what makes such a handler."""


class WholeCall:
    """A call whose first answer goes out whole, also where whoever gives it is cancelled.

    Parameters
    ----------
    context
        The call.

    Notes
    -----
    With the first answer gRPC sends the call's metadata, and notes that it has once that is done. Where it is not
    awaited to its end, a status that follows would bring the metadata a second time: gRPC refuses that, the caller is
    told nothing, and waits for ever.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._first: asyncio.Future[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Tell something ahead of the first message."""
        await self._answer(self._context.send_initial_metadata, metadata)

    async def write(self, message: Any) -> None:
        """Send a message."""
        await self._answer(self._context.write, message)

    async def _answer(self, give: Callable[[Any], Awaitable[None]], answer: Any) -> None:
        if self._first is None:
            self._first = asyncio.ensure_future(give(answer))
            # Who was cancelled does not ask how it went; the call itself tells everybody else.
            self._first.add_done_callback(lambda first: first.cancelled() or first.exception())
            await asyncio.shield(self._first)
        else:
            await self.wait_begun()
            await give(answer)

    async def wait_begun(self) -> None:
        """Wait until the first answer is out, if one was given: no status may be sent before that.

        A caller that takes nothing for `BEGIN_S` is told nothing.
        """
        if self._first is not None and not self._first.done():
            await asyncio.wait({self._first}, timeout=BEGIN_S)


class StatusInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends a call whose method raises with the gRPC status that stands for the error.

    Parameters
    ----------
    shows_detail
        The callers are of this party and see an error's detail; a peer sees its public text alone.

    Notes
    -----
    Reveals: of an error that is not of the registry, nothing but that there was one; the log has it.
    """

    def __init__(self, *, shows_detail: bool) -> None:
        self._shows_detail = shows_detail

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Return the call's handler with its method guarded; None where there is no such method."""
        handler = await continuation(details)
        return handler and _with_method(handler, self._guarded)

    def _guarded(self, method: Method) -> Method:
        async def answer(request: Any, context: Context) -> Any:
            call = WholeCall(context)
            async with self._translating(context):
                try:
                    return await method(request, call)
                finally:
                    await call.wait_begun()

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._translating(context):
                async for response in method(request, context):
                    yield response

        return stream if inspect.isasyncgenfunction(method) else answer

    @contextlib.asynccontextmanager
    async def _translating(self, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except FedtasksError as error:
            await context.abort(*to_abort(error, own=self._shows_detail))
        except Exception:
            if context.done():
                raise  # the stream died, nobody is there to be told
            log.exception("a call failed")
            await context.abort(*to_abort(GatewayFailed()))


class SecretInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets only callers in that present the secret of an identity, each to what it may do.

    Parameters
    ----------
    require
        Returns who presents a secret and calls a method; raises what answers a call that may not be (`Workers`).
    """

    def __init__(self, require: Callable[[str, str], str]) -> None:
        self._require = require

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Pass the call on as its caller's, or have it refused."""
        shown = dict(details.invocation_metadata).get(SECRET, "")
        handler = await continuation(details)
        if handler is None:
            return None
        try:
            name = self._require(shown, details.method.rpartition("/")[2])
        except FedtasksError as error:
            refuse = _refusal(error)
            return _with_method(handler, lambda _: refuse)
        ACTING.set("" if name == SHARED else name)
        return handler


def _refusal(error: FedtasksError) -> Method:
    async def refuse(_: Any, __: Context) -> None:
        raise error

    return refuse


def _with_method(handler: grpc.RpcMethodHandler, change: Callable[[Method], Method]) -> grpc.RpcMethodHandler:
    """Return a handler of the same kind with a changed method."""
    name, make = _KINDS[handler.request_streaming, handler.response_streaming]
    return make(change(getattr(handler, name)), handler.request_deserializer, handler.response_serializer)


def raw_handler(service: str, **methods: Callable[[Any, Context], Awaitable[None]]) -> grpc.GenericRpcHandler:
    """Serve methods as streams of raw bytes: nothing is parsed on the way."""
    handlers = {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()}
    return grpc.method_handlers_generic_handler(service, handlers)
