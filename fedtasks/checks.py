"""What a check has found, and what mends it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fedtasks.errors import FedtasksError


class Verdict(enum.Enum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    WRONG = "wrong"

    @property
    def sign(self) -> str:
        """Icon and word."""
        icon = {Verdict.OK: "✔", Verdict.NOTE: "·", Verdict.WARNING: "!", Verdict.WRONG: "✘"}[self]
        return f"{icon} {self.value}"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Parameters
    ----------
    subject
        What was looked at.
    verdict
        How it is.
    text
        What was found.
    remedy
        What mends it, empty when nothing needs mending.
    """

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


def wrong(subject: str, error: FedtasksError) -> Finding:
    """Make a finding of an error of the registry."""
    what = f"{error.code}: {error.detail or error.public}"
    return Finding(subject, Verdict.WRONG, f"{what} [{error.where}]" if error.where else what, error.advice())
