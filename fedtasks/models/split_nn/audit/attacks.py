"""The attacks on rows of gradients that a follower could make."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.models.split_nn.audit.leak import Leak, of_numbers, of_scores, worse

NORM, DIRECTION, HINT, SPECTRAL = "norm", "direction", "hint", "spectral"
ATTACKS = (SPECTRAL, NORM, DIRECTION, HINT)
"""In this order: of attacks that read equally much, the one that needs to know least comes first."""

KNOWN = (1, 3, 5)
"""Of so many rows of either label the direction and the hint attack know the label."""

MIN_ROWS = 10
"""With fewer rows of either label nothing can be said."""

MOST_CLASSES = 16
"""The most frequent classes of a label are told from all others, so many of them."""

MOST_READ = 4_096
"""The labels of so many rows of either class are read, at most: an AUC does not depend on how many there are of each.

Of several classes that many are read of all together."""


def attacks(
    labels: np.ndarray,
    gradients: np.ndarray,
    epoch: int,
    kind: LabelKind = LabelKind.BINARY,
    about: str = "",
    names: Collection[str] = ATTACKS,
) -> Iterator[Leak]:
    """Yield what each attack reads; nothing where too few rows have either label.

    Parameters
    ----------
    labels
        Shape ``(n,)``: values 0 and 1, the numbers of classes, or numbers.
    gradients
        What the follower has received of each row, all cuts side by side: shape ``(n, width)``, finite.
    epoch
        From 1.
    kind
        Of the label.
    about
        Which label it is, where there are several.
    names
        Of the attacks to make.

    Notes
    -----
    Rows whose labels an attack knows are read by none of them. Of several classes, each is told from all others and the
    worst is yielded.
    Cost: eleven sorts of at most 8,192 numbers for each class, and ``n × width × min(n, width)``.
    Source: norm and direction attack: Li et al., Label leakage and protection in two-party split learning, 2021,
    sections 3.1 and 3.2; direction is the cosine with rows whose label is known. Hint attack: the projection on the
    difference between known rows of either label; of a number, on the sum of known rows by how far their labels lie
    from the mean. Spectral attack: Sun et al., Label leakage and protection from forward embedding in vertical
    federated learning, 2022; here the projection on the first principal component of gradients, signed and not, of
    them as they are and centred, which needs no known label. Of several classes as many components are tried.
    """
    if not gradients.size:
        return
    values = scaled(gradients)
    if kind is LabelKind.CLASSES:
        yield from _on_classes(labels, values, epoch, about, names)
    elif kind is LabelKind.NUMBER:
        yield from _on_numbers(labels, values, epoch, about, names)
    elif is_enough(labels == 1):
        yield from _on_two(labels == 1, values, Components(values, 1), epoch, about, names)


def scaled(values: np.ndarray) -> np.ndarray:
    """Return rows as float32 of which no square overflows or vanishes; what is not finite becomes 0."""
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    if not np.isfinite(largest):
        return scaled(np.nan_to_num(values, nan=0, posinf=0, neginf=0))
    if largest and not 1e-10 < largest < 1e10:
        values = values / largest
    return values.astype(np.float32, copy=False)


class Components:
    """The first principal components of rows, as they are and centred.

    Parameters
    ----------
    values
        Shape ``(n, width)``.
    count
        How many.

    Notes
    -----
    Of rows that are wider than there are rows the products of rows have the same components.
    """

    def __init__(self, values: np.ndarray, count: int) -> None:
        n_rows, width = values.shape
        count = min(count, n_rows, width)
        mean = values.mean(axis=0)
        self._mean = mean
        if width <= n_rows:
            products = (values.T @ values).astype(np.float64)
            centred = products - n_rows * np.outer(mean, mean.astype(np.float64))
            self._plain, self._centred = (_largest(each, count) for each in (products, centred))
        else:
            self._plain, self._centred = (each.T @ _largest(each @ each.T, count) for each in (values, values - mean))

    def scores(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the projections of rows, signed and not."""
        # Not centred too: a gradient is the error of a row times a direction that all rows share, so its sign is the
        # label.
        found = [*(values @ self._plain).T, *((values - self._mean) @ self._centred).T]
        return [*found, *map(np.abs, found)]


