"""What a pipeline would tell the other party and spend of a ticket, measured in a trial on sample data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fedtasks.authoring.trial import Tried
from fedtasks.label_budget import percent_of
from fedtasks.reports.ledger import Entry, ledger
from fedtasks.store import DisclosureRow


@dataclass(frozen=True)
class Plan:
    """What a run comes to.

    Parameters
    ----------
    leaves
        Party name → what it sends, and what the other learns of it.
    spends
        Limit of a ticket → party name → what a run of the sample's size spends of the ticket that bounds it.
    labels
        Party name → the AUC, in percent, up to which a run lets the other read its labels; whoever is not named tells
        nothing of them.
    """

    leaves: dict[str, list[Entry]]
    spends: dict[str, dict[str, int]]
    labels: dict[str, float] = field(default_factory=dict)


def plan_of(tried: Iterable[Tried]) -> Plan:
    """Sum what the steps of a trial sent and would have charged."""
    rows: dict[str, list[DisclosureRow]] = {}
    counts: dict[str, int] = {}
    spends: dict[str, dict[str, int]] = {}
    told: dict[str, dict[str, int]] = {}
    for step in tried:
        for party, side in step.sides.items():
            counts |= side.outcome["counts"]
            rows.setdefault(party, []).extend(
                DisclosureRow("trial", step.step, 1, name, sent.messages, sent.items, sent.bytes)
                for name, sent in side.sent.items()
            )
            for kind, amount in side.uses.items():
                of_party = spends.setdefault(kind, {})
                of_party[party] = of_party.get(party, 0) + amount
            told.setdefault(party, {}).update(side.labels_told)
    labels = {party: percent_of(sum(items.values())) for party, items in told.items() if items}
    leaves = {party: ledger(sent, 0, counts) for party, sent in rows.items()}
    return Plan(leaves, spends, labels)
