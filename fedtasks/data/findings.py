"""What the columns of a dataset hold, in words: what harms a model, and what mends it.

Numbers of this party's own columns may stand here, and words that mean "missing"; no id does, and no other text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fedtasks.checks import Finding, Verdict
from fedtasks.config import Dataset, LabelKind
from fedtasks.data.profile import (
    MAX_DISTINCT,
    CategoryProfile,
    Numbers,
    NumericProfile,
    Profile,
    SequenceProfile,
    VectorProfile,
)
from fedtasks.kinds import VocabularyLimit

SENTINELS = frozenset(
    (-1, -9, -99, 99, *(sign * (10**n - less) for sign in (-1, 1) for n in range(3, 11) for less in (1, 2, 3)))
)
"""Numbers that often stand for "missing"."""

_OFTEN, _OFTEN_KNOWN = 0.002, 0.0005
_LEAST_ROWS, _LEAST_KNOWN = 10, 5
_MOST, _MOST_KNOWN = 0.5, 0.9
_HUGE = 1000.0
_BEYOND = 1e15
_MANY_ROWS = 100

GROUPED = "Group the rare ones, or leave the column out of `features`"
"""What mends too many categories."""

_MISSING_WORDS = frozenset(
    ("?", "-", "--", ".", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "nil", "\\n", "missing", "unknown")
)


@dataclass(frozen=True)
class Sentinel:
    """A number that may stand for something else than itself.

    Parameters
    ----------
    value, rows
        Which, and in how many rows.
    least, most
        Between what nearly all other values lie.
    is_frequent
        Whether it stands in many rows; else it is only further out than any number of the rest could be.
    """

    value: float
    rows: int
    least: float
    most: float
    is_frequent: bool


def sentinels(profile: NumericProfile) -> list[Sentinel]:
    """Return the numbers of a column that lie far from the rest and stand in many rows, or further than far.

    Notes
    -----
    They are looked for at both ends of the column: what lies amid other values nobody can tell from them.
    """
    sample, found = np.sort(profile.sample()), dict[float, Sentinel]()
    ends = {**profile.lowest, **profile.highest}
    while True:
        # What has been found at one end must not make the rest look wide from the other.
        rest = sample[~np.isin(sample, list(found))]
        suspects = (_suspect(value, rows, rest, profile.filled) for value, rows in ends.items() if value not in found)
        more = {each.value: each for each in suspects if each}
        if not more:
            return [found[value] for value in sorted(found)]
        found |= more


def _suspect(value: float, rows: int, ascending: Numbers, filled: int) -> Sentinel | None:
    """Judge a number by what lies above it, and by what lies below it."""
    known, share_of_rows = value in SENTINELS, rows / filled
    fewest, least_share = (_LEAST_KNOWN, _OFTEN_KNOWN) if known else (_LEAST_ROWS, _OFTEN)
    is_frequent = rows >= fewest and share_of_rows >= least_share
    above, below = ascending[np.searchsorted(ascending, value, "right") :], ascending[: ascending.searchsorted(value)]
    for rest in (above, below):
        if not len(rest) or len(rest) < (1 - (_MOST_KNOWN if known else _MOST)) * len(ascending):
            continue
        first, least, most, last = (float(rest[round(at * (len(rest) - 1))]) for at in (0, 0.01, 0.99, 1))
        width, away = most - least, max(least - value, value - most)
        found = Sentinel(value, rows, least, most, is_frequent)
        # Of a sparse column nearly all are one value, and a few others are no sentinels.
        if width and (away > _HUGE * width or (abs(value) > _BEYOND and away > width)):
            return found
        if not is_frequent:
            continue
        is_alone = value < 0 and float(rest[round((1 - _MOST_KNOWN) * (len(rest) - 1))]) >= 0
        is_far = away > (width or last - first) / 2
        if (known and last - first > 2 and (is_alone or is_far)) or (width and away > width):
            return found
    return None


# ------------------------------------------------------------------------------------------------------------- in words
def describe(profile: Profile) -> str:
    """Return what a column holds, on one line."""
    said = f"{profile.rows:,} rows, {share(profile.missing, profile.rows)} missing"
    if isinstance(profile, VectorProfile):
        least, most = (
            float(np.fmin.reduce(profile.least, initial=np.nan)),
            float(np.fmax.reduce(profile.most, initial=np.nan)),
        )
        said += f", vectors of width {len(profile.least):,}" if len(profile.least) else ""
        return said if np.isnan(least) else f"{said}, {number(least)} to {number(most)}"
    what = "id" if isinstance(profile, SequenceProfile) else "value"
    said += f", 1 {what}" if profile.distinct == 1 else f", {_several(profile)} different {what}s"
    if isinstance(profile, SequenceProfile) and profile.filled:
        return f"{said}, {number(profile.total / profile.filled)} a list and at most {profile.longest:,}"
    if isinstance(profile, NumericProfile) and profile.lowest:
        said += f", {number(min(profile.lowest))} to {number(max(profile.highest))}"
    return said


def examine_column(
    subject: str,
    profile: Profile,
    limits: Mapping[str, int],
    vocabularies: Mapping[str, VocabularyLimit] | None = None,
) -> Iterator[Finding]:
    """Yield what is suspicious about a feature.

    Parameters
    ----------
    subject
        What the column is called.
    limits
        Algorithm → how many values of a categorical feature it takes at most, of those that have such a limit.
    vocabularies
        Algorithm → how many frequent values of the feature it lists, of those that have such a limit; none where values
        are hashed.
    """
    if not profile.rows:
        return
    if not profile.filled:
        remedy = "Leave it out of `features`, or find out why nothing is in it"
        yield Finding(subject, Verdict.WARNING, "no row has a value", remedy)
    elif profile.distinct == 1:
        also = " or none" if profile.missing else ""
        what = "no id but one" if isinstance(profile, SequenceProfile) else "the same value"
        text = f"every row has {what}{also}, which says nothing of anybody"
        yield Finding(subject, Verdict.WARNING, text, "Leave it out of `features`")
    elif isinstance(profile, NumericProfile):
        yield from _examine_numbers(subject, profile)
    elif isinstance(profile, CategoryProfile):
        yield from _examine_categories(subject, profile, limits)
        yield from _examine_vocabulary(subject, profile, vocabularies or {})
    elif isinstance(profile, SequenceProfile):
        yield from _examine_vocabulary(subject, profile, vocabularies or {})
    elif isinstance(profile, VectorProfile):
        alike = int((profile.least == profile.most).sum())
        if alike:
            text = f"{alike:,} of the {len(profile.least):,} numbers of a vector are the same in every row"
            yield Finding(subject, Verdict.NOTE, text, "Leave them out, or find out why they never differ")


def _examine_numbers(subject: str, profile: NumericProfile) -> Iterator[Finding]:
    for found in sentinels(profile):
        value, rest = number(found.value), f"the rest ({number(found.least)} to {number(found.most)})"
        if found.is_frequent:
            text = f"{value} in {share(found.rows, profile.rows)} of the rows, far from {rest}"
            remedy = "If it stands for a missing value, leave it empty"
            if found.value in SENTINELS and abs(found.value) > 100:
                remedy += f", or declare it (`null: ['{found.value:.0f}']`, which counts for every column)"
        else:
            text = f"{value} in {found.rows:,} of {profile.rows:,} rows, out of all proportion to {rest}"
            remedy = "Correct the rows, or leave them empty"
        yield Finding(subject, Verdict.WARNING, text, remedy)


def _examine_categories(subject: str, profile: CategoryProfile, limits: Mapping[str, int]) -> Iterator[Finding]:
    if profile.is_nearly_unique and profile.filled >= _MANY_ROWS:
        text = "most rows have a value of their own, as ids, dates or free text have"
        remedy = "Leave it out of `features`, or declare it `numeric` if it is a number"
        yield Finding(subject, Verdict.WARNING, text, remedy)
    else:
        for algorithm, most in limits.items():
            if has_too_many(profile, most):
                yield Finding(subject, Verdict.WARNING, too_many(profile, algorithm, most), GROUPED)
    words = sorted(word for word in profile.counts if word.strip().lower() in _MISSING_WORDS)
    if words:
        rows = sum(profile.counts[word] for word in words)
        named = ", ".join(f"`{word}`" for word in words)
        text = f"{named} in {share(rows, profile.rows)} of the rows is taken for a category of its own"
        yield Finding(subject, Verdict.WARNING, text, f"If it means missing, declare it: `null: {words}`")
    alike = len(profile.counts) - len({" ".join(value.split()).lower() for value in profile.counts})
    if alike:
        text = f"{alike:,} of {_several(profile)} categories differ from others by case or spaces alone"
        yield Finding(subject, Verdict.WARNING, text, "Write each one way")


def _examine_vocabulary(
    subject: str, profile: CategoryProfile | SequenceProfile, limits: Mapping[str, VocabularyLimit]
) -> Iterator[Finding]:
    """Say which algorithm may have too many values to list; how many remain, only the people in common decide."""
    for algorithm, limit in limits.items():
        found = profile.frequent(limit.least_rows)
        if found <= limit.most:
            continue
        at_least = "at least " if profile.distinct is None else ""
        what = "ids" if isinstance(profile, SequenceProfile) else "values"
        text = (
            f"{at_least}{found:,} {what} stand there {limit.least_rows} times or more; if more than {limit.most:,} "
            f"still do so among the people in common, `{algorithm}` refuses to train"
        )
        yield Finding(subject, Verdict.WARNING, text, limit.remedy)


def too_many(profile: Profile, algorithm: str, most: int) -> str:
    """Say that a column has more categories than an algorithm takes."""
    return f"{_several(profile)} categories, of which `{algorithm}` takes at most {most:,}"


def has_too_many(profile: Profile, most: int) -> bool:
    """Whether a column has more categories than that."""
    return isinstance(profile, CategoryProfile) and (profile.distinct is None or profile.distinct > most)


def _several(profile: Profile) -> str:
    return f"more than {MAX_DISTINCT:,}" if profile.distinct is None else f"{profile.distinct:,}"


def examine_label(subject: str, dataset: Dataset, counts: Mapping[str | None, int]) -> Finding:
    """Say which classes a label has.

    Parameters
    ----------
    counts
        Text of the label → rows, None where it is missing.
    """
    rows = sum(counts.values())
    positive = ("1", "true") if dataset.label_positive is None else (dataset.label_positive,)
    if dataset.label_kind is LabelKind.BINARY:
        n_positive = sum(n for value, n in counts.items() if value in positive)
        said = f"{rows:,} rows: {n_positive:,} positive ({share(n_positive, rows)}), {rows - n_positive:,} not"
        fewest = min(n_positive, rows - n_positive)
    else:
        listed = ", ".join(f"{name} {counts.get(name, 0):,}" for name in dataset.label_classes[:10])
        more = ", …" if len(dataset.label_classes) > 10 else ""
        said = f"{rows:,} rows: {listed}{more}"
        fewest = min(counts.get(name, 0) for name in dataset.label_classes)
    if fewest < 10:
        return Finding(
            subject, Verdict.WARNING, f"{said}; the rarest class has too few to learn from", "Share more rows"
        )
    return Finding(subject, Verdict.OK, said)


def share(part: int, of: int) -> str:
    """Return a share in per cent, with one digit behind the point below ten."""
    percent = 100 * part / of if of else 0.0
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 or not percent else f"{percent:.1f} %"


def number(value: float) -> str:
    """Return a number as people read it: whole ones in full, of others three digits."""
    if abs(value) >= _BEYOND:
        return f"{value:.3g}"
    if value == int(value) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.3g}"
