"""A first look whether rows may have a key that some others have, which costs little and errs on one side only."""

from __future__ import annotations

import numpy as np

from fedtasks.join.rows import Mask, Words

_LEAST_BITS, _MOST_BITS = 10, 26
_ROOM_BITS = 3


class KeyFilter:
    """Tells of most rows that have none of the keys of some others that they have none.

    Parameters
    ----------
    keys
        Keys by level as two uniform words each, zeros where a row has none: ``uint64``, shape ``(2 * levels, n)``.

    Notes
    -----
    Cost: a table of eight times as many bytes as there are rows, up to 64 MB, for each level. About an eighth of the
    rows that have no such key pass as well.
    """

    def __init__(self, keys: Words) -> None:
        bits = keys.shape[1].bit_length() + _ROOM_BITS
        size = 1 << min(max(bits, _LEAST_BITS), _MOST_BITS)
        self._mask = np.uint64(size - 1)
        self._tables = np.zeros((len(keys) // 2, size), dtype=np.bool_)
        for table, hi, lo in zip(self._tables, keys[::2], keys[1::2], strict=True):
            table[lo[(hi != 0) | (lo != 0)] & self._mask] = True

    def may_hold(self, keys: Words) -> Mask:
        """Return of each row whether one of its keys may be among those, at the same level."""
        found: Mask = np.zeros(keys.shape[1], dtype=np.bool_)
        for table, lo in zip(self._tables, keys[1::2], strict=True):
            found |= table[lo & self._mask]
        return found
