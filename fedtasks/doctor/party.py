"""Looks at everything that one party needs and says what is wrong, where, and what mends it.

Every check stands alone: what one finds, or trips over, keeps no other from looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.config import Party, load_party
from fedtasks.doctor import machine, services
from fedtasks.errors import ConfigError, FedtasksError

Check = Callable[[Party], Iterable[Finding]]

CHECK_PATIENCE_S = 10.0
"""How long a check may wait for a remote store: a task has more time than whoever sits before a screen."""


def examine(party_file: Path) -> Iterator[Finding]:
    """Check a party; yields findings as they come.

    Parameters
    ----------
    party_file
        Its party.yaml. If that does not load, that is the only finding.
    """
    try:
        party = load_party(party_file)
    except ConfigError as error:
        yield wrong("party.yaml", error)
        return
    yield Finding("party.yaml", Verdict.OK, f"{party.name}: {len(party.peers)} peers, {len(party.datasets)} datasets")
    for subject, check in (machine.CHECKS | services.CHECKS).items():
        yield from _guarded(subject, check, party)


def _guarded(subject: str, check: Check, party: Party) -> Iterator[Finding]:
    from fedtasks.data.patience import at_most

    try:
        with at_most(CHECK_PATIENCE_S):
            yield from check(party)
    except FedtasksError as error:
        yield wrong(subject, error)
    except ImportError as error:
        yield Finding(subject, Verdict.NOTE, f"not checked: {error.name} is not installed here")
    except Exception as error:  # a defect of one check is a finding too, and must not end the others
        yield Finding(subject, Verdict.WRONG, f"the check itself failed: {type(error).__name__}: {error}")
