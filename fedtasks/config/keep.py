"""How long a party keeps what runs have left."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from fedtasks.errors import ConfigError

_MOST_DAYS = 36_500
_LEAST_AUDIT_DAYS = 90


@dataclass(frozen=True)
class Keep:
    """How many days what runs have left stays before ``fedtasks gc`` removes it; what is in use stays whatever its age.

    Parameters
    ----------
    runs_days
        Files of a run, from its end on, and why a DAG run came to no run.
    attempts_days
        Of a run that has ended, the files of attempts in whose place another one counts.
    models_days
        This party's half of a version of a model that is not in use, from its publication on.
    joined_days
        Blocks of joined streams, from their commit on, as far as the models in use have learnt from them.
    tags_days
        Tags of ids that were remembered, from the last intersection that has used them on.
    curves_days
        Metrics of runs step by step, from the end of the run on, and counts of joined streams by window.
    audit_days
        Decisions of the audit; by default all stay.
    """

    runs_days: int = 90
    attempts_days: int = 7
    models_days: int = 365
    joined_days: int = 90
    tags_days: int = 180
    curves_days: int = 365
    audit_days: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            days, least = getattr(self, each.name), _LEAST_AUDIT_DAYS if each.name == "audit_days" else 1
            if days is not None and not least <= days <= _MOST_DAYS:
                raise ConfigError(f"it stays for {least} to {_MOST_DAYS} days, not {days}", field=each.name)

    def at_most(self, days: int) -> Keep:
        """Return the same, but nothing stays for longer than so many days, except for the audit."""
        names = [each.name for each in fields(self) if each.name != "audit_days"]
        return replace(self, **{name: min(days, getattr(self, name)) for name in names})
