"""Two links that meet through a relay, and two functions that run side by side."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedtasks.link.client import GatewayClient
from fedtasks.link.conversation import WINDOW
from fedtasks.link.grpc_link import GrpcLink
from tests.support.relay import Relay

LIMIT_S = 60.0


def both(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Run two functions in two threads; return what they returned, or raise what the first to fail raised."""
    results: list[Any] = [None, None]
    errors: list[BaseException] = []

    def run(place: int, work: Callable[[], Any]) -> None:
        try:
            results[place] = work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a half hangs"
    return results[0], results[1]


def open_half(client: GatewayClient, name: str, facts: Mapping[str, str] | None = None, **options: Any) -> GrpcLink:
    """Meet the other half of a task that needs no description."""
    values: dict[str, Any] = {"run_id": "retrain.2026-11-21.1", "task": "train", "shard": 0, "attempt": 1, **options}
    return GrpcLink(client, peer="b" if name == "a" else "a", facts=facts or {}, **values)


@contextlib.contextmanager
def relayed_pair(
    relay: Relay,
    *,
    facts_a: Mapping[str, str] | None = None,
    facts_b: Mapping[str, str] | None = None,
    window: int = WINDOW,
    **options: Any,
) -> Iterator[tuple[GrpcLink, GrpcLink]]:
    """Two links through `relay`, hung up at the end if they were not closed."""
    with GatewayClient(relay.side) as client_a, GatewayClient(relay.side) as client_b:
        a, b = both(
            lambda: open_half(client_a, "a", facts_a, window=window, **options),
            lambda: open_half(client_b, "b", facts_b, window=window, **options),
        )
        try:
            yield a, b
        finally:
            a.abort()
            b.abort()
