"""Imports without what libraries import beside, only because it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa

_BESIDE = ("pandas", "sklearn")


class _Hiding(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Say that there is none of `_BESIDE`, and nothing about other modules."""
        if name in _BESIDE:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Let what is imported here find neither pandas nor scikit-learn; later it can be imported by whoever needs it.

    Notes
    -----
    Cost: none; saves 0.3 CPU seconds where pyarrow makes its first array, for which it looks for pandas once, and 1.5
    where Keras is imported, which looks for both.
    """
    hiding = _Hiding()
    sys.meta_path.insert(0, hiding)
    try:
        pa.scalar("")
        yield
    finally:
        sys.meta_path.remove(hiding)
