"""What the way between this party's gateway and a peer's is like, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.config import load_party
from fedtasks.errors import FedtasksError
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import worker_pb2

PATIENCE_S = 3.0
"""How long this party's gateway may take to answer."""

FAR_MS = 150.0
"""A round trip beyond this is felt wherever halves wait for each other often."""

HELD_MS = 300.0
"""By so much later than others no small message comes where nothing buffers, beside what the round trips vary."""

SLOW_PER_S = 2e6
"""Below so many bytes a second transfers take longer than what is computed on them."""

WHOLE = 1 << 20
"""A message of this size must come through: that is what halves send."""

_PASS = "Let the proxy pass TLS through unread (NGINX: `stream` with `ssl_preread`)"


def examine_network(party_file: Path, peer: str, idle_s: int) -> Iterator[Finding]:
    """Measure the way to a peer's gateway and back, over both gateways, and say what is wrong and what mends it.

    Parameters
    ----------
    party_file
        Path of party.yaml.
    peer
        Whose gateway.
    idle_s
        How long a stream is to be silent, to see whether something on the way cuts it.

    Notes
    -----
    Reveals: to the peer, that somebody measures.
    Cost: the silence, some seconds, and at most 16 MiB in either direction.
    """
    try:
        party = load_party(party_file)
        with GatewayClient.of(party, patience_s=PATIENCE_S) as client:
            found = client.probe_network(peer, idle_s)
    except FedtasksError as error:
        yield wrong(f"way to {peer}", error)
        return
    yield from network_findings(found, party.name, peer)


def network_findings(found: worker_pb2.ProbeNetworkResponse, party: str, peer: str) -> Iterator[Finding]:
    """Yield what a measurement says.

    Parameters
    ----------
    found
        What was measured.
    party, peer
        This party, and the other one.
    """
    dialler, other = (party, peer) if found.dialled else (peer, party)
    yield Finding("stream", Verdict.OK, f"{dialler} has dialled {other}; a stream of its own was opened")
    ways = {"out": f"{party} → {peer}", "back": f"{peer} → {party}"}
    if found.rtt_ms:
        yield _round_trip(found)
    if found.held_out_ms or found.held_back_ms:
        for way, held_ms in (("out", found.held_out_ms), ("back", found.held_back_ms)):
            yield _held(ways[way], held_ms, found)
    if found.largest_out:
        for way, largest in (("out", found.largest_out), ("back", found.largest_back)):
            yield _large(ways[way], largest)
    for way, per_s in (("out", found.out_per_s), ("back", found.back_per_s)):
        if per_s:
            yield _bandwidth(ways[way], per_s)
    if found.broken_at:
        text = f"it broke, or no answer came, at: {found.broken_at}"
        yield Finding("stream", Verdict.WRONG, text, f"Look for a proxy or a firewall between both gateways. {_PASS}")
    elif found.cut:
        text = f"a stream was cut after {found.idle_s:.0f} s of silence; sessions go on in new ones, a little later"
        remedy = "Let the proxy wait an hour (NGINX: `proxy_timeout`, or `grpc_read_timeout` and `grpc_send_timeout`)"
        yield Finding("silence", Verdict.WARNING, text, remedy)
    elif found.idle_s:
        yield Finding("silence", Verdict.OK, f"a stream that was silent for {found.idle_s:.0f} s goes on")


def _round_trip(found: worker_pb2.ProbeNetworkResponse) -> Finding:
    text = f"{found.rtt_ms:.1f} ms, at worst {found.worst_rtt_ms:.1f} ms"
    if found.rtt_ms <= FAR_MS:
        return Finding("round trip", Verdict.OK, text)
    remedy = "Let halves exchange less often: larger batches, and local steps of a split network"
    return Finding("round trip", Verdict.WARNING, text, remedy)


def _held(way: str, held_ms: float, found: worker_pb2.ProbeNetworkResponse) -> Finding:
    subject = f"small messages {way}"
    if held_ms <= HELD_MS + 2 * (found.worst_rtt_ms - found.rtt_ms):
        return Finding(subject, Verdict.OK, f"come as they are sent, within {held_ms:.0f} ms")
    text = f"some come {held_ms:.0f} ms later than others: something on the way buffers, or the line is busy"
    return Finding(subject, Verdict.WARNING, text, f"{_PASS}; else turn its buffering off")


def _large(way: str, largest: int) -> Finding:
    subject = f"large messages {way}"
    if largest >= WHOLE:
        return Finding(subject, Verdict.OK, f"of {_size(largest)} come through")
    remedy = f"{_PASS}; else let it take messages of 1 MiB (NGINX: `client_max_body_size 0`)"
    text = f"of more than {_size(largest)} do not come through" if largest else "do not come through"
    return Finding(subject, Verdict.WRONG, text, remedy)


def _bandwidth(way: str, per_s: float) -> Finding:
    text = f"{per_s / 1e6:.1f} MB/s"
    if per_s >= SLOW_PER_S:
        return Finding(f"bandwidth {way}", Verdict.OK, text)
    remedy = "Ask for more, or for no inspection of this traffic; nothing is wrong, but transfers take long"
    return Finding(f"bandwidth {way}", Verdict.WARNING, text, remedy)


def _size(n_bytes: int) -> str:
    return f"{n_bytes >> 20} MiB" if n_bytes >= 1 << 20 else f"{n_bytes >> 10} KiB"
