"""Folders that count once a manifest names them, under names that say when they were made.

A process that dies between filling such a folder and naming it leaves it to nobody; whoever writes the manifest next
removes it, but not one that another process may yet name.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Set as AbstractSet

from fedtasks.data.storage import filesystem

_NAME = re.compile(r"[0-9a-f]{32}")
_ABANDONED_S = 86_400.0


def new_name() -> str:
    """Return a name that nobody else uses."""
    return f"{int(time.time()):08x}{uuid.uuid4().hex[8:]}"


def abandoned(uri: str, named: AbstractSet[str]) -> set[str]:
    """Return the folders in `uri` that are not `named` and were made more than a day ago, or will be."""
    fs, path = filesystem(uri)
    found = {str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(path, detail=False)}
    return {name for name in found - named if _NAME.fullmatch(name) and abs(_age_s(name)) > _ABANDONED_S}


def _age_s(name: str) -> float:
    return time.time() - int(name[:8], 16)
