"""What peers were told of this party's labels, how much they may still be told, and what a run would tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedtasks.config import Party
from fedtasks.label_budget import ALL, epsilon_of, limit_of, millionths, percent_of, whole_percent_within
from fedtasks.store import Labels, LabelsTold, Store
from fedtasks.store.label_spends import refusal
from fedtasks.tickets import Grant, settings_of
from fedtasks.tickets.clauses import limit_of_labels


def labels_of(party: Party, peer: str, config: Mapping[str, Any]) -> Labels | None:
    """Return which labels of this party's a run is about, by its shared configuration; None if it has none in it."""
    named = config.get("datasets")
    name = named.get(party.name) if isinstance(named, Mapping) else None
    found = next((each for each in party.datasets if each.name == name), None)
    return Labels(peer, found.name, found.label) if found and found.label is not None else None


def limit_in(grant: Grant) -> int | None:
    """Return up to which AUC, in percent, a ticket lets labels be told over all runs; None is no limit."""
    clause = limit_of_labels()
    return None if clause is None else grant.bound(clause.name)


def require_budget(
    store: Store, labels: Labels | None, grant: Grant, config: Mapping[str, Any], step_kinds: Mapping[str, str]
) -> None:
    """Refuse a run that could not be trained to its end, before anything is spent on it.

    Parameters
    ----------
    store
        What was told before.
    labels, grant
        Who would be told of which labels, under which ticket; without labels of this party's, all is well.
    config, step_kinds
        The shared configuration of the run; step → its kind.

    Raises
    ------
    LabelLeakSpent
        What is left of the budget is less than the run's steps may tell.
    """
    percent = limit_in(grant)
    limit = limit_of(percent)
    if labels is None or limit is None:
        return
    asked = what_is_told(store, labels, config, step_kinds)
    if not asked:
        return
    spent = store.label_spends.total(labels)
    if spent + asked > limit:
        raise refusal(labels, spent=spent, asked=asked, percent=percent)


def what_is_told(store: Store, labels: Labels, config: Mapping[str, Any], step_kinds: Mapping[str, str]) -> int:
    """Return what a run's steps may tell of labels beyond what was told before, in millionths of a nat."""
    limiting = limit_of_labels()
    if limiting is None:
        return 0
    protecting, unbounded = limiting.waived_by
    by_step: dict[str, dict[str, Any]] = {}
    for each in settings_of(config, step_kinds):
        if each.is_declared and each.clause in (limiting.name, protecting):
            by_step.setdefault(each.step, {})[each.clause] = each.value
    told = 0
    for said in by_step.values():
        protection, percent = said.get(protecting), said.get(limiting.name)
        if protection is None or percent is None:
            continue
        tells = ALL if protection in unbounded else millionths(epsilon_of(percent / 100))
        # What is told once and for all is charged under the name of its protection. Whether it is told anew, as with
        # another secret, only the task knows, which asks before it tells.
        told += max(0, tells - store.label_spends.told_once(labels, protection))
    return min(told, ALL)


def label_reports(
    told: Iterable[LabelsTold], peer: str, datasets: Iterable[str] = (), grant: Grant | None = None
) -> list[dict[str, Any]]:
    """Return what a peer was told of each column of labels, and what a ticket leaves, in words and as AUCs in percent.

    Parameters
    ----------
    told
        What all peers were told.
    peer, datasets
        Who was told of which of this party's datasets; of all if none is named.
    grant
        The ticket that limits it.
    """
    named, percent = set(datasets), limit_in(grant) if grant else None
    return [
        _report(each, percent)
        for each in told
        if each.labels.peer == peer and (not named or each.labels.dataset in named)
    ]


def _report(told: LabelsTold, percent: int | None) -> dict[str, Any]:
    labels, limit = told.labels, limit_of(percent)
    left = None if limit is None else whole_percent_within(max(0, limit - told.epsilon))
    return {
        "dataset": labels.dataset,
        "label": labels.label,
        "told": percent_of(told.epsilon),
        "limit": percent,
        "left": left,
        "runs": told.runs,
        "last_ms": told.last_ms,
        "text": f"{in_words(told)}; {_left_in_words(percent, left)}",
    }


def in_words(told: LabelsTold) -> str:
    """Say what a peer was told of labels."""
    labels, percent = told.labels, percent_of(told.epsilon)
    by = "1 run" if told.runs == 1 else f"{told.runs:,} runs"
    if percent >= 100:
        return f"by {by}, {labels.peer} may have read every `{labels.label}` of `{labels.dataset}`"
    return (
        f"by {by}, {labels.peer} was told what lets it read `{labels.label}` of `{labels.dataset}` with an AUC of at "
        f"most {percent:g} % (50 % is guessing)"
    )


def _left_in_words(percent: int | None, left: int | None) -> str:
    if left is None:
        return "no limit"
    if left <= 50:
        return f"nothing is left of the {percent} % that are allowed"
    return f"{percent} % are allowed, which leaves room for one more training of up to {left} %"
