"""Looks at what one party needs, and at what its datasets hold, and says what is wrong and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedtasks.checks import Finding
from fedtasks.doctor.party import examine

__all__ = ["examine", "examine_data", "examine_network"]


def examine_data(party_file: Path, dataset: str = "", partition: str = "") -> Iterator[Finding]:
    """Look through the rows of datasets; see `fedtasks.doctor.datasets.examine_data`."""
    from fedtasks.data.lean import lean_imports

    with lean_imports():
        from fedtasks.doctor import datasets  # which imports arrays, that no other check needs
    return datasets.examine_data(party_file, dataset, partition)


def examine_network(party_file: Path, peer: str, idle_s: int) -> Iterator[Finding]:
    """Measure the way to a peer's gateway; see `fedtasks.doctor.network.examine_network`."""
    from fedtasks.doctor import network

    return network.examine_network(party_file, peer, idle_s)
