"""The native kernels: C code that the package's build compiles when there is a compiler.

What each function does stands in the headers beside this file.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from fedtasks.crypto.native.compiler import LIBRARY


@cache
def load() -> ctypes.CDLL | None:
    """Return the library, or None when it was not built or cannot be loaded here."""
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None


def call(function: str, *arguments: Any) -> int:
    """Call a function of the library; the GIL is released meanwhile.

    Parameters
    ----------
    arguments
        Integers go as ``size_t``, C-contiguous arrays as pointers to their first value.

    Raises
    ------
    MemoryError
        It returned -1.
    """
    library = load()
    if library is None:
        raise OSError("the native kernels are not there")
    given = [_argument(each) for each in arguments]
    found: int = getattr(library, function)(*given)
    if found == -1:
        raise MemoryError(f"{function} has no memory, or its arithmetic failed")
    return found


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise ValueError("an array is not contiguous")
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_size_t(value) if isinstance(value, int) else value
