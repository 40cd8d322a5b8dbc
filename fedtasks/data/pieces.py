"""The pieces that a stream is read in, and can be read again by."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.config import Dataset


@dataclass(frozen=True, slots=True)
class Range:
    """Messages of one partition of a topic: from an offset to before another."""

    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of a folder that grows, or a range of the messages of a topic.

    Parameters
    ----------
    number
        Its number among the pieces of the stream, counted from 0 in the order in which they were found.
    name
        Of a file: its path below the dataset's `uri`, empty where that is the file itself.
    size_bytes, modified_ms
        Of a file: how large it was when it was found, and when it had last been changed.
    ranges
        Of a topic: its messages, partition by partition.
    """

    number: int
    name: str
    size_bytes: int
    modified_ms: int
    ranges: tuple[Range, ...] = ()


def uri_of(dataset: Dataset, piece: Piece) -> str:
    """Return the URI of a piece that is a file."""
    root = dataset.uri.rstrip("/")
    return f"{root}/{piece.name}" if piece.name else root
