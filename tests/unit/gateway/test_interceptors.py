"""Calls of every kind through a real gRPC server: what their methods raise reaches the caller as a status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from fedtasks.errors import ConfigError, FedtasksError, SecretRejected
from fedtasks.gateway import interceptors
from fedtasks.gateway.interceptors import SecretInterceptor, StatusInterceptor, raw_handler
from fedtasks.link.status import SECRET, from_rpc_error

WRONG = ConfigError("row 3 of loans.csv", field="epochs")


async def unary(_: bytes, __: Any) -> bytes:
    raise WRONG


async def stream(_: bytes, __: Any) -> AsyncIterator[bytes]:
    yield b"first"
    raise WRONG


async def conversation(_: Any, context: Any) -> None:
    await context.write(b"first")
    await context.read()
    raise WRONG


async def _given_up(answer: Callable[[], Awaitable[None]]) -> None:
    """End a conversation while the first thing that it says is under way, as a relay does whose run has ended."""
    saying = asyncio.ensure_future(answer())
    await asyncio.sleep(0)
    saying.cancel()
    await asyncio.wait({saying})
    raise WRONG


async def written(_: Any, context: Any) -> None:
    await _given_up(lambda: context.write(b"first"))


async def written_again(_: Any, context: Any) -> None:
    await context.write(b"first")
    await _given_up(lambda: context.write(b"first"))


async def ended(_: Any, context: Any) -> None:
    with contextlib.suppress(ConfigError):
        await _given_up(lambda: context.write(b"first"))


async def announced(_: Any, context: Any) -> None:
    await _given_up(lambda: context.send_initial_metadata((("said", "first"),)))


async def broken(_: bytes, __: Any) -> bytes:
    raise KeyError("row 3 of loans.csv")


async def well(request: bytes, _: Any) -> bytes:
    return request


HANDLERS = {
    "unary": grpc.unary_unary_rpc_method_handler(unary),
    "stream": grpc.unary_stream_rpc_method_handler(stream),
    "broken": grpc.unary_unary_rpc_method_handler(broken),
    "well": grpc.unary_unary_rpc_method_handler(well),
}

BEGUN = {"Written": written, "Again": written_again, "Announced": announced, "Ended": ended}

Call = Callable[[grpc.aio.Channel, Any], Any]


async def call_unary(channel: grpc.aio.Channel, metadata: Any) -> None:
    await channel.unary_unary("/s/unary")(b"?", metadata=metadata)


async def call_broken(channel: grpc.aio.Channel, metadata: Any) -> None:
    await channel.unary_unary("/s/broken")(b"?", metadata=metadata)


async def call_stream(channel: grpc.aio.Channel, metadata: Any) -> None:
    async for answer in channel.unary_stream("/s/stream")(b"?", metadata=metadata):
        assert answer == b"first"


async def call_session(channel: grpc.aio.Channel, metadata: Any) -> None:
    call = channel.stream_stream("/t/Session")(metadata=metadata)
    assert await call.read() == b"first"
    await call.write(b"?")
    await call.read()


async def call_well(channel: grpc.aio.Channel, metadata: Any) -> None:
    assert await channel.unary_unary("/s/well")(b"?", metadata=metadata) == b"?"


CALLS = [call_unary, call_stream, call_session]


def called(call: Call, *interceptors: grpc.aio.ServerInterceptor, secret: str = "") -> grpc.aio.AioRpcError | None:
    """Return the status that a call to a server with these interceptors ends with, None if it ends well."""

    async def serve() -> grpc.aio.AioRpcError | None:
        server = grpc.aio.server(interceptors=interceptors)
        handlers = grpc.method_handlers_generic_handler("s", HANDLERS)
        server.add_generic_rpc_handlers((handlers, raw_handler("t", Session=conversation, **BEGUN)))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await call(channel, ((SECRET, secret),))
        except grpc.aio.AioRpcError as error:
            return error
        finally:
            await server.stop(None)
        return None

    return asyncio.run(serve())


def raised(*arguments: Any, **keywords: Any) -> FedtasksError:
    status = called(*arguments, **keywords)
    assert status is not None
    return from_rpc_error(status)


@pytest.mark.parametrize("call", CALLS)
def test_error_reaches_a_worker_with_its_detail(call: Call) -> None:
    error = raised(call, StatusInterceptor(shows_detail=True))
    assert isinstance(error, ConfigError)
    assert (error.detail, error.fields) == (WRONG.detail, WRONG.fields)


@pytest.mark.parametrize("name", BEGUN)
def test_end_reaches_the_caller_of_a_conversation_that_has_just_begun_to_speak(name: str) -> None:
    async def begin(channel: grpc.aio.Channel, metadata: Any) -> None:
        async with asyncio.timeout(20):
            async for frame in channel.stream_stream(f"/t/{name}")(metadata=metadata):
                assert frame == b"first"

    status = called(begin, StatusInterceptor(shows_detail=True))
    if name == "Ended":
        assert status is None
    else:
        assert status is not None
        assert isinstance(from_rpc_error(status), ConfigError)


def test_call_whose_caller_takes_nothing_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "BEGIN_S", 0.2)

    class Silent:
        """A call of which nothing is ever read."""

        async def write(self, _: bytes) -> None:
            await asyncio.Event().wait()

        async def abort(self, *status: Any) -> None:
            raise grpc.aio.AbortError(status)

    async def end() -> None:
        handler = grpc.stream_stream_rpc_method_handler(written)

        async def found(_: Any) -> Any:
            return handler

        guarded = await StatusInterceptor(shows_detail=True).intercept_service(found, None)
        async with asyncio.timeout(10):
            await guarded.stream_stream(None, Silent())

    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(end())


@pytest.mark.parametrize("call", CALLS)
def test_error_reaches_a_peer_without_its_detail(call: Call) -> None:
    status = called(call, StatusInterceptor(shows_detail=False))
    assert status is not None
    assert from_rpc_error(status).detail == WRONG.public
    assert "loans.csv" not in repr(status)


@pytest.mark.parametrize("shows_detail", [True, False])
def test_error_that_nobody_foresaw_is_in_the_log_and_not_in_the_status(
    shows_detail: bool, caplog: pytest.LogCaptureFixture
) -> None:
    status = called(call_broken, StatusInterceptor(shows_detail=shows_detail))
    assert status is not None
    assert status.code() is grpc.StatusCode.INTERNAL
    assert "loans.csv" not in repr(status)
    assert "loans.csv" in caplog.text


def only_right(secret: str, _: str) -> str:
    if secret != "right":
        raise SecretRejected
    return "worker"


@pytest.mark.parametrize("call", CALLS)
def test_caller_with_a_wrong_secret_is_refused_before_its_method_begins(call: Call) -> None:
    async def begin(channel: grpc.aio.Channel, metadata: Any) -> None:
        if call is call_session:
            await channel.stream_stream("/t/Session")(metadata=metadata).read()
        else:
            await call(channel, metadata)

    error = raised(begin, StatusInterceptor(shows_detail=True), SecretInterceptor(only_right), secret="wrong")
    assert isinstance(error, SecretRejected)


def test_caller_with_the_secret_is_answered() -> None:
    assert (
        called(call_well, StatusInterceptor(shows_detail=True), SecretInterceptor(only_right), secret="right") is None
    )
