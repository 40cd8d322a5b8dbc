"""Programs that tests of what is deployed run, and which not every machine has."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_BESIDE_PYTHON = Path(sys.executable).parent


def find(*names: str) -> str:
    """Return the first of these programs that is there, or end the test: see `lacking`."""
    places = os.pathsep.join((str(_BESIDE_PYTHON), os.environ.get("PATH", os.defpath)))
    for name in names:
        if found := shutil.which(name, path=places):
            return found
    lacking(f"{' or '.join(names)} is not on this machine")


def lacking(what: str) -> NoReturn:
    """End a test for which this machine lacks something: it fails in CI and is skipped elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
