"""DAG files as their authors would write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dag_files import HEADER, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a DAG file, after the imports that all of them need."""

    def write_file(text: str, name: str = "pipeline", *, header: str = HEADER) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(header + text, encoding="utf-8")
        return path

    return write_file
