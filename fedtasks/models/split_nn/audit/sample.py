"""What has crossed of a fixed choice of rows, epoch after epoch, at the label's holder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]

_Batch = tuple[np.ndarray, object, Arrays, Arrays]

MOST_ROWS = 32_768
"""So many rows are looked at, at most."""

MOST_ITEMS = 1 << 20
"""So many items of gradients are kept of them, at most, so that wide cuts cost no more than narrow ones."""

MOST_RECEIVED = 8_192
"""What was received is kept of so many of them, at most."""

_CHUNK = 1 << 20

_AT_ONCE = 8_192
"""Batches are kept until they have so many rows: a few large steps take less time than many small ones."""


class Sample:
    """Some train rows: what was sent and received of each in the epoch that goes on, and the sums over all before.

    Parameters
    ----------
    n_rows
        How many train rows there are, validation rows included: their numbers are smaller.
    width
        Items of all received cuts of a row, which are those of the gradients that are sent.

    Attributes
    ----------
    epochs
        How many are in the sums.
    labels
        By name, shape ``(m,)`` each; no number for a row that has not come yet.
    sums
        Of the gradients of each row over all epochs that have ended, float32 of shape ``(m, width)``.
    gradients
        Of each row in the epoch that goes on; shape as of `sums`.
    activations
        Of the first `MOST_RECEIVED` rows.
    is_seen
        Which rows have come in it, shape ``(m,)``.

    Notes
    -----
    Rows are chosen by a hash of their number among the train rows, so an attempt that goes on chooses the same.
    Cost: at most ``12 × m × width`` bytes.
    """

    def __init__(self, n_rows: int, width: int) -> None:
        most = min(MOST_ROWS, max(1, MOST_ITEMS // max(1, width)))
        self._chosen: np.ndarray | None
        self._below, self._chosen = (np.uint64(0), None) if n_rows <= most else chosen(n_rows, most)
        size = n_rows if self._chosen is None else len(self._chosen)
        self.epochs = 0
        self.labels: dict[str, np.ndarray] = {}
        self.sums = np.zeros((size, width), np.float32)
        self.gradients = np.zeros((size, width), np.float32)
        self.activations = np.zeros((min(size, MOST_RECEIVED), width), np.float32)
        self.is_seen = np.zeros(size, bool)
        self._waiting: list[_Batch] = []

    def begin(self) -> None:
        """Begin an epoch."""
        self._waiting.clear()
        self.is_seen[:] = False

    def add(self, places: np.ndarray, labels: object, gradients: Arrays, activations: Arrays) -> None:
        """Take what has crossed of a batch.

        Parameters
        ----------
        places
            Numbers of its rows among the train rows.
        labels
            Of the batch; by name where there are several.
        gradients, activations
            By cut: what was sent, and what was received.
        """
        self._waiting.append((places, labels, gradients, activations))
        if len(places) * len(self._waiting) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Keep of the batches that came what is of the chosen rows."""
        if not self._waiting:
            return
        places, labels, gradients, activations = zip(*self._waiting, strict=True)
        self._waiting.clear()
        slots, rows = self._slots(np.concatenate(places))
        if not len(slots):
            return
        for name, each in labels_by_name(_joined(labels)).items():
            if name not in self.labels:
                self.labels[name] = np.full(len(self.sums), np.nan, np.float32)
            self.labels[name][slots] = each[rows]
        # The loss is a mean over the batch, so a row of a short last batch weighs more; undo that.
        sizes = [len(each) for each in places]
        weights = np.repeat(np.array(sizes, np.float32), sizes)[rows, np.newaxis]
        self.gradients[slots] = _beside(gradients, rows) * weights
        is_kept = slots < len(self.activations)
        if is_kept.any():
            kept = np.flatnonzero(is_kept) if isinstance(rows, slice) else rows[is_kept]
            self.activations[slots[is_kept]] = _beside(activations, kept)
        self.is_seen[slots] = True

    def end(self) -> None:
        """End the epoch: what was sent in it joins the sums."""
        self.flush()
        if self.is_seen.all():
            self.sums += self.gradients
        else:
            self.sums[self.is_seen] += self.gradients[self.is_seen]
        self.epochs += 1

    def taken(self, values: np.ndarray) -> np.ndarray:
        """Return those of the rows, or of the first ones, that have come in this epoch."""
        is_seen = self.is_seen[: len(values)]
        return values if is_seen.all() else values[is_seen]

    def known_labels(self, most: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each label's name, and the labels of the rows, or of so many first ones, that came in this epoch."""
        for name, each in self.labels.items():
            yield name, self.taken(each[:most])

    def state(self, *, within_epoch: bool = False) -> list[np.ndarray]:
        """Return what another attempt must know to go on after an epoch, or within one."""
        self.flush()
        labels = [self.labels[name] for name in self.labels]
        table = np.stack(labels, axis=1) if labels else np.zeros((len(self.sums), 0), np.float32)
        found = [self.sums.copy(), np.array(self.epochs), np.array(list(self.labels), dtype=np.str_), table]
        if within_epoch:
            found += [self.gradients.copy(), self.activations.copy(), self.is_seen.copy()]
        return found

    def load(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a state."""
        sums, epochs, names, labels, *epoch = state
        self.sums = sums.copy()
        self.epochs = int(epochs)
        self.labels = {str(name): np.array(labels[:, place]) for place, name in enumerate(names)}
        if epoch:
            self.gradients, self.activations, self.is_seen = (each.copy() for each in epoch)

    def _slots(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray | slice]:
        """Return the chosen rows among some, as places in the sample and in the batch."""
        if self._chosen is None:
            return places, slice(None)
        rows = np.flatnonzero(_hashed(places.astype(np.uint64)) < self._below)
        slots = np.searchsorted(self._chosen, places[rows])
        is_chosen = self._chosen[np.minimum(slots, len(self._chosen) - 1)] == places[rows]
        return slots[is_chosen], rows[is_chosen]


def labels_by_name(labels: object) -> dict[str, np.ndarray]:
    """Return labels of a batch by name, float32 of shape ``(n,)`` each; one-hot ones as the numbers of classes."""
    named = labels if isinstance(labels, Mapping) else {"": labels}
    found = {}
    for name, each in named.items():
        values = np.asarray(each)
        flat = values.reshape(len(values), -1)
        found[str(name)] = (flat[:, 0] if flat.shape[1] == 1 else flat.argmax(axis=1)).astype(np.float32)
    return found


def _joined(labels: Sequence[object]) -> object:
    """Put the labels of batches one behind another."""
    first = labels[0]
    if isinstance(first, Mapping):
        return {name: np.concatenate([np.asarray(each[name]) for each in labels]) for name in first}  # type: ignore[index]
    return np.concatenate([np.asarray(each) for each in labels])


def chosen(n_rows: int, most: int) -> tuple[np.uint64, np.ndarray]:
    """Choose at most so many rows; returns below what the hashes of their numbers lie, and these, ascending."""
    # Four deviations fewer than may be, of what is left to chance, so that hardly ever one is cut off at the end.
    share = max(most - 4 * most**0.5, most / 2) / n_rows
    below = np.uint64(int(share * 2**64))
    found = []
    for start in range(0, n_rows, _CHUNK):
        places = np.arange(start, min(n_rows, start + _CHUNK), dtype=np.uint64)
        found.append(places[_hashed(places) < below])
    return below, np.concatenate(found)[:most].astype(np.int64)


def _hashed(values: np.ndarray) -> np.ndarray:
    """Return well mixed uint64 of uint64: the output function of SplitMix64 (Steele et al., OOPSLA 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _beside(batches: Sequence[Arrays], rows: np.ndarray | slice) -> np.ndarray:
    """Return the values of all cuts of some rows of batches side by side, always in the same order."""
    joined = (np.concatenate([batch[name] for batch in batches])[rows] for name in sorted(batches[0]))
    flat = [each.reshape(len(each), -1).astype(np.float32, copy=False) for each in joined]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
