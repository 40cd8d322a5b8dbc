"""What a capture of a wire shows: the bytes of each direction of each TCP connection, and whether they are TLS."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SYN = 0x02
_HEADERS = {1: 14, 113: 16, 276: 20}
"""Kind of link → the length of its header: Ethernet, and Linux's `any` in both versions."""
_TLS_RECORDS = range(20, 24)
_MOST_IN_A_RECORD = (1 << 14) + 256


@dataclass
class Direction:
    """What one end of a connection has sent to the other."""

    source: tuple[str, int]
    target: tuple[str, int]
    begins: int = -1
    parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """What was sent, from the first byte to the first that the capture lacks."""
        found = bytearray()
        for at in sorted(self.parts):
            part = self.parts[at]
            if at > len(found):
                break
            found += part[len(found) - at :]
        return bytes(found)


def directions(capture: Path) -> list[Direction]:
    """Return every direction of every connection whose begin a file of tcpdump has, with what was sent in it."""
    found: dict[tuple[tuple[str, int], tuple[str, int]], Direction] = {}
    for source, target, sequence, flags, payload in _segments(capture.read_bytes()):
        one = found.setdefault((source, target), Direction(source, target))
        if flags & _SYN:
            one.begins = sequence + 1
        elif payload and one.begins >= 0:
            one.parts.setdefault((sequence - one.begins) % (1 << 32), payload)
    return [one for one in found.values() if one.begins >= 0 and one.parts]


def tls_records(data: bytes) -> dict[int, int]:
    """Return how many TLS records of each type stand in `data`, of which the last may be cut off.

    Raises
    ------
    AssertionError
        Something else stands there; says where.
    """
    counts: dict[int, int] = defaultdict(int)
    at = 0
    while at + 5 <= len(data):
        kind, version, length = struct.unpack_from(">BHH", data, at)
        is_record = kind in _TLS_RECORDS and version in (0x0301, 0x0303) and length <= _MOST_IN_A_RECORD
        assert is_record, f"at byte {at} there is no TLS record but {data[at : at + 16]!r}"
        counts[kind] += 1
        at += 5 + length
    return counts


def _segments(data: bytes) -> Iterator[tuple[tuple[str, int], tuple[str, int], int, int, bytes]]:
    header = _HEADERS[struct.unpack_from("<I", data, 20)[0]]
    at = 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        packet = data[at + 16 + header : at + 16 + length]
        at += 16 + length
        if not packet or packet[0] >> 4 != 4 or packet[9] != 6:
            continue
        ends = 4 * (packet[0] & 15)
        total = struct.unpack_from(">H", packet, 2)[0]
        source_port, target_port, sequence = struct.unpack_from(">HHI", packet, ends)
        begins = ends + 4 * (packet[ends + 12] >> 4)
        source, target = (".".join(map(str, packet[place : place + 4])) for place in (12, 16))
        yield (source, source_port), (target, target_port), sequence, packet[ends + 13], packet[begins:total]
