from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def umask_before() -> Iterator[None]:
    """Give the umask back: commands and halves change that of their process, which here goes on to other tests."""
    before = os.umask(0)
    os.umask(before)
    yield
    os.umask(before)
