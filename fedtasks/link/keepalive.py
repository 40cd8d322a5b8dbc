"""How soon gRPC notices that the other end of a connection says nothing any more."""

from __future__ import annotations

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 4_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # While TCP acknowledges what is sent, the ping itself is waited for, and for a minute unless this says otherwise.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 3_000),
    ("grpc.http2.max_ping_strikes", 0),
)
"""Both ends of a connection over which calls are under way notice within ten seconds that the other one is silent:
hung, gone, or behind something that takes what it is sent and passes nothing on."""

ALWAYS = (*KEEPALIVE, ("grpc.keepalive_permit_without_calls", 1))
"""The same, also while no call is under way."""
