"""Files that come with fedtasks: pipelines to begin with, and jobs for whoever starts Spark by ``spark-submit``."""

from __future__ import annotations

import ast
from pathlib import Path

import fedtasks
from fedtasks import private
from fedtasks.errors import ConfigError

DAGS, JOBS = "dags", "spark_jobs"
"""The sorts of files there are."""


def example_files(sort: str) -> list[Path]:
    """Return the files of one sort, by name.

    Parameters
    ----------
    sort
        `DAGS` or `JOBS`.
    """
    package = Path(fedtasks.__file__).parent
    installed = package / "examples" / sort
    # Where the package is used as it is checked out, they lie beside it.
    folder = installed if installed.is_dir() else package.parent / sort
    return sorted(folder.glob("*.py"))


def summary(file: Path) -> str:
    """Return the first sentence of what a file says of itself."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def copy_examples(sort: str, folder: Path) -> list[Path]:
    """Copy the files of one sort into a folder, which is made if it is not there.

    Raises
    ------
    ConfigError
        A file of that name is there already; nothing was copied.
    """
    targets = {folder / file.name: file for file in example_files(sort)}
    for target in targets:
        if target.exists():
            raise ConfigError("the file is there already; choose another folder", where=str(target), field="folder")
    private.make_folders(folder, private.SHARED)
    for target, file in targets.items():
        target.write_bytes(file.read_bytes())
        private.share(target)
    return list(targets)
