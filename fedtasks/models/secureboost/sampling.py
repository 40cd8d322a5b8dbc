"""Which rows and features a tree is grown from: drawn from the shared seed, so that attempts draw alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedtasks.models.secureboost.settings import TrainSettings

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_VALIDATION, _ROWS, _COLUMNS = 1, 2, 3
LEADER, FOLLOWER = 0, 1


def _generator(settings: TrainSettings, *what: int) -> np.random.Generator:
    # PCG64 is the same on every platform.
    return np.random.Generator(np.random.PCG64([settings.seed, *what]))


def validation_rows(n_rows: int, settings: TrainSettings) -> Mask:
    """Return which train rows no tree is grown from."""
    found = np.zeros(n_rows, dtype=bool)
    chosen = _generator(settings, _VALIDATION).permutation(n_rows)[: round(settings.validation_fraction * n_rows)]
    found[chosen] = True
    return found


def columns(tree: int, n_columns: int, party: int, settings: TrainSettings) -> list[int]:
    """Return which of a party's columns a tree may use, at least one."""
    kept = max(1, round(settings.colsample * n_columns))
    if kept >= n_columns:
        return list(range(n_columns))
    chosen = _generator(settings, _COLUMNS, tree, party).choice(n_columns, kept, replace=False)
    return sorted(int(each) for each in chosen)


def bag(tree: int, sizes: Floats, allowed: Mask, settings: TrainSettings) -> tuple[Mask, Floats]:
    """Return which rows a tree is grown from, and how much each of them counts.

    Parameters
    ----------
    sizes
        How large each row's gradient is, shape ``(n,)``.
    allowed
        Which rows may be taken.

    Notes
    -----
    Reveals: the follower sees which rows are chosen; by gradient-based sampling these are likelier to have large
    gradients.
    Source: Ke et al., "LightGBM: a highly efficient gradient boosting decision tree", 2017, algorithm 2.
    """
    rows = np.flatnonzero(allowed)
    counts = np.ones(len(allowed))
    if settings.goss_top:
        n_top = max(1, round(settings.goss_top * len(rows)))
        n_other = min(len(rows) - n_top, max(1, round(settings.goss_other * len(rows))))
        order = rows[np.argsort(-sizes[rows], kind="stable")]
        others = order[n_top:]
        drawn = _generator(settings, _ROWS, tree).choice(others, n_other, replace=False)
        counts[drawn] = len(others) / max(n_other, 1)
        rows = np.concatenate([order[:n_top], drawn])
    elif settings.subsample < 1:
        n_kept = max(1, round(settings.subsample * len(rows)))
        rows = _generator(settings, _ROWS, tree).choice(rows, n_kept, replace=False)
    chosen = np.zeros(len(allowed), dtype=bool)
    chosen[rows] = True
    return chosen, counts
