"""Where the files lie that come with fedtasks: DAG files, and jobs for Spark."""

from __future__ import annotations

from pathlib import Path

import fedtasks

DAGS, JOBS = "dags", "spark_jobs"
"""The sorts of files there are."""


def shipped_folder(sort: str) -> Path:
    """Return the folder with the files of one sort, `DAGS` or `JOBS`."""
    package = Path(fedtasks.__file__).parent
    installed = package / "examples" / sort
    # Where the package is used as it is checked out, they lie beside it.
    return installed if installed.is_dir() else package.parent / sort