def _largest(products: np.ndarray, count: int) -> np.ndarray:
    """Return the eigenvectors of the largest eigenvalues, float32 of shape ``(width, count)``."""
    _, vectors = np.linalg.eigh(products.astype(np.float64))
    return np.asarray(vectors[:, : -count - 1 : -1], np.float32)


def is_enough(is_one: np.ndarray) -> bool:
    """Whether there are enough rows with and without some label."""
    n_ones = int(np.sum(is_one))
    return MIN_ROWS <= n_ones <= len(is_one) - MIN_ROWS


def spread(places: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of some places, from all over them."""
    return places if len(places) <= most else places[np.arange(most) * len(places) // most]


def most_frequent(labels: np.ndarray) -> list[float]:
    """Return the classes that are told from all others, the most frequent first."""
    classes, counts = np.unique(labels, return_counts=True)
    return [float(classes[place]) for place in np.argsort(-counts, kind="stable")[:MOST_CLASSES]]


def _directions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the norms of rows, and the rows divided by them; those of norm 0 as they are."""
    norms = np.sqrt(np.einsum("nw,nw->n", values, values))
    return norms, values / np.where(norms > 0, norms, 1)[:, np.newaxis]


def _means(values: np.ndarray) -> np.ndarray:
    """Return the means of the first rows that an attack knows, one, three or five of them, as columns."""
    return np.stack([values[:known].mean(axis=0) for known in KNOWN], axis=1)


def _on_two(
    is_one: np.ndarray,
    values: np.ndarray,
    components: Components,
    epoch: int,
    about: str,
    names: Collection[str],
    most: int = MOST_READ,
) -> Iterator[Leak]:
    ones, zeros = np.flatnonzero(is_one), np.flatnonzero(~is_one)
    n_known = KNOWN[-1]
    read = [spread(each[n_known:], most) for each in (ones, zeros)]
    rows = values[np.concatenate(read)]
    labels = np.repeat([1, 0], [len(each) for each in read])
    share = len(ones) / len(is_one)
    known = [values[each[:n_known]] for each in (ones, zeros)]

    def leak(attack: str, scores: Iterable[np.ndarray]) -> Leak:
        return of_scores(attack, epoch, labels, scores, share=share, about=about)

    norms, directions = _directions(rows)
    if SPECTRAL in names:
        yield leak(SPECTRAL, components.scores(rows))
    if NORM in names:
        yield leak(NORM, [norms])
    if DIRECTION in names:
        yield leak(DIRECTION, (directions @ _means(_directions(known[0])[1])).T)
    if HINT in names:
        yield leak(HINT, (rows @ (_means(known[0]) - _means(known[1]))).T)


def _on_classes(
    labels: np.ndarray, values: np.ndarray, epoch: int, about: str, names: Collection[str]
) -> Iterator[Leak]:
    classes = most_frequent(labels)
    components = Components(values, len(classes) - 1)
    found: dict[str, Leak | None] = {}
    for each in classes:
        if is_enough(labels == each):
            name = f"{about} class {each:g}".strip()
            most = 2 * MOST_READ // len(classes)
            for leak in _on_two(labels == each, values, components, epoch, name, names, most):
                found[leak.attack] = worse(found.get(leak.attack), leak)
    yield from (leak for leak in found.values() if leak)


def _on_numbers(
    numbers: np.ndarray, values: np.ndarray, epoch: int, about: str, names: Collection[str]
) -> Iterator[Leak]:
    n_known = 2 * KNOWN[-1]
    if len(numbers) < n_known + 2 * MIN_ROWS:
        return
    read = spread(np.arange(n_known, len(numbers)), 2 * MOST_READ)
    rows, left = values[read], numbers[read]
    known = values[:n_known][np.argsort(-numbers[:n_known], kind="stable")]
    apart = np.sort(numbers[:n_known])[::-1] - numbers[:n_known].mean()

    def leak(attack: str, scores: Iterable[np.ndarray]) -> Leak:
        return of_numbers(attack, epoch, left, scores, about=about)

    norms, directions = _directions(rows)
    if SPECTRAL in names:
        yield leak(SPECTRAL, Components(values, 1).scores(rows))
    if NORM in names:
        yield leak(NORM, [norms])
    if DIRECTION in names:
        yield leak(DIRECTION, (directions @ _means(_directions(known)[1])).T)
    if HINT in names:
        yield leak(HINT, [rows @ (apart.astype(np.float32) @ known)])
