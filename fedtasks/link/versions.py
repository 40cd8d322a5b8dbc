"""Ranges of protocol versions: which one two sides use, and what both are told when there is none."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.errors import VersionDiffers


@dataclass(frozen=True)
class Speaks:
    """What one side speaks.

    Parameters
    ----------
    party
        Its name.
    release
        Its release of fedtasks; empty if it does not say.
    first, last
        The lowest and the highest version.
    """

    party: str
    release: str
    first: int
    last: int

    def said(self, protocol: str) -> str:
        """Return it in words; `protocol` says what the versions are of."""
        spoken = str(self.first) if self.first == self.last else f"{self.first} to {self.last}"
        return f"{self.party} {self.release or 'of an unnamed release'} with {protocol} {spoken}"


def highest_common(ours: Speaks, theirs: Speaks, protocol: str) -> int:
    """Return the highest version that both sides speak.

    Parameters
    ----------
    ours, theirs
        What each of them speaks.
    protocol
        What the versions are of, for the error.

    Raises
    ------
    VersionDiffers
        There is none. It names both releases and who is behind, in words that are true on either side.
    """
    version = min(ours.last, theirs.last)
    if version >= max(ours.first, theirs.first):
        return version
    releases = f"{ours.said(protocol)}, {theirs.said(protocol)}"
    behind = (theirs if theirs.last < ours.first else ours).party
    raise VersionDiffers(f"{releases}: {behind} must upgrade", releases=releases, upgrade=behind)
