"""Errors found by their codes, as the log, the wire and the store name them."""

from __future__ import annotations

from collections.abc import Iterator

from fedtasks.errors.base import FedtasksError
from fedtasks.errors.peers import PeerFailed


def leaves(root: type[FedtasksError] = FedtasksError) -> Iterator[type[FedtasksError]]:
    """Yield every error class that has a code of its own, in the order of definition."""
    if root.code:
        yield root
    for child in root.__subclasses__():
        yield from leaves(child)


def from_code(code: str, detail: str = "", *, where: str = "") -> FedtasksError:
    """Rebuild an error from its code, as read from the wire, the store or a process.

    An unknown code (a newer peer) becomes `PeerFailed` with the code in its text, never an exception of its own.
    """
    for leaf in leaves():
        if leaf.code == code:
            return leaf(detail, where=where)
    return PeerFailed(f"{code}: {detail}" if detail else code, where=where)
